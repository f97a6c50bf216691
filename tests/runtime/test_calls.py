"""Calls: their order, refusals, the quorum, and answers from the journal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from rig import (
    RECIPE,
    SITES,
    Fleet,
    Partial,
    Rig,
    merged_bits,
    theta,
    workers,
)
from support import one_line

from sheaf.core.errors import QuorumError
from sheaf.core.recipe import Share
from sheaf.core.seeds import seed_for
from sheaf.core.task import Task, Update
from sheaf.core.tensor_file import Blob
from sheaf.core.types import CLOUD
from sheaf.core.wire_format import message_bytes
from sheaf.fleets.local.fleet import LocalFleet


def test_only_repeatable_answers_may_become_durable_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sheaf.runtime.journal.TOGETHER", 1000.0)
    with Rig(tmp_path) as rig:

        def durable() -> int:
            return (tmp_path / "journal" / "journal.jsonl").read_bytes().count(b"\n") - 1

        rig.edges.train(theta(), RECIPE)
        rig.edges.adopt(theta())
        assert durable() == 0
        rig.edges.train(None, RECIPE)
        assert durable() == 3 * len(SITES)
        rig.edges.train(theta(), RECIPE)
        rig.edges.evaluate()
        assert durable() == 5 * len(SITES)


def test_merged_bits_do_not_depend_on_the_order_of_the_answers(tmp_path: Path) -> None:
    found = set()
    for seed in range(4):
        with Rig(tmp_path / str(seed), Fleet(tmp_path / f"sites-{seed}", seed)) as rig:
            answers = rig.edges.train(theta(), RECIPE)
            assert [answer.site for answer in answers] == list(SITES)
            found.add(merged_bits(rig))
            assert len(rig.fleet.asked) == 3 * len(SITES)
    assert len(found) == 1
    with Rig(tmp_path / "local", LocalFleet(workers(tmp_path / "local-sites"))) as rig:
        rig.edges.train(theta(), RECIPE)
        assert {merged_bits(rig)} == found


def test_every_call_and_site_has_its_own_seed(tmp_path: Path) -> None:
    seeds = []

    class Listening(Fleet):
        def run(self, tasks: Mapping[str, Task], call: Mapping[str, Task] | None = None) -> Iterator[Update]:
            seeds.extend((task.seed, task.call, site) for site, task in tasks.items())
            return super().run(tasks, call)

    with Rig(tmp_path, Listening(tmp_path / "sites")) as rig:
        merged_bits(rig)
    assert len({seed for seed, _, _ in seeds}) == len(seeds) == 8
    assert all(seed == seed_for(5, "call", call, site) for seed, call, site in seeds)


def test_a_resumed_run_takes_answers_from_the_journal(tmp_path: Path) -> None:
    with Rig(tmp_path) as first:
        bits = merged_bits(first)
    with Rig(tmp_path, Fleet(tmp_path / "sites", seed=9)) as second:
        assert merged_bits(second) == bits
        assert second.fleet.asked == []
        assert second.observer.told == [], "the observer gets no events of journaled answers"
        assert second.ledger.sites == first.ledger.sites
        second.edges.evaluate()
        assert second.fleet.asked == [(3, site) for site in SITES]
        assert second.observer.told[0] == ("evaluate", SITES)
        assert sorted(second.observer.told[1:]) == sorted((site,) for site in SITES)


def test_a_resumed_run_calls_only_the_sites_without_an_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sheaf.runtime.journal.TOGETHER", 1000.0)
    first = Rig(tmp_path)
    bits = merged_bits(first)
    first.__exit__(KeyboardInterrupt)
    lines = (tmp_path / "journal" / "journal.jsonl").read_bytes().splitlines(keepends=True)
    (tmp_path / "journal" / "journal.jsonl").write_bytes(b"".join(lines[:-3]))  # two answers and a merge
    with Rig(tmp_path) as second:
        assert merged_bits(second) == bits
        assert len(second.fleet.asked) == 2
        assert {call for call, _ in second.fleet.asked} == {2}


def test_booked_bytes_are_the_sizes_of_the_messages(tmp_path: Path) -> None:
    sent: dict[str, int] = dict.fromkeys(SITES, 0)
    received: dict[str, int] = dict.fromkeys(SITES, 0)

    class Weighing(Fleet):
        def run(self, tasks: Mapping[str, Task], call: Mapping[str, Task] | None = None) -> Iterator[Update]:
            for update in super().run(tasks, call):
                if update.kind in ("train", "adopt", "share"):
                    received[update.site] += message_bytes(tasks[update.site])
                    sent[update.site] += message_bytes(update)
                yield update

    with Rig(tmp_path, Weighing(tmp_path / "sites")) as rig:
        rig.edges.share(Share(fraction=0.5))
        rig.edges.train(theta(), RECIPE)
        booked = {site: replace(spent) for site, spent in rig.ledger.sites.items()}
        rig.edges.evaluate()  # these two calls are not booked
        rig.edges.collect()
        assert rig.ledger.sites == booked
        rig.edges.adopt(theta())
        for site in SITES:
            assert rig.ledger.sites[site].bytes_sent == sent[site]
            assert rig.ledger.sites[site].bytes_received == received[site]
        assert rig.ledger.sites[CLOUD].bytes_received == sum(sent.values())
        assert rig.ledger.sites[CLOUD].bytes_sent == sum(received.values())


def test_a_call_continues_without_absent_sites_and_records_them(tmp_path: Path) -> None:
    fleet = Partial(tmp_path / "sites", {1: "a", 2: "ab"})
    with Rig(tmp_path, fleet) as rig:
        assert [update.site for update in rig.edges.train(theta(), RECIPE)] == ["c", "d", "b"]
        assert [update.site for update in rig.edges.evaluate()] == ["c", "d"]
        told = [(refusal.call, refusal.site) for refusal in rig.calls.refused]
        assert told == [(1, "a"), (2, "a"), (2, "b")]
    with Rig(tmp_path, Partial(tmp_path / "sites", {})) as again:
        assert [update.site for update in again.edges.train(theta(), RECIPE)] == ["c", "d", "b"]
        assert [update.site for update in again.edges.evaluate()] == ["c", "d"]
        assert again.calls.refused == rig.calls.refused
        assert again.fleet.asked == [], "an absence is final once its call has ended"


@pytest.mark.parametrize("kind", ["train", "adopt", "evaluate", "share", "collect"])
def test_every_call_needs_the_quorum(tmp_path: Path, kind: str) -> None:
    calls = {
        "train": lambda edges: edges.train(theta(), RECIPE),
        "adopt": lambda edges: edges.adopt(theta()),
        "evaluate": lambda edges: edges.evaluate(),
        "share": lambda edges: edges.share(Share(fraction=0.5)),
        "collect": lambda edges: edges.collect(),
    }
    fleet = Partial(tmp_path / "sites", {2: "abc"})
    with Rig(tmp_path, fleet) as rig:
        rig.edges.adopt(theta())
        with pytest.raises(QuorumError, match=r"1 of 4 edges answered a .* battery is empty") as error:
            calls[kind](rig.edges)
        one_line(error)
    fleet = Partial(tmp_path / "sites", {})
    with Rig(tmp_path, fleet) as again:
        again.edges.adopt(theta())
        calls[kind](again.edges)
        assert sorted(site for site, task in fleet.tasks) == ["a", "b", "c"], "the answer of d is journaled"
        assert again.calls.refused == []


def test_answers_to_other_tasks_are_refused(tmp_path: Path) -> None:
    class Confused(Fleet):
        def run(self, tasks: Mapping[str, Task], call: Mapping[str, Task] | None = None) -> Iterator[Update]:
            for update in super().run(tasks, call):
                yield {
                    "a": replace(update, kind="share"),
                    "b": replace(update, site="mallory"),
                    "c": replace(update, blob=Blob(b"no tensors", "", 10)),
                }.get(update.site, update)
                if update.site == "d":
                    yield update  # a second answer

    with Rig(tmp_path, Confused(tmp_path / "sites"), quorum=0.25) as rig:
        assert [update.site for update in rig.edges.train(theta(), RECIPE)] == ["d"]
        told = {refusal.site: refusal.why for refusal in rig.calls.refused}
    assert told["a"] == "it answered a train task with 'share'"
    assert told["mallory"] == "it answered a task that it was not given"
    assert told["b"] == "it gave no answer"
    assert told["c"].startswith("its parameters cannot be read")
