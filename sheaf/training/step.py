"""The loss of one mini-batch, defined once for every way of training."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sheaf.core.dataset import Samples
from sheaf.core.recipe import Recipe
from sheaf.training.preparation import Preparation

PADDING = -100
"""The label of an example that only fills up a mini-batch; ``F.cross_entropy`` ignores it."""


class LossContext(NamedTuple):
    """What a loss may use beside logits and labels. A field is filled in if the loss lists it in ``needs``.

    Attributes:
        present: (K,) bool, the outputs whose class the site has training examples of.
        params: trained parameter -> its current value.
        start: trained parameter -> its value when the task began.
        draw: a number drawn for each step, uniform from 0 to below 1.
        constants: tensors that the task brought for the loss (``Edges.train``). Not listed in ``needs``.
    """

    present: Tensor | None = None
    params: Mapping[str, Tensor] = {}
    start: Mapping[str, Tensor] = {}
    draw: Tensor | None = None
    constants: Mapping[str, Tensor] = {}

    def constants_of(self, kind: str) -> dict[str, Tensor]:
        """Return parameter -> its constant, of the constants that are named "kind parameter"."""
        return {
            name.partition(" ")[2]: value
            for name, value in self.constants.items()
            if name.startswith(f"{kind} ")
        }


def batch_loss(
    recipe: Recipe, network: Callable[[Tensor], Tensor], x: Tensor, labels: Tensor, context: LossContext
) -> Tensor:
    """Return the recipe's loss of (B, C, H, W) inputs with (B,) int64 labels, a number with gradients."""
    with autocast(recipe, x.device):
        loss: Tensor = recipe.loss(network(x), labels, context)
    return loss


def needs(recipe: Recipe, field: str) -> bool:
    """Return whether the recipe's loss, or a loss inside it, uses that field of its context."""
    return any(field in getattr(loss, "needs", ()) for loss in nested(recipe.loss))


def nested(loss: Any) -> Iterator[Any]:
    """Yield a loss, the loss to which it adds a term (its field ``loss``), and so on."""
    while loss is not None:
        yield loss
        loss = getattr(loss, "loss", None)


def distils(recipe: Recipe) -> bool:
    """Return whether the recipe's loss, or a loss inside it, needs a teacher."""
    return any(getattr(loss, "distils", False) for loss in nested(recipe.loss))


def changes_parameters(recipe: Recipe) -> bool:
    """Return whether the recipe's loss is of other parameters than the trained ones; see ``effective``."""
    return any(hasattr(loss, "effective") for loss in nested(recipe.loss))


def effective(recipe: Recipe, params: Mapping[str, Tensor], context: LossContext) -> Mapping[str, Tensor]:
    """Return the parameters of the forward pass, by the methods ``effective`` of the recipe's losses."""
    for loss in nested(recipe.loss):
        if hasattr(loss, "effective"):
            params = loss.effective(params, context)
    return params


def present_outputs(model: nn.Module, samples: Samples, prepare: Preparation) -> Tensor:
    """Return (K,) bool on the device: the outputs of ``model`` whose class has an example in ``samples``."""
    training = model.training
    with torch.no_grad():
        outputs = model.eval()(prepare(samples.inputs[:1]).expand(2, -1, -1, -1)).shape[1]
    model.train(training)
    return F.pad(samples.labels.bincount() > 0, (0, outputs))[:outputs].to(prepare.device)


def autocast(recipe: Recipe, device: torch.device) -> contextlib.AbstractContextManager[object]:
    """Return the context in which forward passes run in the recipe's precision."""
    on_gpu = recipe.precision == "auto" and device.type == "cuda"
    if recipe.precision == "bfloat16" or on_gpu:
        return torch.autocast(device.type, torch.bfloat16)
    return contextlib.nullcontext()
