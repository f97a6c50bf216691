"""Plan an experiment: the width of the sub-model that fits into each device's budget."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from sheaf.core.cut import Cut
from sheaf.core.errors import CutError, SettingError
from sheaf.core.recipe import Recipe
from sheaf.experiments.activation_bytes import training_bytes
from sheaf.experiments.config import DeviceBudget, Experiment
from sheaf.experiments.setup import ExperimentSetup, prepare
from sheaf.experiments.speed import measure_speed
from sheaf.submodels.schemes.by_class import ByClass

STEPS = 64
"""Widths are multiples of 1/64."""


@dataclass(frozen=True)
class Needs:
    """The resources that training a sub-model needs; ``DeviceBudget`` limits the same quantities.

    Attributes:
        macs: multiply-adds of the forward pass of one example.
        parameters: the number of parameters.
        memory: bytes of parameters, gradients, optimizer state and the activations of one batch.
        seconds: of one epoch over the device's own examples.
    """

    macs: float
    parameters: float
    memory: float
    seconds: float


@dataclass(frozen=True)
class Planned:
    """The plan of one device.

    Attributes:
        site: its name.
        classes: the number of its classes.
        width: the planned width.
        needs: the resources that its sub-model needs.
        saved: multiply-adds of the whole model over those of the sub-model.
        limited_by: the budget that a wider sub-model would exceed; None if no budget limits it.
    """

    site: str
    classes: int
    width: float
    needs: Needs
    saved: float
    limited_by: str | None


def plan(experiment: Experiment, data: Path | None = None) -> tuple[Experiment, list[Planned]]:
    """Return the experiment with the widest widths that fit the budgets, and the plan of each edge.

    The blocks of ``by_class`` lie side by side, so the widths of all edges sum to at most 1: if the budgets
    allow more, the widest are narrowed; if they allow less, the remaining channels belong to no edge.

    Args:
        experiment: its settings.
        data: the directory in which named datasets are looked for first.

    Raises:
        SettingError: there are no budgets, one is for an unknown edge, or the method has no cut.
        CutError: not even the narrowest sub-model fits a budget; says by how much.
    """
    setup = prepare(experiment, data)
    budgets = experiment.fleet.budgets
    if not hasattr(experiment.method, "cut"):
        raise SettingError("method has no cut to plan; methods that have one: decoupled, heterofl, fedrolex")
    if unknown := [site for site in budgets if site not in setup.edge_samples]:
        edges = ", ".join(setup.edge_samples)
        raise SettingError(f"fleet.budgets.{unknown[0]}: no edge has this name; edges: {edges}")
    if not budgets:
        raise SettingError("fleet.budgets is empty; set the budget of a device: edge-1 = {macs = 1e6}")
    measure = _Measure(setup)
    widths = {site: _widest(measure, site, budgets.get(site, DeviceBudget())) for site in setup.edge_samples}
    scheme, total = experiment.method.cut, sum(widths.values())
    if isinstance(scheme, ByClass):
        scheme = replace(scheme, by="width", width=min(1.0, total))
        widths = _side_by_side(widths)
    fleet = replace(experiment.fleet, widths=widths)
    planned = replace(experiment, method=replace(experiment.method, cut=scheme), fleet=fleet)
    return planned, list(_rows(replace(setup, experiment=planned), measure))


def _rows(setup: ExperimentSetup, measure: _Measure) -> Iterator[Planned]:
    experiment = setup.experiment
    cuts = experiment.method.cut(setup.network.structure, setup.needs, 1)
    for needs in setup.needs:
        budget = experiment.fleet.budgets.get(needs.name, DeviceBudget())
        own = measure(needs.name, cuts[needs.name])
        wider = measure.alone(needs.name, min(1.0, needs.width + 2 / STEPS))
        yield Planned(
            needs.name,
            len(needs.classes),
            needs.width,
            own,
            setup.network.macs().forward / own.macs,
            next(iter(_exceeded(wider, budget)), None),
        )


def _widest(measure: _Measure, site: str, budget: DeviceBudget) -> float:
    """Return the largest width whose sub-model fits the budget, by bisection: needs grow with the width."""
    if excess := _exceeded(measure.alone(site, 1 / STEPS), budget):
        name, (needed, limit) = next(iter(excess.items()))
        raise CutError(
            f"{site}: even the narrowest sub-model needs {needed:.4g} {name}, {needed / limit:.2f} times its "
            f"budget of {limit:.4g}; use a shorter stem or a smaller model"
        )
    fits, too_wide = 1, STEPS + 1
    while too_wide - fits > 1:
        middle = (fits + too_wide) // 2
        if _exceeded(measure.alone(site, middle / STEPS), budget):
            too_wide = middle
        else:
            fits = middle
    return fits / STEPS


def _side_by_side(widths: dict[str, float]) -> dict[str, float]:
    """Return the widths, capped at a common level so that their sum is at most 1."""
    left, capped = 1.0, {}
    for count, site in enumerate(sorted(widths, key=lambda site: widths[site])):
        capped[site] = min(widths[site], left / (len(widths) - count))
        left -= capped[site]
    return {site: capped[site] for site in widths}


def _exceeded(needs: Needs, budget: DeviceBudget) -> dict[str, tuple[float, float]]:
    """Return name -> (need, limit) for each limit that is exceeded."""
    limits = {name: getattr(budget, name) for name in vars(needs)}
    return {
        name: (value, limits[name])
        for name, value in vars(needs).items()
        if limits[name] is not None and value > limits[name]
    }


class _Measure:
    """Measures the resources that training a sub-model needs."""

    def __init__(self, setup: ExperimentSetup) -> None:
        self._setup = setup
        self._recipe: Recipe = setup.experiment.method.budget.recipe
        self._speed: float | None = None

    def alone(self, site: str, width: float) -> Needs:
        """Return the needs of the sub-model that ``site`` would hold if its width were ``width``."""
        setup = self._setup
        scheme = setup.experiment.method.cut
        needs = [replace(each, width=width) for each in setup.needs if each.name == site]
        if isinstance(scheme, ByClass):  # a single site's block is the whole width, so narrow the block
            scheme = replace(scheme, width=width)
        return self(site, scheme(setup.network.structure, needs, 1)[site])

    def __call__(self, site: str, cut: Cut) -> Needs:
        network = self._setup.network
        macs, model = network.macs(cut), network.of(cut)
        parameters = sum(value.numel() for value in model.parameters())
        budget = self._setup.experiment.fleet.budgets.get(site, DeviceBudget())
        images = len(self._setup.edge_samples[site][0])
        speed = budget.speed or self._measured_speed()
        memory = training_bytes(network, cut, self._recipe)
        return Needs(macs.forward, parameters, memory, images * macs.train / speed)

    def _measured_speed(self) -> float:
        """Return the multiply-adds per second of training the whole model on this machine."""
        if self._speed is None:
            self._speed = measure_speed(self._setup, self._recipe)
        return self._speed
