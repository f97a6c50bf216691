"""Seconds, bytes and joules of each device under each option of a plan, from a few dry runs.

A dry run gives every device the same width or codec. Both together are estimated from one of each. Work and
shares follow from its tasks: the seconds of a training are those of its mini-batches, and the bytes of a
share task those of its samples.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from sheaf.core.recipe import Share
from sheaf.core.task import Task, Update
from sheaf.core.types import CLOUD
from sheaf.core.wire_format import message_bytes
from sheaf.experiments.activation_bytes import training_bytes
from sheaf.experiments.config import Experiment
from sheaf.experiments.dry_run import dry_run
from sheaf.experiments.plan_options import Levels, Option, levels_of, prices_of, with_options
from sheaf.experiments.setup import ExperimentSetup
from sheaf.fleets.local.clock import RECORD_ONLY
from sheaf.fleets.local.dry_run import DryFleet
from sheaf.profiles.presence import Presence

ROUNDS = 3
"""Rounds of a dry run. Each further round costs as much as the middle one."""

OF_POOL = ("train", "restat", "refit")
"""Kinds of the cloud's tasks whose seconds are proportional to the number of pooled samples."""

NEVER = 1e12
"""A deadline in seconds that no call reaches."""

Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True)
class _Tables:
    """The tasks of one dry run, with P calls, N edges and W levels of work.

    Attributes:
        kinds: (P) kinds of the calls.
        down: (P, N) seconds in which an edge receives its task.
        up: (P, N) seconds in which it sends its answer.
        traffic: (P, N) bytes of both messages; 0 for calls that serve only the record.
        work: (W, P, N) seconds in which it computes.
        cloud: (P) seconds in which the cloud computes.
        memory: (N) bytes of the largest training.
        cuts: whether an edge trains a sub-model.
    """

    kinds: list[str]
    down: Array
    up: Array
    traffic: Array
    work: Array
    cloud: Array
    memory: Array
    cuts: bool

    def scaled(self, one: _Tables, other: _Tables) -> _Tables:
        """Return tables whose messages are as much smaller as those of ``other`` than those of ``one``."""

        def ratio(name: str) -> Array:
            of_one: Array = getattr(one, name)
            result: Array = np.ones_like(of_one)
            np.divide(getattr(other, name), of_one, out=result, where=of_one > 0)
            return result

        names = ("down", "up", "traffic")
        return replace(self, **{name: getattr(self, name) * ratio(name) for name in names})


