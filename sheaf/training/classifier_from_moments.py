"""Fit a network's classifier to the moments of its features, without samples."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sheaf.core.dataset import Samples
from sheaf.core.recipe import FromStatistics
from sheaf.core.seeds import generator, seed_for
from sheaf.models import flops
from sheaf.training.class_moments import ClassMoments
from sheaf.training.classifier_refit import train_on_features
from sheaf.training.preparation import Preparation


def fit(
    last: nn.Linear, moments: ClassMoments, how: FromStatistics, prepare: Preparation, seed: int
) -> list[float]:
    """Set ``last`` by ``how``, in place; return the mean loss of each epoch (``gaussian`` only).

    Classes without examples keep their rows.
    """
    excess = 1.0
    if how.privacy is not None:
        moments, excess = moments.repaired(), moments.excess(how.privacy.clip)
    losses: list[float] = []
    if how.statistics == "gaussian":
        losses = _train_on_draws(last, moments, how, prepare, seed)
    with torch.no_grad():
        if how.statistics != "gaussian":
            of = lda(moments, how.shrinkage) if how.statistics == "lda" else ridge(moments, how.ridge)
            last.weight[moments.present] = of[0].to(last.weight)
            if last.bias is not None:
                last.bias[moments.present] = of[1].to(last.bias)
        last.weight[moments.present] /= excess  # the weights are of clipped features
    return losses


def lda(moments: ClassMoments, shrinkage: float) -> tuple[Tensor, Tensor]:
    """Return weight (K', d) and bias (K',) of linear discriminant analysis.

    Row c of the weight is S^-1 m_c, and its bias log(n_c / N) - m_c' S^-1 m_c / 2, with S the covariance
    within the classes, shrunk to (1 - shrinkage) S + shrinkage (tr S / d) I: the posterior of Gaussian
    classes with a common covariance (Hastie, Tibshirani, Friedman, The Elements of Statistical Learning,
    4.3), as scikit-learn's ``LinearDiscriminantAnalysis(solver="lsqr", shrinkage=…)`` computes it.
    """
    means, covariance = moments.means, _shrunk(moments.within, shrinkage)
    weight = torch.linalg.lstsq(covariance, means.T, driver="gelsd").solution.T
    counts = moments.counts[moments.present]
    return weight, (counts / counts.sum()).log() - (means * weight).sum(1) / 2


def ridge(moments: ClassMoments, penalty: float) -> tuple[Tensor, Tensor]:
    """Return weight (K', d) and bias (K',) of the ridge regression of one-hot targets.

    W = (F'F + r I)^-1 F'Y over the features F with a constant 1, whose weight is the bias and is not
    penalized; r is ``penalty`` times the mean of the features' part of the diagonal of F'F, as in
    ``refit_by_ridge``.
    """
    width, present = len(moments.moment), moments.present
    counts = moments.counts[present]
    total = moments.sums[present].sum(0)
    gram = torch.zeros(width + 1, width + 1, dtype=torch.float64)
    gram[:width, :width] = moments.moment
    gram[:width, width] = gram[width, :width] = total
    gram[width, width] = counts.sum()
    gram.diagonal()[:width].add_(gram.diagonal()[:width].mean() * penalty)
    products = torch.cat([moments.sums[present].T, counts[None]])  # F'Y
    solution = torch.linalg.lstsq(gram, products, driver="gelsd").solution
    return solution[:width].T, solution[width]


def macs(last: nn.Linear, how: FromStatistics) -> int:
    """Return the multiply-adds of ``fit``: the solution, or the draws and the training on them."""
    width, classes = last.in_features, last.out_features
    if how.statistics != "gaussian":
        return width**3 // 3 + width**2 * classes
    draws = how.draws * classes
    training = how.train.epochs * draws * flops.train_macs_per_example(last, (width,))
    return width**3 // 3 + draws * width**2 + training


def _train_on_draws(
    last: nn.Linear, moments: ClassMoments, how: FromStatistics, prepare: Preparation, seed: int
) -> list[float]:
    """Train ``last`` by cross-entropy on draws from Gaussians of the class means and a common covariance.

    No Fear of Heterogeneity: Luo, Chen, Hu, Zhang, Liang, Feng, NeurIPS 2021 (arXiv 2106.05001), CCVR, with
    one covariance for all classes. The draws of a class are in proportion to its examples, at least one.
    """
    present, counts = moments.present, moments.counts[moments.present]
    covariance = _shrunk(moments.within, how.shrinkage)
    values, vectors = torch.linalg.eigh((covariance + covariance.T) / 2)
    root = vectors * values.clamp(min=0).sqrt()
    of_class = (how.draws * last.out_features * counts / counts.sum()).round().clamp(min=1).long()
    labels = torch.repeat_interleave(present, of_class)
    noise = torch.randn(
        len(labels), len(root), dtype=torch.float64, generator=generator(seed_for(seed, "draws"))
    )
    features = torch.repeat_interleave(moments.means, of_class, dim=0) + noise @ root.T
    return train_on_features(last, Samples.of(features.float(), labels), how.train, prepare, seed)


def _shrunk(covariance: Tensor, shrinkage: float) -> Tensor:
    shrunk = (1 - shrinkage) * covariance
    shrunk.diagonal().add_(shrinkage * covariance.diagonal().mean())
    return shrunk
