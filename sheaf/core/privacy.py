"""Accounting of differential privacy: the noise for a budget, and the privacy loss of releases with noise.

The composition of Gaussian mechanisms with multipliers z_1, … is one with multiplier (sum_i z_i^-2)^(-1/2)
(Dong, Roth, Su, Gaussian Differential Privacy, 2022, corollary 3.3). Its epsilon at a delta is exact by the
analytic Gaussian mechanism (Balle, Wang, ICML 2018, arXiv 1805.06530), which ``dp-accounting`` computes.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

from sheaf.core.optional_imports import extra
from sheaf.core.recipe import Noise, Privacy


def noise_for(privacy: Privacy, releases: int) -> Noise:
    """Return the noise of each of ``releases`` statistics that together keep to the budget."""
    sigma = extra("privacy", "dp_accounting").get_sigma_gaussian(privacy.epsilon, privacy.delta)
    return Noise(clip=privacy.clip, multiplier=float(sigma) * math.sqrt(releases), delta=privacy.delta)


def spent(releases: Iterable[Noise]) -> float:
    """Return the epsilon of these releases together, at the largest of their deltas."""
    known = tuple(releases)
    sigma = sum(noise.multiplier**-2 for noise in known) ** -0.5
    delta = max(noise.delta for noise in known)
    return float(extra("privacy", "dp_accounting").get_epsilon_gaussian(sigma, delta))
