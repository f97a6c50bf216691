"""Moments of a model's features by class: what the cloud needs to fit a classifier without samples.

A feature vector x (d,) is the input of the classifier. An edge sends the number of its examples of each
class, the sum of x of each class, and the second moment, the sum of x x' over all its examples. The moments
of all edges added are those of the pooled data: products and sums are computed in float64, so they are equal
wherever float64 is exact, and differ by its rounding otherwise.

The counts and the sums disclose the class frequencies and the mean feature vector of each class of an edge,
from which a typical input can be reconstructed; of a class with one example, its exact features. With noise
(``core.privacy``) each example is protected by the Gaussian mechanism: features are clipped to a norm of at
most C, so one example changes counts, sums / C and second moment / C^2 by at most 1 each in Euclidean norm.
A histogram of the norms before clipping, whose bins one example changes by 1, gives the scale by which the
classifier's inputs exceed the clipped features. All four together change by at most sqrt(4). Off-diagonal
entries of the symmetric second moment count twice in the norm and are sent once, so their noise has
1/sqrt(2) of the standard deviation.

The Gaussian mechanism: Dwork, Roth, The Algorithmic Foundations of Differential Privacy, 2014, appendix A.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from sheaf.core.dataset import Samples
from sheaf.core.recipe import Noise
from sheaf.training.evaluation import forward
from sheaf.training.preparation import Preparation

FLOOR = 1e-6
"""Smallest eigenvalue of a covariance with noise, as a fraction of the mean one."""

RAREST = 0.01
"""A class with noise has examples if its count is at least this fraction of the mean count."""

BINS, BINS_PER_OCTAVE = 80, 2
"""Bins of the histogram of norms, and bins in which a norm doubles. Norm 1 is in the middle."""


class ClassMoments(NamedTuple):
    """The moments of N examples of K classes, all float64.

    Attributes:
        counts: (K,) numbers of examples.
        sums: (K, d) sums of the feature vectors of each class.
        moment: (d, d) sum of x x' over all examples.
        norms: (BINS,) histogram of the norms before clipping; None: nothing was clipped.
    """

    counts: Tensor
    sums: Tensor
    moment: Tensor
    norms: Tensor | None = None

    @classmethod
    def of(cls, sent: Mapping[str, Tensor]) -> ClassMoments:
        """Return the moments from the tensors of ``compute``."""
        width = sent["sums"].shape[1]
        rows, columns = torch.triu_indices(width, width)
        moment = torch.zeros(width, width, dtype=torch.float64)
        moment[rows, columns] = sent["moment"]
        moment[columns, rows] = sent["moment"]
        return cls(sent["counts"], sent["sums"], moment, sent.get("norms"))

    @property
    def present(self) -> Tensor:
        """The indices of the classes that have examples."""
        return (self.counts > 0).nonzero().flatten()

    @property
    def means(self) -> Tensor:
        """(K', d) mean feature vectors of the classes that have examples."""
        return self.sums[self.present] / self.counts[self.present, None]

    @property
    def within(self) -> Tensor:
        """(d, d) covariance within the classes, (moment - sum_c n_c m_c m_c') / N."""
        counts = self.counts[self.present]
        between = (self.means * counts[:, None]).T @ self.means
        return (self.moment - between) / counts.sum()

    def repaired(self) -> ClassMoments:
        """Return moments that data can have: noise makes counts negative and covariances indefinite.

        The most negative eigenvalue of the covariance within the classes shows the size of the noise.
        Eigenvalues below this size are raised to it, as a classifier divides by them.
        """
        least = max(1.0, RAREST * self.counts.mean().item())
        valid = self._replace(counts=torch.where(self.counts >= least, self.counts, 0.0))
        within = valid.within
        values, vectors = torch.linalg.eigh((within + within.T) / 2)
        least_known = max(FLOOR * values.clamp(min=0).mean().item(), torch.finfo(torch.float32).tiny)
        floor = max(least_known, -values.min().item())
        definite = (vectors * values.clamp(min=floor)) @ vectors.T
        return valid._replace(moment=valid.moment + (definite - within) * valid.counts.sum())

    def excess(self, clip: float) -> float:
        """Return the factor by which typical features exceed clipped ones, at least 1.

        The typical norm is the geometric mean over the bins with at least half the count of the fullest.
        """
        if self.norms is None:
            return 1.0
        counts = torch.where(self.norms >= self.norms.max() / 2, self.norms, 0.0)
        octaves = (torch.arange(BINS) - BINS // 2) / BINS_PER_OCTAVE
        typical = 2.0 ** float((counts * octaves).sum() / counts.sum())
        return float(max(1.0, typical / clip))


def compute(
    model: nn.Module, last: nn.Linear, samples: Samples, prepare: Preparation, noise: Noise | None, key: bytes
) -> dict[str, Tensor]:
    """Return ``counts`` (K,), ``sums`` (K, d) and ``moment``, the rows of the second moment's upper triangle.

    With noise, also ``norms`` (BINS,), the histogram of the norms.

    Args:
        model: with its classifier ``last``.
        noise: of the Gaussian mechanism; None: clip nothing and add none.
        key: the noise is a function of this key and of the exact moments. The same request gives the same
            answer, and whoever has the key can subtract the noise.
    """
    classes, width = last.out_features, last.in_features
    counts = torch.bincount(samples.labels, minlength=classes).double()
    sums, moment = torch.zeros(classes, width).double(), torch.zeros(width, width).double()
    norms, done = torch.zeros(BINS, dtype=torch.float64), 0

    def add(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        nonlocal done
        x = inputs[0].detach().cpu().double()
        if noise is not None:
            norm = x.norm(dim=1).clamp(min=1e-300)
            bins = (BINS_PER_OCTAVE * norm.log2()).round().long() + BINS // 2
            norms.add_(bins.clamp(0, BINS - 1).bincount(minlength=BINS))
            x = x * (noise.clip / norm).clamp(max=1.0)[:, None]
        sums.index_add_(0, samples.labels[done : done + len(x)], x)
        moment.addmm_(x.T, x)
        done += len(x)

    hook = last.register_forward_pre_hook(add)
    try:
        if len(samples):
            forward(model, samples, prepare)
    finally:
        hook.remove()
    rows, columns = torch.triu_indices(width, width)
    sent = {"counts": counts, "sums": sums, "moment": moment[rows, columns]}
    return sent if noise is None else _with_noise(sent | {"norms": norms}, noise, rows == columns, key)


def blank(last: nn.Linear, noise: Noise | None) -> dict[str, Tensor]:
    """Return the names, shapes and types of what ``compute`` returns, on the meta device."""
    classes, width = last.out_features, last.in_features
    shapes: dict[str, tuple[int, ...]] = {"counts": (classes,), "sums": (classes, width)}
    shapes["moment"] = (width * (width + 1) // 2,)
    if noise is not None:
        shapes["norms"] = (BINS,)
    return {name: torch.empty(shape, dtype=torch.float64, device="meta") for name, shape in shapes.items()}


def macs_per_example(last: nn.Linear) -> int:
    """Return the multiply-adds of the second moment of one example, beyond the forward pass."""
    return last.in_features**2


def _with_noise(sent: Mapping[str, Tensor], noise: Noise, diagonal: Tensor, key: bytes) -> dict[str, Tensor]:
    digest = hashlib.blake2b(key=key[:64], digest_size=32)
    digest.update(repr(noise).encode())
    for value in sent.values():
        digest.update(value.numpy().tobytes())
    draws = np.random.Generator(np.random.PCG64(int.from_bytes(digest.digest(), "big")))
    std = noise.multiplier * math.sqrt(len(sent))
    one = torch.ones((), dtype=torch.float64)
    scales = {
        "counts": one,
        "norms": one,
        "sums": one * noise.clip,
        "moment": torch.where(diagonal, one, math.sqrt(0.5)) * noise.clip**2,
    }
    return {
        name: value + std * scales[name] * torch.from_numpy(draws.standard_normal(value.shape))
        for name, value in sent.items()
    }
