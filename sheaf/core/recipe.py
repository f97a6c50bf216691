"""Settings that a task carries: how a site trains, what it sends, how a classifier is refitted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import Field

from sheaf.core.optional_imports import require
from sheaf.core.settings import plugin_field, settings

Off = Literal["none"]
"""The value of a setting that leaves its step out; TOML has no null."""


@settings
class Part:
    """A part of a training. Together, the parts of a training use each example once an epoch.

    Attributes:
        n: number of the part, from 1 to ``of``.
        of: the number of parts, of equal numbers of mini-batches.
        order: seed of the order of the examples, which all parts of a training share.
    """

    n: Annotated[int, Field(ge=1)]
    of: Annotated[int, Field(ge=1)]
    order: Annotated[int, Field(ge=0)] = 0

    def __post_init__(self) -> None:
        if self.n > self.of:
            raise ValueError(f"part.n = {self.n} is above part.of = {self.of}; allowed: 1 to {self.of}")


@settings
class Recipe:
    """How a site trains.

    Attributes:
        epochs: passes over the site's own training examples.
        work: the fraction of the mini-batches of these epochs after which training ends, above 0 and at most
            1; the number is rounded up. A schedule spans these mini-batches.
        part: train only a part of these mini-batches; None: all.
        batch_size: examples of a mini-batch. A last batch of one example joins the one before it.
        optimizer: ``sgd``, ``adam`` or ``adamw``, as in ``torch.optim``.
        lr: learning rate; the highest one of a schedule.
        momentum: of ``sgd``; the others do not use it.
        weight_decay: of the optimizer.
        schedule: of the learning rate over all steps: ``constant``, ``cosine`` (to 0) or ``onecycle``.
        augment: augmentations of each mini-batch: ``flip`` mirrors half of the images left to right, ``crop``
            shifts each by up to an eighth of its side.
        precision: of forward passes; ``auto`` is bfloat16 on CUDA and float32 elsewhere.
        loss: a loss of ``sheaf/training/losses``, by name or as a table with its settings.
        average_last: the fraction of the last steps over which the weights are averaged
            (``training/weight_averaging.py``); 0 keeps the last weights.
    """

    epochs: Annotated[int, Field(ge=0)] = 1
    work: Annotated[float, Field(gt=0, le=1)] = 1.0
    part: Part | None = None
    batch_size: Annotated[int, Field(ge=1)] = 64
    optimizer: Literal["sgd", "adam", "adamw"] = "adam"
    lr: Annotated[float, Field(gt=0)] = 1e-3
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    schedule: Literal["constant", "cosine", "onecycle"] = "constant"
    augment: tuple[Literal["flip", "crop"], ...] = ()
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    loss: Annotated[Any, plugin_field("losses"), Field(validate_default=True)] = "cross_entropy"
    average_last: Annotated[float, Field(ge=0, le=1)] = 0.0


@settings
class Share:
    """How many of its training samples an edge sends up, and which ones. The lowest limit applies.

    Attributes:
        fraction: of the edge's training samples, above 0 and at most 1.
        count: largest number of samples; None for no limit.
        bytes: largest size of the encoded samples; None for no limit.
        choose: ``random``; ``balanced`` (equal numbers of each class, as far as a class has samples);
            ``uncertain`` (the samples with the highest entropy of the predictions of the edge's own model).
    """

    fraction: Annotated[float, Field(gt=0, le=1)] = 1.0
    count: Annotated[int, Field(ge=1)] | None = None
    bytes: Annotated[int, Field(ge=1)] | None = None
    choose: Literal["random", "balanced", "uncertain"] = "random"


@settings
class Ridge:
    """Refit the classifier by ridge regression on one-hot targets, without gradient steps.

    Attributes:
        ridge: added to the diagonal of the features' Gram matrix, as a fraction of the diagonal's mean.
        rescale: multiply the logits, which regression leaves small, by the factor of lowest cross-entropy, so
            that further fine-tuning starts from calibrated probabilities.
    """

    ridge: Annotated[float, Field(gt=0)] = 1e-3
    rescale: bool = True

    def __post_init__(self) -> None:
        if self.rescale:
            require("workstation", "scipy")  # before training, as the refit comes after it


@settings
class Privacy:
    """Differential privacy of the statistics that edges send for a classifier, by the Gaussian mechanism.

    The guarantee is for each example of an edge: adding or removing one changes the probability of anything
    that the cloud receives as statistics by a factor of at most e^epsilon, except with probability delta. It
    covers all statistics of a run together, and nothing else: not the models that an edge trains and sends,
    not the states of their optimizers, and not the class counts that a device reports when it joins a run.

    Attributes:
        epsilon: of the whole run, above 0.
        delta: above 0 and below 1; below 1 / (an edge's number of examples).
        clip: longer feature vectors are scaled to this Euclidean norm, above 0. The noise grows with it. If
            most are longer, only their directions count, and any smaller clip gives the same accuracy.
    """

    epsilon: Annotated[float, Field(gt=0)]
    delta: Annotated[float, Field(gt=0, lt=1)] = 1e-5
    clip: Annotated[float, Field(gt=0)] = 1.0

    def __post_init__(self) -> None:
        require("privacy", "dp_accounting")  # before training, as the accounting comes after it


@settings
class FromStatistics:
    """Refit the classifier from statistics of features that the edges send, without samples.

    Each edge computes the features of the merged model on its training data, one forward pass, and sends the
    number of examples and the sum of the features of each class, and the second moment of all features.

    Attributes:
        statistics: ``lda``: linear discriminant analysis; ``ridge``: ridge regression of one-hot targets,
            whose logits are small; ``gaussian``: cross-entropy on features drawn from Gaussians with the
            class means and a common covariance.
        shrinkage: of the covariance towards a multiple of the identity matrix, from 0 to 1; not for
            ``ridge``.
        ridge: of ``ridge``; added to the diagonal of the features' second moment, as a fraction of the
            diagonal's mean.
        draws: of ``gaussian``; number of features drawn, as a multiple of the number of classes.
        train: of ``gaussian``; how the classifier is trained on them.
        privacy: clip features and add noise on each edge; None: exact statistics.
    """

    statistics: Literal["lda", "ridge", "gaussian"]
    shrinkage: Annotated[float, Field(ge=0, le=1)] = 0.1
    ridge: Annotated[float, Field(gt=0)] = 1e-3
    draws: Annotated[int, Field(ge=1)] = 500
    train: Recipe = Recipe(epochs=5)
    privacy: Privacy | None = None


StatisticKind = Literal["gram", "fisher", "batch_norm", "features", "adam", "momentum"]


@dataclass(frozen=True)
class Noise:
    """The noise of the Gaussian mechanism in one statistic.

    Attributes:
        clip: largest Euclidean norm of a feature vector, above 0.
        multiplier: standard deviation of the noise, relative to the largest change by one example; above 0.
        delta: at which the privacy loss is stated, above 0 and below 1.
    """

    clip: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    multiplier: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    delta: Annotated[float, Field(gt=0, lt=1)]


@dataclass(frozen=True)
class Statistic:
    """A statistic that a site computes on its own data.

    Attributes:
        kind: for a merge, ``gram``: of each linear layer and dense convolution, the mean over examples of
            X'X, with X the layer's input rows; ``fisher``: of each parameter, the diagonal of the Fisher
            information. For a merged model, ``batch_norm``: sums of the inputs of each batch norm;
            ``features``: moments of the classifier's inputs (``training/class_moments.py``). After training,
            ``adam`` and ``momentum``: the state of the optimizer (``training/optimizer_state.py``).
        examples: number of training examples, drawn at random, that it is computed on; None for all.
        noise: of ``features``; None for exact moments.
        layer: of ``gram``: the name of the only weight that it is computed for; None for all.
    """

    kind: StatisticKind
    examples: int | None = None
    noise: Noise | None = None
    layer: str | None = None