class PlanCosts:
    """The costs of an experiment whose edges stand for devices.

    Args:
        setup: the experiment.

    Attributes:
        sites: names of the N edges.
        levels: the values of each setting.
        options: O options in the order of the accuracy that they cost.
        seconds: (O, N) seconds of an edge's messages and work, for each of its trainings.
        longest: (O, N) seconds of its longest call.
        bytes: (O, N) bytes of its messages, as the ledger counts them.
        beyond: (O, N) joules beyond those of the idle device; not a number where its power is unknown.
        idle: (N) watts of the idle device.
        fits: (O, N) whether its training fits into its memory.
    """

    def __init__(self, setup: ExperimentSetup) -> None:
        assert setup.devices is not None
        self._setup = setup
        self.sites = list(setup.edge_samples)
        self._profiles = [setup.devices.profiles[site] for site in self.sites]
        method = setup.experiment.method
        rounds = getattr(method, "rounds", 1)
        short = rounds > ROUNDS and getattr(method, "sample", 1.0) == 1
        self._short = replace(method, rounds=ROUNDS) if short else method
        levels = Levels((1.0,), ("",), (1.0,), (1.0,))
        own = self._tables(setup.experiment, levels)
        self.levels = levels_of(setup.experiment, cuts=own.cuts, trains="train" in own.kinds)
        self._weights = np.ones(len(own.kinds))
        if short:
            fewer = replace(setup.experiment, method=replace(method, rounds=ROUNDS - 1))
            each = len(own.kinds) - len(self._tables(fewer, levels, shorten=False).kinds)
            first = (len(own.kinds) - each) // 2
            self._weights[first : first + each] += rounds - ROUNDS
        coded = {
            codec: self._tables(self._with_all(Option(codec=codec)), self.levels)
            for codec in self.levels.codecs
        }
        self._own = {(1.0, codec): tables for codec, tables in coded.items()}
        for width in self.levels.widths[1:]:
            tables = self._tables(self._with_all(Option(width)), self.levels)
            for codec in self.levels.codecs:
                self._own[width, codec] = tables.scaled(coded[""], coded[codec])
        trains = np.array([kind == "train" for kind in own.kinds])
        self._trained = np.maximum(1.0, (self._weights * trains) @ (own.work[0] > 0))
        self.options = self.levels.options(prices_of(setup.experiment))
        found = [self._of(option) for option in self.options]
        self.seconds, self.longest, self.bytes, self.beyond, self.fits = (
            np.stack([each[number] for each in found]) for number in range(5)
        )
        self.idle = np.array([profile.watts_idle or 0.0 for profile in self._profiles])

    def end(self, chosen: Array) -> float:
        """Return the seconds of a run, given the number of each edge's option."""
        picked = [self.options[number] for number in chosen.tolist()]
        longest = np.zeros(len(self._weights))
        for option in set(picked):
            have = np.array([each == option for each in picked])
            longest = np.maximum(longest, self._of_calls(option)[0][:, have].max(axis=1))
        own = self._own[self.levels.widths[0], self.levels.codecs[0]]
        sent = np.array([self._sent(number) for number in range(len(self.sites))])
        pool = sum(sent * [each.share for each in picked]) / max(1.0, sent.sum())
        of_pool = np.array([kind in OF_POOL for kind in own.kinds])
        cloud = np.where(of_pool, own.cloud * pool, own.cloud)
        return float((self._weights * np.maximum(longest, cloud)).sum())

    def _sent(self, number: int) -> float:
        """Return the number of samples that an edge sends under the experiment's own settings."""
        site = self.sites[number]
        share = getattr(self._setup.experiment.method, "share", None)
        fraction = share.fraction if isinstance(share, Share) else 1.0
        fraction = min(fraction, self._setup.experiment.fleet.shares.get(site, 1.0))
        return fraction * len(self._setup.edge_samples[site][0])

    def _of_calls(self, option: Option) -> tuple[Array, Array, Array, Array, Array]:
        """Return the (P, N) seconds of an option in all, and of download, work and upload, and its bytes."""
        own = self._own[option.width, option.codec]
        work = own.work[self.levels.work.index(option.work)]
        share = np.array([option.share if kind == "share" else 1.0 for kind in own.kinds])[:, None]
        up, traffic = own.up * share, own.traffic * share
        return own.down + work + up, own.down, work, up, traffic

    def _of(self, option: Option) -> tuple[Array, Array, Array, Array, Array]:
        """Return the (N) seconds, longest call, bytes, joules beyond idle and fit of an option."""
        calls, down, work, up, traffic = self._of_calls(option)
        down, work, up = (self._weights @ each for each in (down, work, up))
        joules = []
        for number, profile in enumerate(self._profiles):
            parts = float(down[number]), float(work[number]), float(up[number])
            spent, idle = profile.joules(*parts), profile.watts_idle
            joules.append(np.nan if spent is None or idle is None else spent - idle * sum(parts))
        limits = np.array([profile.device.memory for profile in self._profiles])
        fits = self._own[option.width, option.codec].memory <= limits
        seconds = (down + work + up) / self._trained
        return seconds, calls.max(axis=0), self._weights @ traffic, np.array(joules), fits

    def _with_all(self, option: Option) -> Experiment:
        return with_options(self._setup, dict.fromkeys(self.sites, option))

    def _tables(self, experiment: Experiment, levels: Levels, shorten: bool = True) -> _Tables:
        """Run an experiment dry, without jitter, deadline and absences."""
        assert self._setup.devices is not None
        if shorten and hasattr(self._short, "rounds"):
            experiment = replace(experiment, method=replace(experiment.method, rounds=self._short.rounds))
        fleet = replace(experiment.fleet, deadline=NEVER, stop_at=None)
        settings = replace(self._setup.devices.settings, jitter=0.0)
        devices = replace(self._setup.devices, presence=Presence({}), settings=settings)
        setup = replace(self._setup, experiment=replace(experiment, fleet=fleet), devices=devices)
        noted: list[tuple[Task, Update, list[int]]] = []

        class Recorder(DryFleet):
            """A dry fleet that notes tasks, answers, and the multiply-adds for each level of work."""

            def run(
                self, tasks: Mapping[str, Task], call: Mapping[str, Task] | None = None
            ) -> Iterator[Update]:
                for update in super().run(tasks, call):
                    task, macs_of = tasks[update.site], self.workers[update.site].macs_of
                    noted.append((task, update, [macs_of(less) for less in _with_work(task, levels.work)]))
                    yield update

        _, timeline = dry_run(setup, Recorder)
        assert timeline is not None
        record = timeline.record([])
        calls = {call.call: number for number, call in enumerate(record.calls)}
        shape = len(calls), len(self.sites)
        down, up, traffic = np.zeros(shape), np.zeros(shape), np.zeros(shape)
        work, memory = np.zeros((len(levels.work), *shape)), np.zeros(len(self.sites))
        cloud = np.zeros(len(calls))
        for one in record.tasks:
            if one.site == CLOUD:
                cloud[calls[one.call]] = one.work
        training = _training_bytes(setup)
        columns = {site: number for number, site in enumerate(self.sites)}
        for task, update, macs in noted:
            number = columns[update.site]
            at = calls[task.call], number
            memory[number] = max(memory[number], training(task))
            if task.kind in RECORD_ONLY and not settings.evaluation:
                continue
            profile, sizes = self._profiles[number], (message_bytes(task), message_bytes(update))
            precision = "float32" if task.recipe is None else task.recipe.precision
            work[:, at[0], at[1]] = np.array(macs) / profile.device.speed(precision)
            if profile.link is not None:
                down[at] = profile.link.seconds_down(sizes[0])
                up[at] = profile.link.seconds_up(sizes[1])
            if task.kind not in RECORD_ONLY:
                traffic[at] = sum(sizes)
        kinds = [call.kind for call in record.calls]
        cuts = any(task.kind == "train" and task.cut is not None for task, *_ in noted)
        return _Tables(kinds, down, up, traffic, work, cloud, memory, cuts)


def _with_work(task: Task, levels: tuple[float, ...]) -> Iterator[Task]:
    """Yield the task with each level of work."""
    for level in levels:
        if task.kind != "train" or task.recipe is None:
            yield task
        else:
            yield replace(task, recipe=replace(task.recipe, work=level * task.recipe.work))


def _training_bytes(setup: ExperimentSetup) -> Callable[[Task], int]:
    """Return a function that returns the memory of a train task; 0 for other tasks."""
    known: dict[tuple[object, ...], int] = {}

    def of(task: Task) -> int:
        if task.kind != "train" or task.recipe is None:
            return 0
        key = task.cut, task.recipe.batch_size, task.recipe.optimizer
        if key not in known:
            known[key] = training_bytes(setup.network, task.cut, task.recipe)
        return known[key]

    return of
