"""Settings that a task carries: how a site trains, what it shares, how a classifier is refitted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field

from sheaf.core.settings import settings


@settings
class Recipe:
    """How a site trains. Plain data.

    ``epochs`` is passes over the site's own training images. ``precision = "auto"`` is bfloat16 on CUDA
    and float32 elsewhere. ``augment`` works on whole batches: ``flip`` mirrors half of the images left to
    right, ``crop`` shifts each by up to an eighth of its side.

    ``alpha`` is what the logits of classes that the site has no example of are multiplied by in the loss
    (restricted softmax, FedRS: Li, Zhan, KDD 2021, equation 6): 1 is the plain softmax, 0 is HeteroFL's mask,
    ``mask`` leaves them out altogether. What a site never sees is then not unlearned as thoroughly.

    ``tail`` is the share of the last steps over which the weights are averaged (see ``tail.py``): training
    then leaves their mean instead of the last ones. 0 is off.
    """

    epochs: Annotated[int, Field(ge=0)] = 1
    batch_size: Annotated[int, Field(ge=1)] = 64
    optimizer: Literal["sgd", "adam", "adamw"] = "adam"
    lr: Annotated[float, Field(gt=0)] = 1e-3
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    schedule: Literal["constant", "cosine", "onecycle"] = "constant"
    augment: tuple[Literal["flip", "crop"], ...] = ()
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    alpha: Annotated[float, Field(ge=0, le=1)] | Literal["mask"] = 1.0
    tail: Annotated[float, Field(ge=0, le=1)] = 0.0


@settings
class Share:
    """How much of its training samples an edge sends up, and which; the least of the limits holds.

    Attributes:
        fraction: of the edge's samples.
        count: of samples, at most.
        bytes: of the encoded samples, at most.
        choose: ``random``; ``balanced`` takes as many of each class as there are, as far as they go;
            ``uncertain`` takes those over which the model that the edge holds is least decided (the entropy
            of its predictions).
    """

    fraction: Annotated[float, Field(gt=0, le=1)] = 1.0
    count: Annotated[int, Field(ge=1)] | None = None
    bytes: Annotated[int, Field(ge=1)] | None = None
    choose: Literal["random", "balanced", "uncertain"] = "random"


@settings
class Ridge:
    """Refits the classifier by ridge regression on one-hot targets: no gradient step.

    Attributes:
        ridge: what is added to the diagonal of the features' Gram matrix, as a share of its mean.
        rescale: then multiply the logits, which regression leaves small, by the one number of least
            cross-entropy, so that a fine-tune starts from probabilities that mean something.
    """

    ridge: Annotated[float, Field(gt=0)] = 1e-3
    rescale: bool = True


StatisticKind = Literal["gram", "fisher"]


@dataclass(frozen=True)
class Statistic:
    """What a site computes of its own data and what it has trained, for a merge to weigh it by.

    ``gram``    of each linear layer and convolution: the mean over examples of X'X, X the rows that it takes
    ``fisher``  of each parameter: the diagonal of the Fisher information

    Attributes:
        examples: how many of the site's training examples it is computed on, drawn at random; None for all.
    """

    kind: StatisticKind
    examples: int | None = None
