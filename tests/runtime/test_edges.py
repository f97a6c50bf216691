"""The edges' interface for methods: the parameters of tasks, cuts, absent edges."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from rig import RECIPE, SITES, Fleet, Partial, Rig, dataset, network, not_finite, theta, workers
from support import one_line
from torch import Tensor

from sheaf.core.errors import CutError, QuorumError
from sheaf.core.recipe import Share
from sheaf.core.task import Task, Update
from sheaf.core.tensor_file import Blob
from sheaf.core.types import CLOUD
from sheaf.core.wire_format import decode_samples, message_bytes
from sheaf.fleets.local.fleet import LocalFleet
from sheaf.merges.average import average
from sheaf.runtime.result import Refusal
from sheaf.submodels.scheme import SiteNeeds
from sheaf.submodels.schemes.by_class import ByClass
from sheaf.submodels.schemes.prefix import Prefix

NEEDS = [
    SiteNeeds("c", (0, 1), 0.5),
    SiteNeeds("a", (2,), 0.25),
    SiteNeeds("d", (0, 1, 2)),
    SiteNeeds("b", (0, 2), 0.75),
]


class OwnClasses(Fleet):
    """A fleet whose edges have only examples of their classes; it records its tasks."""

    def __init__(self, folder: Path, says: Mapping[str, object] | None = None) -> None:
        super().__init__(folder, says=says)
        self.tasks: list[tuple[str, Task]] = []
        for site, worker in self._workers.items():
            own = dataset().train
            (classes,) = (needs.classes for needs in NEEDS if needs.name == site)
            worker.pool(own.select(torch.isin(own.labels, torch.tensor(classes))))

    def run(self, tasks: Mapping[str, Task], call: Mapping[str, Task] | None = None) -> Iterator[Update]:
        self.tasks += tasks.items()
        return super().run(tasks, call)


def rig_of_own_classes(folder: Path, says: Mapping[str, object] | None = None) -> Rig:
    return Rig(folder, OwnClasses(folder / "sites", says), needs=NEEDS)


def test_own_start_gives_each_edge_its_own_parameters(tmp_path: Path) -> None:
    starts: dict[str, list[str]] = {site: [] for site in SITES}

    class Listening(Fleet):
        def run(self, tasks: Mapping[str, Task], call: Mapping[str, Task] | None = None) -> Iterator[Update]:
            for site, task in tasks.items():
                assert task.blob is not None
                starts[site].append(task.blob.sha256)
            return super().run(tasks, call)

    for again in ("once", "twice"):
        with Rig(tmp_path / again, Listening(tmp_path / f"sites-{again}")) as rig:
            assert len(rig.edges.train(theta(), RECIPE, own_start=True)) == len(SITES)
    assert all(once == twice for once, twice in starts.values())
    assert len({once for once, _ in starts.values()} | {Blob.of(theta()).sha256}) == len(SITES) + 1
    with pytest.raises(ValueError, match="own_start needs theta and no cuts"):
        rig.edges.train(None, RECIPE, own_start=True)


def test_a_sample_of_edges_differs_by_call_and_repeats_by_run(tmp_path: Path) -> None:
    drawn = []
    for run in ("a", "b"):
        with Rig(tmp_path / run) as rig:
            each = []
            for _ in range(6):
                each.append(rig.edges.sample(SITES, 0.5))
                rig.edges.adopt(theta())
            drawn.append(each)
            assert rig.edges.sample(SITES, 0.01) != []
            assert rig.edges.sample(SITES, 1.0) == list(SITES)
    assert drawn[0] == drawn[1]
    assert all(len(set(names)) == 2 and names == [s for s in SITES if s in names] for names in drawn[0])
    assert len({tuple(names) for names in drawn[0]}) > 1


def test_an_edge_that_missed_remember_keeps_the_held_model(tmp_path: Path) -> None:
    fleet = Partial(tmp_path / "sites", {2: "ab", 3: "b", 4: "b"})
    given = {name: value + 1 for name, value in theta().items()}
    with Rig(tmp_path, fleet) as rig:
        rig.edges.adopt(theta())
        own = rig.edges.remember()  # a and b are absent
        rig.edges.adopt(given)  # b is absent again
        received = rig.edges.remember()
        for since in (received, own):
            chosen = {update.site: update.metrics for update in rig.edges.choose(since, ())}
            assert chosen["c"]["mixture"] == 0.0, "without mixtures an edge is rolled back"
            assert chosen["a"]["mixture"] == (0.0 if since == received else 1.0)
            assert chosen["b"]["mixture"] == 1.0
        held = {update.site: Blob.of(update.params).sha256 for update in rig.edges.collect()}
    assert held["a"] == held["b"] == Blob.of(given).sha256
    assert held["c"] == held["d"] == Blob.of(theta()).sha256
    assert rig.calls.refused == [
        Refusal(call=call, site=site, why="its battery is empty") for call, site in AWAY
    ]


AWAY = ((2, "a"), (2, "b"), (3, "b"), (4, "b"))


def test_two_sites_of_one_name_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="same name"):
        LocalFleet(workers(tmp_path)[:1] * 2)


def test_without_reply_updates_carry_no_model(tmp_path: Path) -> None:
    with Rig(tmp_path) as rig:
        answers = rig.edges.train(theta(), RECIPE, reply=False)
        assert [answer.blob for answer in answers] == [None] * 4


def test_edges_continue_from_the_adopted_model(tmp_path: Path) -> None:
    with Rig(tmp_path / "one") as one, Rig(tmp_path / "other") as other:
        one.edges.adopt(theta())
        other.edges.adopt({name: value + 1 for name, value in theta().items()})
        held = one.edges.train(None, RECIPE)
        given = other.edges.train(theta(), RECIPE)
        for a, b in zip(held, given, strict=True):
            assert a.blob is not None
            assert b.blob is not None
            assert a.blob.sha256 == b.blob.sha256


def test_an_edge_is_lent_the_samples_of_classes_that_it_lacks(tmp_path: Path) -> None:
    with rig_of_own_classes(tmp_path) as rig:
        pool = dataset().train.select(torch.arange(0, 30))
        rig.edges.lend(pool)
        lent = {site: decode_samples(task.blob) for site, task in rig.fleet.tasks if task.blob}
        for needs in NEEDS:
            got, foreign = (
                lent[needs.name],
                pool.select(~torch.isin(pool.labels, torch.tensor(needs.classes))),
            )
            assert torch.equal(got.labels, foreign.labels)
            assert torch.equal(got.inputs, foreign.inputs[foreign.positions])
            assert not set(got.labels.tolist()) & set(needs.classes)
        assert [len(lent[site]) for site in SITES] == [10, 20, 0, 10]
        sent = [rig.ledger.sites[site].bytes_received for site in SITES]
        assert sent == [message_bytes(dict(rig.fleet.tasks)[site]) for site in SITES]
        assert rig.ledger.sites[CLOUD].bytes_sent == sum(sent)


def test_each_edge_gets_its_submodel_and_the_submodels_are_averaged(tmp_path: Path) -> None:
    with rig_of_own_classes(tmp_path) as rig:
        cuts = rig.edges.cut(Prefix())
        updates = rig.edges.train(theta(), RECIPE, cuts=cuts)
        for site, task in rig.fleet.tasks:
            assert task.cut == cuts[site] == rig.edges.cut_of(site)
            assert task.blob is not None
            taken = network().submodel(cuts[site]).take(theta())
            assert task.blob.sha256 == Blob.of(taken).sha256
        widths = [len(update.params["1.weight"]) for update in updates]
        assert widths == [4, 2, 8, 6]
        whole = rig.ledger.sites["d"]
        assert whole.parameters == sum(value.numel() for value in theta().values())
        assert rig.ledger.sites["a"].macs_per_example == (16 + 3) * 2
        merged = average(theta(), rig.edges.contributions(updates, by_examples=True))
        parts = {update.site: update for update in updates}
        last = merged["1.weight"][7], parts["d"].params["1.weight"][7]
        assert torch.equal(*last), "only d holds the last channel"
        shared = [parts[site] for site in SITES if site != "a"]  # three edges hold channel 3
        total = sum(update.examples for update in shared)
        mean = sum(update.params["1.weight"][3].double() * update.examples for update in shared) / total
        torch.testing.assert_close(merged["1.weight"][3], mean.float())
        equal = average(theta(), rig.edges.contributions(updates, by_examples=False))
        mean = sum(update.params["1.weight"][3].double() for update in shared) / 3
        torch.testing.assert_close(equal["1.weight"][3], mean.float())
        # Afterwards each edge trains, measures and sends its sub-model.
        rig.edges.train(None, RECIPE, reply=False)
        rig.edges.evaluate()
        assert [len(update.params["1.weight"]) for update in rig.edges.collect()] == [4, 2, 8, 6]


def test_without_cuts_an_edge_holds_the_whole_model_again(tmp_path: Path) -> None:
    with rig_of_own_classes(tmp_path) as rig:
        rig.edges.train(theta(), RECIPE, cuts=rig.edges.cut(Prefix()))
        rig.edges.adopt(theta())
        assert [rig.edges.cut_of(site) for site in SITES] == [None] * 4
        assert {task.cut for _, task in rig.fleet.tasks[-4:]} == {None}
        updates = rig.edges.train(None, RECIPE)
        assert [len(update.params["1.weight"]) for update in updates] == [8] * 4
        contributions = rig.edges.contributions(updates, by_examples=True)
        assert [one.submodel for one in contributions] == [None] * 4


def test_edges_with_equal_cuts_share_one_blob(tmp_path: Path) -> None:
    needs = [replace(needs, width=0.5) for needs in NEEDS]
    with Rig(tmp_path, OwnClasses(tmp_path / "sites"), needs=needs) as rig:
        rig.edges.adopt(theta(), rig.edges.cut(Prefix()))
        assert len({id(task.blob) for _, task in rig.fleet.tasks}) == 1
        assert len({task.blob.sha256 for _, task in rig.fleet.tasks if task.blob}) == 1


def test_an_update_of_another_edges_submodel_is_refused(tmp_path: Path) -> None:
    def of_another(params: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return network().submodel(cuts["c"]).take(theta())

    with rig_of_own_classes(tmp_path, says={"a": of_another}) as rig:
        cuts = rig.edges.cut(Prefix())
        usable = rig.edges.train(theta(), RECIPE, cuts=cuts)
        assert [update.site for update in usable] == ["c", "d", "b"]
        (refused,) = rig.calls.refused
        assert (refused.site, refused.why) == ("a", "1.bias has shape (4,) instead of (2,)")


def test_only_restricts_the_call_and_its_quorum(tmp_path: Path) -> None:
    with Rig(tmp_path, Fleet(tmp_path / "sites", says={"a": not_finite}), quorum=0.5) as rig:
        assert [update.site for update in rig.edges.train(theta(), RECIPE, only=["a", "b"])] == ["b"]
        assert {site for _, site in rig.fleet.asked} == {"a", "b"}
        assert rig.ledger.sites["c"].train_macs == rig.ledger.sites["c"].bytes_received == 0
        with pytest.raises(QuorumError, match="0 of 1 edges"):
            rig.edges.train(theta(), RECIPE, only=["a"])


def test_too_few_channels_for_the_edges_are_an_error(tmp_path: Path) -> None:
    needs = [SiteNeeds(f"edge-{n}", (n % 3,)) for n in range(9)]
    with Rig(tmp_path, needs=needs) as rig, pytest.raises(CutError, match="too few for 9 sites") as error:
        rig.edges.cut(ByClass())
    one_line(error)


def test_each_edge_trains_and_shares_as_much_as_it_can(tmp_path: Path) -> None:
    needs = [replace(NEEDS[0], work=0.5, share=0.1), NEEDS[1], NEEDS[2], replace(NEEDS[3], share=0.9)]
    with Rig(tmp_path, Partial(tmp_path / "sites", {}), needs=needs) as rig:
        rig.edges.train(theta(), replace(RECIPE, work=0.5))
        rig.edges.share(Share(fraction=0.5))
        fleet: Any = rig.fleet
        works = {site: task.recipe.work for site, task in fleet.tasks if task.recipe is not None}
        assert works == {"c": 0.25, "a": 0.5, "d": 0.5, "b": 0.5}
        fractions = {site: task.share.fraction for site, task in fleet.tasks if task.share is not None}
        assert fractions == {"c": 0.1, "a": 0.5, "d": 0.5, "b": 0.5}
