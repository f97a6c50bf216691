"""Fits a cut into each device's budget: how wide a part it can train."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from sheaf.core.cut import Cut
from sheaf.core.errors import CutError, SettingError
from sheaf.core.recipe import Recipe
from sheaf.experiments.config import DeviceBudget, Experiment
from sheaf.experiments.setup import Prepared, prepare
from sheaf.models.flops import copy_to
from sheaf.submodels.schemes.by_class import ByClass
from sheaf.training.loop import Preparation, train

STEPS = 64
"""A share is planned in steps of one sixty-fourth of the width."""


@dataclass(frozen=True)
class Needs:
    """What training a cut takes: the quantities that a ``DeviceBudget`` limits."""

    macs: float
    parameters: float
    memory: float
    seconds: float


@dataclass(frozen=True)
class Planned:
    """One device's part of a plan.

    Attributes:
        width: the fraction of the width that it holds.
        needs: what that takes.
        saved: multiply-adds of the whole model over its own.
        limited_by: the budget that a wider part would exceed; None where the width was the limit.
    """

    site: str
    classes: int
    width: float
    needs: Needs
    saved: float
    limited_by: str | None


def plan(experiment: Experiment, data: Path | None = None) -> tuple[Experiment, list[Planned]]:
    """The experiment with every edge's share set to what its budget carries, and what that comes to.

    With ``by_class``, whose blocks lie side by side, the widths of all edges can fill the width at most
    once: if the budgets carry more, the widest are narrowed; if less, the rest of the width is nobody's.

    Raises:
        SettingError: there are no budgets, one is for no edge, or the method cuts nothing.
        CutError: not even the narrowest part fits a budget; says by how much.
    """
    prepared = prepare(experiment, data)
    budgets = experiment.fleet.budgets
    if not hasattr(experiment.method, "cut"):
        raise SettingError("method has no cut to plan; those that have: decoupled, heterofl, fedrolex")
    if unknown := [site for site in budgets if site not in prepared.parts]:
        edges = ", ".join(prepared.parts)
        raise SettingError(f"fleet.budgets.{unknown[0]}: there is no such edge; there are: {edges}")
    if not budgets:
        raise SettingError("fleet.budgets is empty; say what devices can spend: edge-1 = {macs = 1e6}")
    measure = _Measure(prepared)
    carried = {site: _widest(measure, site, budgets.get(site, DeviceBudget())) for site in prepared.parts}
    scheme, total = experiment.method.cut, sum(carried.values())
    if isinstance(scheme, ByClass):
        scheme = replace(scheme, by="width", width=min(1.0, total))
        carried = _side_by_side(carried)
    fleet = replace(experiment.fleet, widths=carried)
    planned = replace(experiment, method=replace(experiment.method, cut=scheme), fleet=fleet)
    return planned, list(_rows(replace(prepared, experiment=planned), measure))


def _rows(prepared: Prepared, measure: _Measure) -> Iterator[Planned]:
    experiment = prepared.experiment
    cuts = experiment.method.cut(prepared.network.structure, prepared.needs, 1)
    for needs in prepared.needs:
        budget = experiment.fleet.budgets.get(needs.name, DeviceBudget())
        takes = measure(needs.name, cuts[needs.name])
        wider = measure.alone(needs.name, min(1.0, needs.width + 2 / STEPS))
        yield Planned(
            needs.name,
            len(needs.classes),
            needs.width,
            takes,
            prepared.network.macs().forward / takes.macs,
            next(iter(_exceeded(wider, budget)), None),
        )


def _widest(measure: _Measure, site: str, budget: DeviceBudget) -> float:
    """The largest share whose part fits the budget, by bisection: a wider part never takes less."""
    if excess := _exceeded(measure.alone(site, 1 / STEPS), budget):
        name, (takes, limit) = next(iter(excess.items()))
        raise CutError(
            f"{site}: even the narrowest part takes {takes:.4g} {name}, {takes / limit:.2f} times its "
            f"budget of {limit:.4g}; a shorter stem or a smaller model may fit"
        )
    fits, too_wide = 1, STEPS + 1
    while too_wide - fits > 1:
        middle = (fits + too_wide) // 2
        if _exceeded(measure.alone(site, middle / STEPS), budget):
            too_wide = middle
        else:
            fits = middle
    return fits / STEPS


def _side_by_side(carried: dict[str, float]) -> dict[str, float]:
    """The widths, narrowed to one level where they are above it, so that they sum to 1 at most."""
    left, widths = 1.0, {}
    for place, site in enumerate(sorted(carried, key=lambda site: carried[site])):
        widths[site] = min(carried[site], left / (len(carried) - place))
        left -= widths[site]
    return {site: widths[site] for site in carried}


def _exceeded(needs: Needs, budget: DeviceBudget) -> dict[str, tuple[float, float]]:
    """Name -> (what is needed, what there is), for each limit that is exceeded."""
    limits = {name: getattr(budget, name) for name in vars(needs)}
    return {
        name: (value, limits[name])
        for name, value in vars(needs).items()
        if limits[name] is not None and value > limits[name]
    }


class _Measure:
    """Measures what training a part takes."""

    def __init__(self, prepared: Prepared) -> None:
        self._prepared = prepared
        self._recipe: Recipe = prepared.experiment.method.budget.recipe
        self._speed: float | None = None

    def alone(self, site: str, width: float) -> Needs:
        """Of the part that ``site`` would hold if its width were ``width``."""
        prepared = self._prepared
        scheme = prepared.experiment.method.cut
        needs = [replace(each, width=width) for each in prepared.needs if each.name == site]
        if isinstance(scheme, ByClass):  # alone, a site's block is the whole width: thin it instead
            scheme = replace(scheme, width=width)
        return self(site, scheme(prepared.network.structure, needs, 1)[site])

    def __call__(self, site: str, cut: Cut) -> Needs:
        network = self._prepared.network
        macs, model = network.macs(cut), network.of(cut)
        parameters = sum(value.numel() for value in model.parameters())
        moments = {"sgd": 1, "adam": 2, "adamw": 2}[self._recipe.optimizer]
        activations = activation_bytes(model, network.in_shape, self._recipe.batch_size)
        budget = self._prepared.experiment.fleet.budgets.get(site, DeviceBudget())
        images = len(self._prepared.parts[site][0])
        speed = budget.speed or (self._measured_speed() if budget.seconds else float("inf"))
        memory = 4 * parameters * (2 + moments) + activations
        return Needs(macs.forward, parameters, memory, images * macs.train / speed)

    def _measured_speed(self) -> float:
        """Multiply-adds a second of training the whole model on this machine."""
        if self._speed is None:
            prepared, network = self._prepared, self._prepared.network
            samples = prepared.dataset.train.select(torch.arange(min(len(prepared.dataset.train), 256)))
            prepare = Preparation(prepared.dataset.mean, prepared.dataset.std, prepared.device)
            model = copy_to(torch.device("cpu"), network.model)
            once = replace(self._recipe, epochs=1)
            seconds = [_timed(lambda: train(model, samples, once, prepare, 0)) for _ in range(3)]
            self._speed = len(samples) * network.macs().train / min(seconds)
        return self._speed


def activation_bytes(model: nn.Module, in_shape: tuple[int, ...], batch: int) -> int:
    """Bytes that autograd keeps for the backward pass of one batch, parameters aside."""
    meta = copy_to(torch.device("meta"), model).train()
    own = {parameter.untyped_storage()._cdata for parameter in meta.parameters()}
    kept: dict[int, torch.UntypedStorage] = {}  # by address; held, so that none is used twice

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in own:
            kept[storage._cdata] = storage
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        meta(torch.zeros(batch, *in_shape, device="meta"))
    return sum(storage.nbytes() for storage in kept.values())


def _timed(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began
