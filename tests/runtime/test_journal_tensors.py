"""The journal keeps the tensors that a resumed run opens, and deletes the others."""

from __future__ import annotations

import errno
import itertools
import math
import os
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path

import pytest
import torch
from rig import RECIPE, SITES, Fleet, Partial, Rig, merged_bits, theta, workers
from torch import Tensor

from sheaf.core import atomic_io
from sheaf.core.errors import QuorumError
from sheaf.core.task import Task, Update
from sheaf.core.tensor_file import Blob
from sheaf.core.types import Params
from sheaf.fleets.local.fleet import LocalFleet
from sheaf.merges.rules.mean import Mean

ROUNDS = 4


@pytest.fixture(autouse=True)
def without_files(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a busy machine too, training again is cheaper than writing."""
    monkeypatch.setattr("sheaf.runtime.worker_group.WORTH_A_FILE", math.inf)


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "journal").glob("*.safetensors"))


class InMemory(LocalFleet):
    """A fleet whose updates have no files. Those of ``Fleet`` are encoded, as those of devices are."""

    def __init__(self, folder: Path) -> None:
        super().__init__(workers(folder))
        self.asked: list[tuple[int, str]] = []

    def run(self, tasks: Mapping[str, Task], call: Mapping[str, Task] | None = None) -> Iterator[Update]:
        self.asked += [(task.call, site) for site, task in tasks.items()]
        return super().run(tasks, call)


def in_memory(folder: Path) -> Rig:
    return Rig(folder, InMemory(folder / "sites"))


def rounds_of(rig: Rig, rounds: int = ROUNDS, each: Callable[[Rig], None] | None = None) -> Params:
    params: Params = theta()
    for _ in range(rounds):
        updates = rig.edges.train(params, RECIPE)
        params = rig.edges.merge(Mean(), params, updates)
        if each is not None:
            each(rig)
    return params


def bits(params: Mapping[str, Tensor]) -> str:
    return Blob.of(params).sha256


@pytest.mark.parametrize("kind", [Fleet, InMemory])
def test_files_are_deleted_once_their_merge_is_durable(
    kind: type[Fleet] | type[InMemory], tmp_path: Path
) -> None:
    counts = []

    def settle(rig: Rig) -> None:
        rig.journal.settle()
        counts.append(len(files(tmp_path)))

    with Rig(tmp_path, kind(tmp_path / "sites")) as rig:
        found = bits(rounds_of(rig, each=settle))
    of_round = len(SITES) if kind is Fleet else 0
    assert max(counts) <= 2 * of_round + 3, "two rounds of updates, and the models that edges trained from"
    with Rig(tmp_path, kind(tmp_path / "sites")) as again:
        assert bits(rounds_of(again)) == found
        assert again.fleet.asked == []


def test_merges_that_nothing_needs_are_not_written(tmp_path: Path) -> None:
    with in_memory(tmp_path) as rig:
        params = rounds_of(rig, rounds=8)
        rig.journal.settle()
        assert len(files(tmp_path)) <= 3
        found = bits(params)
    with in_memory(tmp_path) as again:
        assert bits(rounds_of(again, rounds=8)) == found
        assert again.fleet.asked == []


def test_a_method_that_reads_updates_and_old_parameters_is_resumed(tmp_path: Path) -> None:
    """Its own arithmetic: a mean of the first edge's updates and of the parameters of all rounds."""

    def method(rig: Rig, rounds: int) -> Params:
        params, kept, sums = theta(), [], torch.zeros(8, 16)
        for _ in range(rounds):
            updates = rig.edges.train(params, RECIPE)
            sums += updates[0].params["1.weight"]
            params = dict(rig.edges.merge(Mean(), params, updates))
            kept.append(params)
        return {"w": sums + torch.stack([each["1.weight"] for each in kept]).sum(0)}

    with in_memory(tmp_path / "whole") as rig:
        whole = bits(method(rig, ROUNDS))
    rig = in_memory(tmp_path)
    method(rig, ROUNDS - 1)
    rig.__exit__(KeyboardInterrupt)
    with in_memory(tmp_path) as again:
        assert bits(method(again, ROUNDS)) == whole
        assert {call for call, _ in again.fleet.asked} == {ROUNDS}, "earlier rounds are not trained again"


def test_the_parameters_of_an_earlier_round_are_kept_while_the_method_holds_them(tmp_path: Path) -> None:
    def method(rig: Rig, rounds: int) -> str:
        params: Params = theta()
        best = params
        for n in range(rounds):
            params = rig.edges.merge(Mean(), params, rig.edges.train(params, RECIPE))
            best = params if n == 1 else best
            rig.journal.settle()
        return bits(best)

    with in_memory(tmp_path / "whole") as rig:
        whole = method(rig, 6)
    rig = in_memory(tmp_path)
    method(rig, 5)
    rig.__exit__(KeyboardInterrupt)
    with in_memory(tmp_path) as again:
        assert method(again, 6) == whole
        assert {call for call, _ in again.fleet.asked} == {6}


def test_updates_that_no_durable_merge_used_are_trained_again(tmp_path: Path) -> None:
    with in_memory(tmp_path / "whole") as rig:
        whole = merged_bits(rig, 1)
    with in_memory(tmp_path) as rig:
        rig.edges.train(theta(), RECIPE)
        held = bits(rig.edges.collect()[0].params)
    assert files(tmp_path) == ["000002-c.safetensors"], "only the update that was read"
    with in_memory(tmp_path) as again:
        updates = again.edges.train(theta(), RECIPE)
        assert again.fleet.asked == []
        assert bits(again.edges.merge(Mean(), theta(), updates)) == whole
        assert bits(updates[0].params) == held
    with in_memory(tmp_path) as third:
        updates = third.edges.train(theta(), RECIPE)
        third.edges.collect()
        third.edges.merge(Mean(), theta(), updates)
        third.edges.evaluate()  # of models that were in the memory of the first run only
        assert third.fleet.asked == [(3, site) for site in SITES]


def test_a_failed_quorum_keeps_the_answers(tmp_path: Path) -> None:
    with pytest.raises(QuorumError), Rig(tmp_path, Partial(tmp_path / "sites", {1: "abc"})) as rig:
        rig.edges.train(theta(), RECIPE)
    with Rig(tmp_path, Partial(tmp_path / "sites", {})) as again:
        updates = again.edges.train(theta(), RECIPE)
        assert sorted(site for site, _ in again.fleet.tasks) == ["a", "b", "c"]
        again.edges.merge(Mean(), theta(), updates)


@pytest.mark.parametrize("kind", [Fleet, InMemory])
def test_a_full_disk_stops_the_run_which_then_resumes(
    kind: type[Fleet | InMemory], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk fills at any write: of tensors, of the log, of a folder's names."""
    with Rig(tmp_path / "whole", kind(tmp_path / "whole" / "sites")) as rig:
        whole = bits(rounds_of(rig, 2, each=lambda rig: rig.journal.settle()))
    stopped = 0
    for writes in (2, 3, 5, 8):
        folder, left = tmp_path / str(writes), itertools.count(writes, -1)

        def full(
            *arguments: object, left: Iterator[int] = left, done: Callable[..., None], **named: object
        ) -> None:
            if next(left) <= 0:
                raise OSError(errno.ENOSPC, "No space left on device")
            done(*arguments, **named)

        with monkeypatch.context() as patch:
            patch.setattr("os.fsync", partial(full, done=os.fsync))
            patch.setattr("sheaf.core.atomic_io.write", partial(full, done=atomic_io.write))
            try:
                with Rig(folder, kind(folder / "sites")) as rig:
                    rounds_of(rig, 2, each=lambda rig: rig.journal.settle())
            except OSError:
                stopped += 1
        with Rig(folder, kind(folder / "sites")) as again:
            assert bits(rounds_of(again, 2)) == whole
    assert stopped >= 3
