"""Fits the classifier of a network anew on the features that the rest gives, by training or by regression."""

from __future__ import annotations

import copy
import math

import torch
from scipy.optimize import minimize_scalar
from torch import Tensor, nn
from torch.nn import functional as F

from sheaf.core.dataset import Samples
from sheaf.core.recipe import Recipe, Ridge
from sheaf.training import loop


def refit(
    model: nn.Module,
    last: nn.Linear,
    samples: Samples,
    recipe: Recipe,
    prepare: loop.Preparation,
    seed: int,
) -> list[float]:
    """Trains ``last``, the classifier of ``model``, in place by ``recipe``. Returns each epoch's loss.

    The features are computed once, in evaluation mode, so an epoch costs next to nothing.
    """
    features = Samples.of(_features(model, last, samples, prepare)[:, :, None, None], samples.labels)
    head = nn.Sequential(nn.Flatten(), copy.deepcopy(last))
    as_they_are = loop.Preparation((0.0,) * last.in_features, (1.0,) * last.in_features, prepare.device)
    losses = loop.train(head, features, recipe, as_they_are, seed)
    last.load_state_dict(head[1].state_dict())
    return losses


def refit_by_ridge(
    model: nn.Module, last: nn.Linear, samples: Samples, ridge: Ridge, prepare: loop.Preparation
) -> None:
    """Sets ``last``, the classifier of ``model``, to the ridge regression of one-hot targets, in place.

    W = (F^T F + r I)^-1 F^T Y over the features F (N, D), in float64; r is ``ridge.ridge`` times the mean of
    F^T F's diagonal. A bias is the weight of one more feature, constantly 1, on which r does not lie. Classes
    of which there is no example keep their rows.
    """
    features = _features(model, last, samples, prepare).double()
    if last.bias is not None:
        features = torch.cat([features, torch.ones(len(features), 1, dtype=torch.float64)], dim=1)
    gram = features.T @ features
    weighs = gram.diagonal()[: last.in_features].mean() * ridge.ridge
    gram.diagonal()[: last.in_features].add_(weighs)
    targets = F.one_hot(samples.labels, last.out_features).double()
    solution = torch.linalg.lstsq(gram, features.T @ targets, driver="gelsd").solution  # (D or D + 1, K)
    if ridge.rescale:
        solution = solution * _scale(features @ solution, samples.labels)
    with torch.no_grad():
        present = torch.bincount(samples.labels).nonzero().flatten()
        last.weight[present] = solution[: last.in_features].T[present].to(last.weight)
        if last.bias is not None:
            last.bias[present] = solution[-1][present].to(last.bias)


def ridge_macs(last: nn.Linear, examples: int) -> int:
    """Multiply-adds of ``refit_by_ridge`` beyond the features: the two products, and solving."""
    width = last.in_features + (last.bias is not None)
    return examples * width * (width + last.out_features) + width**3 // 3 + width**2 * last.out_features


def _scale(logits: Tensor, labels: Tensor) -> float:
    """The number that ``logits`` times it have the least cross-entropy with."""
    found = minimize_scalar(
        lambda log_scale: F.cross_entropy(math.exp(log_scale) * logits, labels).item(),
        bounds=(math.log(1e-2), math.log(1e3)),
        method="bounded",
    )
    return math.exp(found.x)


def _features(model: nn.Module, last: nn.Linear, samples: Samples, prepare: loop.Preparation) -> Tensor:
    """(N, D) what ``last`` takes for each of the samples."""
    taken: list[Tensor] = []
    hook = last.register_forward_pre_hook(lambda module, inputs: taken.append(inputs[0].cpu()))
    try:
        loop.forward(model, samples, prepare)
    finally:
        hook.remove()
    return torch.cat(taken)
