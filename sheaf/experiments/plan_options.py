"""Settings of one device that ``sheaf plan`` may lower, and the accuracy that lowering them costs.

The costs order the options of a device; they do not predict the accuracy of a run. They are rounded from
``benchmarks/plan_prices.py``: ECAvg, FedAvg, HeteroFL and decoupled training on MNIST, in which four of ten
edges have the lower setting. The cost of codecs is that of ``benchmarks/codecs.py``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import product
from math import log2

from sheaf.core import registry
from sheaf.core.recipe import Recipe, Share
from sheaf.core.settings import make_plugin
from sheaf.experiments.config import Experiment
from sheaf.experiments.setup import ExperimentSetup
from sheaf.submodels.schemes.by_class import ByClass

CODECS = {"bfloat16": 0.02, "int8": 0.1}
"""Codec in both directions -> its cost in points of accuracy. A plan never chooses ``topk``,
because a device that missed a round then receives the whole model as float32."""

SHARES = (1.0, 0.5, 0.25, 0.125, 0.0625)
"""Fractions of the samples that the device would send otherwise."""

WORK = (1.0, 0.75, 0.5, 0.375, 0.25, 0.125, 0.0625)
"""Fractions of each training."""

WIDTHS = (1.0, 0.75, 0.5, 0.375, 0.25, 0.125)
"""Fractions of the device's own width."""


@dataclass(frozen=True)
class Prices:
    """Points of accuracy for each halving of a setting.

    Attributes:
        width: of the sub-model.
        work: of each training.
        share: of the samples that the device sends.
    """

    width: float
    work: float
    share: float


LONG = Prices(width=0.3, work=0.2, share=2.0)
"""Of trainings of several epochs, as those of ECAvg and decoupled training."""

SHORT = Prices(width=2.0, work=3.0, share=2.0)
"""Of trainings of one epoch, as those of FedAvg and HeteroFL: the edge falls behind the others."""


@dataclass(frozen=True)
class Option:
    """The settings of one device, relative to the experiment's own.

    Attributes:
        width: of its sub-model, above 0 and at most 1.
        codec: of its parameters in both directions; "" keeps those of the experiment.
        share: of the samples that it sends, above 0 and at most 1.
        work: of the mini-batches of each training, above 0 and at most 1.
    """

    width: float = 1.0
    codec: str = ""
    share: float = 1.0
    work: float = 1.0

    def cost(self, prices: Prices) -> float:
        """Return the points of accuracy that the lowered settings cost, for the order of options."""
        cost = CODECS.get(self.codec, 0.0) + prices.width * log2(1 / self.width)
        return cost + prices.work * log2(1 / self.work) + prices.share * log2(1 / self.share)


OWN = Option()
"""The experiment's own settings."""


@dataclass(frozen=True)
class Levels:
    """The values of each setting that a plan may choose, the experiment's own first.

    Attributes:
        widths: relative to the device's own.
        codecs: names; "" keeps those of the experiment.
        shares: relative to the samples that the device sends.
        work: relative to each training.
    """

    widths: tuple[float, ...]
    codecs: tuple[str, ...]
    shares: tuple[float, ...]
    work: tuple[float, ...]

    def options(self, prices: Prices) -> list[Option]:
        """Return all combinations, in the order of their cost."""
        combined = [Option(*each) for each in product(self.widths, self.codecs, self.shares, self.work)]
        return sorted(combined, key=lambda option: option.cost(prices))


def prices_of(experiment: Experiment) -> Prices:
    """Return the prices of an experiment, by the epochs of its longest training."""
    recipes = [value for value in vars(experiment.method).values() if isinstance(value, Recipe)]
    return LONG if max((recipe.epochs for recipe in recipes), default=1) > 1 else SHORT


def levels_of(experiment: Experiment, *, cuts: bool, trains: bool) -> Levels:
    """Return the levels that have an effect in an experiment.

    Args:
        experiment: its settings. Codecs are lowered only from float32.
        cuts: the edges train sub-models.
        trains: the edges train.
    """
    fleet = experiment.fleet
    exact = {registry.name_of(codec) for codec in (fleet.upload, fleet.download, *fleet.codecs.values())}
    shares = isinstance(getattr(experiment.method, "share", None), Share)
    return Levels(
        WIDTHS if cuts else (1.0,),
        ("", *CODECS) if exact == {"float32"} else ("",),
        SHARES if shares else (1.0,),
        WORK if trains else (1.0,),
    )


def with_options(setup: ExperimentSetup, options: Mapping[str, Option]) -> Experiment:
    """Return the experiment with these options of its edges."""
    experiment, method = setup.experiment, setup.experiment.method
    fleet = experiment.fleet
    widths = dict(fleet.widths)
    if any(option.width < 1 for option in options.values()):
        base = fleet.widths
        scheme = getattr(method, "cut", None)
        if isinstance(scheme, ByClass):
            base = _blocks(setup, scheme)
        widths = {site: base.get(site, 1.0) * options.get(site, OWN).width for site in setup.edge_samples}
        if isinstance(scheme, ByClass):
            total = min(1.0, sum(widths.values()))
            method = replace(method, cut=replace(scheme, by="width", width=total))
        else:
            widths = {site: width for site, width in widths.items() if width < 1}
    codecs, work, shares = dict(fleet.codecs), dict(fleet.work), dict(fleet.shares)
    share = getattr(method, "share", None)
    for site, option in options.items():
        if option.codec:
            codecs[site] = make_plugin("codecs", option.codec, f"fleet.codecs.{site}")
        if option.work < 1:
            work[site] = work.get(site, 1.0) * option.work
        if option.share < 1 and isinstance(share, Share):
            shares[site] = min(share.fraction, shares.get(site, 1.0)) * option.share
    fleet = replace(fleet, widths=widths, codecs=codecs, work=work, shares=shares)
    return replace(experiment, method=method, fleet=fleet)


def _blocks(setup: ExperimentSetup, scheme: ByClass) -> dict[str, float]:
    """Return the fraction of the channels in each edge's blocks, which lie side by side."""
    if scheme.by == "width":
        total = sum(site.width for site in setup.needs)
        return {site.name: scheme.width * site.width / total for site in setup.needs}
    holders = [label for site in setup.needs for label in site.classes]
    present = len(set(holders))
    return {
        site.name: scheme.width * sum(1 / holders.count(label) for label in site.classes) / present
        for site in setup.needs
    }
