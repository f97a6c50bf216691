"""Refit a network's classifier on the features of its other layers, by training or by ridge regression."""

from __future__ import annotations

import copy
import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sheaf.core.dataset import Samples
from sheaf.core.optional_imports import needs
from sheaf.core.recipe import Recipe, Ridge
from sheaf.training.evaluation import forward
from sheaf.training.one_site import train_model
from sheaf.training.preparation import Preparation


def refit(
    model: nn.Module,
    last: nn.Linear,
    samples: Samples,
    recipe: Recipe,
    prepare: Preparation,
    seed: int,
) -> list[float]:
    """Train ``last``, the classifier of ``model``, in place and return the mean loss of each epoch.

    The features are computed once, in evaluation mode, so an epoch is cheap.
    """
    features = Samples.of(_features(model, last, samples, prepare), samples.labels)
    return train_on_features(last, features, recipe, prepare, seed)


def train_on_features(
    last: nn.Linear, features: Samples, recipe: Recipe, prepare: Preparation, seed: int
) -> list[float]:
    """Train ``last`` in place on features (N, D) and return the mean loss of each epoch."""
    images = Samples(features.inputs[:, :, None, None], features.targets, features.positions)
    head = nn.Sequential(nn.Flatten(), copy.deepcopy(last))
    unchanged = Preparation((0.0,) * last.in_features, (1.0,) * last.in_features, prepare.device)
    losses = train_model(head, images, recipe, unchanged, seed)
    last.load_state_dict(head[1].state_dict())
    return losses


def refit_by_ridge(
    model: nn.Module, last: nn.Linear, samples: Samples, ridge: Ridge, prepare: Preparation
) -> None:
    """Set ``last``, the classifier of ``model``, to the ridge regression of one-hot targets, in place.

    W = (F^T F + r I)^-1 F^T Y over the features F (N, D), in float64; r is ``ridge.ridge`` times the mean of
    the diagonal of F^T F. The bias is the weight of a constant feature 1, which is not penalized. Classes
    without examples keep their rows.
    """
    features = _features(model, last, samples, prepare).double()
    if last.bias is not None:
        features = torch.cat([features, torch.ones(len(features), 1, dtype=torch.float64)], dim=1)
    gram = features.T @ features
    penalty = gram.diagonal()[: last.in_features].mean() * ridge.ridge
    gram.diagonal()[: last.in_features].add_(penalty)
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
    """Return the multiply-adds of ``refit_by_ridge`` beyond the features: two products and the solution."""
    width = last.in_features + (last.bias is not None)
    return examples * width * (width + last.out_features) + width**3 // 3 + width**2 * last.out_features


def _scale(logits: Tensor, labels: Tensor) -> float:
    """Return the factor on ``logits`` of lowest cross-entropy."""
    with needs("workstation"):
        from scipy.optimize import minimize_scalar  # slow to import, and few runs refit

    solution = minimize_scalar(
        lambda log_scale: F.cross_entropy(math.exp(log_scale) * logits, labels).item(),
        bounds=(math.log(1e-2), math.log(1e3)),
        method="bounded",
    )
    return math.exp(solution.x)


def _features(model: nn.Module, last: nn.Linear, samples: Samples, prepare: Preparation) -> Tensor:
    """Return (N, D): the inputs of ``last`` for each of the samples."""
    features: list[Tensor] = []
    hook = last.register_forward_pre_hook(lambda module, inputs: features.append(inputs[0].cpu()))
    try:
        forward(model, samples, prepare)
    finally:
        hook.remove()
    return torch.cat(features)
