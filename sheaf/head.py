"""Refits the classifier of a network on the features that the rest of it gives."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from sheaf import training
from sheaf.types import Recipe, Samples


def refit(
    model: nn.Module,
    last: nn.Linear,
    samples: Samples,
    recipe: Recipe,
    prepare: training.Preparation,
    seed: int,
) -> list[float]:
    """Trains ``last``, the classifier of ``model``, in place by ``recipe``. Returns each epoch's loss.

    The features are computed once, in evaluation mode, so an epoch costs next to nothing.
    """
    features = Samples.of(_features(model, last, samples, prepare)[:, :, None, None], samples.labels)
    head = nn.Sequential(nn.Flatten(), copy.deepcopy(last))
    as_they_are = training.Preparation((0.0,) * last.in_features, (1.0,) * last.in_features, prepare.device)
    losses = training.train(head, features, recipe, as_they_are, seed)
    last.load_state_dict(head[1].state_dict())
    return losses


def _features(model: nn.Module, last: nn.Linear, samples: Samples, prepare: training.Preparation) -> Tensor:
    """(N, D) what ``last`` takes for each of the samples."""
    taken: list[Tensor] = []
    hook = last.register_forward_pre_hook(lambda module, inputs: taken.append(inputs[0].cpu()))
    try:
        training.forward(model, samples, prepare)
    finally:
        hook.remove()
    return torch.cat(taken)
