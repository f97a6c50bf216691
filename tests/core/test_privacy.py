"""Accounting: the noise of a budget spends the budget, by another accountant of the library too."""

from __future__ import annotations

import pytest

from sheaf.core.privacy import noise_for, spent
from sheaf.core.recipe import Noise, Privacy

dp_accounting = pytest.importorskip("dp_accounting")


@pytest.mark.parametrize(("epsilon", "releases"), [(0.5, 1), (2.0, 3), (8.0, 10)])
def test_the_noise_of_a_budget_spends_it(epsilon: float, releases: int) -> None:
    noise = noise_for(Privacy(epsilon=epsilon, delta=1e-5, clip=3.0), releases)
    assert (noise.clip, noise.delta) == (3.0, 1e-5)
    assert spent([noise] * releases) == pytest.approx(epsilon, rel=1e-6)
    accountant = dp_accounting.pld.PLDAccountant()
    accountant.compose(dp_accounting.GaussianDpEvent(noise.multiplier), releases)
    assert accountant.get_epsilon(1e-5) == pytest.approx(epsilon, rel=1e-3)


def test_unequal_releases_are_composed() -> None:
    releases = [Noise(clip=1.0, multiplier=multiplier, delta=1e-6) for multiplier in (2.0, 5.0)]
    accountant = dp_accounting.pld.PLDAccountant()
    for noise in releases:
        accountant.compose(dp_accounting.GaussianDpEvent(noise.multiplier))
    assert spent(releases) == pytest.approx(accountant.get_epsilon(1e-6), rel=1e-3)
