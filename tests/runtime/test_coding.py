"""Calls with codecs: what the merge sees, bytes, absent edges, feedback, and runs that were killed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from rig import RECIPE, SITES, Fleet, Partial, Rig, network, not_finite, theta, workers
from support import lose

from sheaf.codecs.bfloat16 import Bfloat16
from sheaf.codecs.float32 import Float32
from sheaf.codecs.int8 import Int8
from sheaf.codecs.topk import TopK
from sheaf.core.coding import CodedBlob
from sheaf.core.stored_params import StoredParams
from sheaf.core.tensor_file import Blob
from sheaf.core.wire_format import message_bytes
from sheaf.fleets.local.dry_run import DryFleet
from sheaf.merges.rules.mean import Mean
from sheaf.merges.rules.median import Median
from sheaf.runtime import site_coding
from sheaf.runtime.cloud_coding import CloudCoding
from sheaf.runtime.edge_tensors import EdgeTensors

EXACT = Float32()
PAIRS = [(Int8(), Int8()), (TopK(fraction=0.2), TopK(fraction=0.2)), (EXACT, Int8()), (Bfloat16(), EXACT)]


def rig(folder: Path, codecs: tuple[Any, Any], fleet: Any = None) -> Rig:
    return Rig(folder, fleet, coding=CloudCoding(network(), *codecs))


def rounds(own: Rig) -> str:
    """Train with new parameters, and once more with the held ones; return a hash of all final models."""
    params: Any = theta()
    for _ in range(2):
        params = own.edges.merge(Mean(), params, own.edges.train(params, RECIPE))
    held = own.edges.train(None, RECIPE)
    own.edges.adopt(params)
    final = [update.blob.sha256 for update in own.edges.collect() if update.blob is not None]
    return " ".join([Blob.of(own.edges.merge(Mean(), params, held)).sha256, *final])


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[int, str]:
    """The hashes of runs that nothing disturbed, by the number of the pair of codecs."""
    results = {}
    for number, codecs in enumerate(PAIRS):
        with rig(tmp_path_factory.mktemp("undisturbed"), codecs) as own:
            results[number] = rounds(own)
    return results


@pytest.mark.parametrize(("codecs", "calls"), list(zip(PAIRS, (2, 1, 2, 1), strict=True)))
def test_a_killed_run_resumes_to_the_same_bits(
    tmp_path: Path, codecs: tuple[Any, Any], calls: int, undisturbed: dict[int, str]
) -> None:
    """The run is killed in a call of which some answers are durable."""

    class Dying(Fleet):
        def run(self, tasks: Any, call: Any = None) -> Any:
            for count, update in enumerate(super().run(tasks, call)):
                if next(iter(tasks.values())).call > calls and count == 2:
                    raise KeyboardInterrupt
                yield update

    dying = rig(tmp_path, codecs, Dying(tmp_path / "sites"))
    with pytest.raises(KeyboardInterrupt) as stopped:
        rounds(dying)
    dying.journal.settle(delete=False)  # while the method's variables exist
    lose(dying.journal, stopped)
    with rig(tmp_path, codecs) as own:
        assert rounds(own) == undisturbed[PAIRS.index(codecs)]
        assert min(call for call, _ in own.fleet.asked) == calls + 1  # type: ignore[attr-defined]


def test_the_order_of_answers_changes_nothing(tmp_path: Path, undisturbed: dict[int, str]) -> None:
    with rig(tmp_path, PAIRS[1], Fleet(tmp_path / "sites", seed=9)) as own:
        assert rounds(own) == undisturbed[1]


def test_edges_hold_and_the_merge_sees_decoded_parameters(tmp_path: Path) -> None:
    with rig(tmp_path, (Int8(), Int8()), Partial(tmp_path / "sites", {})) as own:
        (first, *_) = own.edges.train(theta(), RECIPE)
        task = dict(own.fleet.tasks)[first.site]  # type: ignore[attr-defined]
        assert isinstance(task.blob, CodedBlob)
        sent = task.blob.decoded.open()
        assert not torch.equal(sent["1.weight"], theta()["1.weight"])
        assert torch.equal(sent["1.bias"], theta()["1.bias"])
        held = {update.site: update for update in own.edges.collect()}[first.site].params
        scale = (held["1.weight"] - sent["1.weight"]).abs().amax(1, keepdim=True) / 127
        error = (first.params["1.weight"] - held["1.weight"]).abs()
        assert error.max() > 0
        assert (error <= 1.01 * scale).all()
        assert torch.equal(first.params["2.running_var"], held["2.running_var"])


def test_booked_bytes_are_those_of_the_encoded_messages(tmp_path: Path) -> None:
    with rig(tmp_path, (Int8(), Int8()), Partial(tmp_path / "sites", {})) as own:
        own.edges.train(theta(), RECIPE)
        fleet: Any = own.fleet
        sizes = {site: (message_bytes(task), len(task.blob.source)) for site, task in fleet.tasks}
        assert all(task.blob.size == len(task.blob.source) for _, task in fleet.tasks)
        for site, (received, blob) in sizes.items():
            assert own.ledger.sites[site].bytes_received == received
            assert blob < Blob.of(theta()).size
            assert own.ledger.sites[site].bytes_sent < received + 200


def test_a_dry_fleet_books_the_bytes_of_the_run(tmp_path: Path) -> None:
    costs = []
    for number, fleet in enumerate((Fleet(tmp_path / "sites"), DryFleet(workers(tmp_path / "dry")))):
        with rig(tmp_path / str(number), (Int8(), TopK()), fleet) as own:
            own.edges.merge(Mean(), theta(), own.edges.train(theta(), RECIPE))
            own.edges.train(theta(), RECIPE)
            costs.append({site: own.ledger.sites[site].bytes_received for site in SITES})
    assert costs[0] == costs[1]


def test_edges_that_hold_the_same_share_one_blob_and_an_absent_one_gets_the_whole(tmp_path: Path) -> None:
    fleet = Partial(tmp_path / "sites", {2: ["a"]})
    with rig(tmp_path, (Int8(), Int8()), fleet) as own:
        params = theta()
        for _ in range(4):
            params = dict(own.edges.merge(Mean(), params, own.edges.train(params, RECIPE)))
        tasks = {(task.call, site): task for site, task in fleet.tasks}
        bases = {
            call: {site: tasks[call, site].coding.base for site in SITES}  # type: ignore[union-attr]
            for call in (1, 2, 3, 4)
        }
        whole = dict.fromkeys(SITES, 0)
        assert bases[1] == whole
        assert bases[2] == dict.fromkeys(SITES, 1)
        assert bases[3] == dict.fromkeys(SITES, 2) | {"a": 0}
        assert bases[4] == dict.fromkeys(SITES, 3)
        assert len({id(tasks[2, site].blob) for site in SITES}) == 1
        assert len({id(tasks[3, site].blob) for site in SITES}) == 2


def test_feedback_refers_to_the_latest_usable_answer(tmp_path: Path) -> None:
    fleet = Partial(tmp_path / "sites", {2: ["a"]})
    fleet._says = {"d": lambda params: params}  # answers arrive as they are
    with rig(tmp_path, (EXACT, TopK()), fleet) as own:
        params = theta()
        for _ in range(3):
            params = dict(own.edges.merge(Mean(), params, own.edges.train(params, RECIPE)))
        used = {(task.call, site): task.coding.feedback for site, task in fleet.tasks if task.coding}
        assert [used[call, "b"] for call in (1, 2, 3)] == [0, 1, 2]
        assert [used[call, "a"] for call in (1, 2, 3)] == [0, 1, 1]


def test_feedback_recovers_what_topk_left_out(tmp_path: Path) -> None:
    """The sum of the decoded differences and the last error is the sum of the true differences."""
    fleet = Partial(tmp_path / "sites", {})
    with rig(tmp_path, (EXACT, TopK(fraction=0.1)), fleet) as own:
        true, sent = torch.zeros(8, 16), torch.zeros(8, 16)
        for _ in range(4):
            (first, *_) = own.edges.train(theta(), RECIPE)
            held = {update.site: update for update in own.edges.collect()}[first.site].params
            true += held["1.weight"] - theta()["1.weight"]
            sent += first.params["1.weight"] - theta()["1.weight"]
        error = fleet._coding[first.site]._errors.at(7)
        assert error is not None
        assert torch.allclose(sent + error.open()["1.weight"], true, atol=1e-5)
        assert not torch.allclose(sent, true, atol=1e-3)


def test_an_answer_that_is_not_finite_is_refused_by_name(tmp_path: Path) -> None:
    class Broken(Partial):
        """A fleet whose site "a" trains to values that are not finite."""

        def _run(self, tasks: Any, call: Any) -> Any:
            for update in super()._run(tasks, call):
                if update.site == "a" and update.kind == "train":
                    yield replace(update, blob=Blob.of(not_finite(update.params)))
                else:
                    yield update

    for number, codec in enumerate((Int8(), TopK(), Bfloat16())):
        with rig(tmp_path / str(number), (EXACT, codec), Broken(tmp_path / f"{number}s", {})) as own:
            updates = own.edges.train(theta(), RECIPE)
            assert {update.site for update in updates} == set(SITES) - {"a"}
            (refusal,) = own.calls.refused
            assert (refusal.site, refusal.why.count("\n")) == ("a", 0)
            assert "1.weight has values that are not finite" in refusal.why


def test_a_merge_that_reads_rows_sees_the_decoded_ones(tmp_path: Path) -> None:
    with rig(tmp_path, (EXACT, Int8())) as own:
        updates = own.edges.train(theta(), RECIPE)
        merged = Median()(theta(), updates, network())
        stacked = torch.stack([update.params["1.weight"] for update in updates])
        assert torch.allclose(merged["1.weight"], stacked.double().quantile(0.5, 0).float(), atol=1e-7)


def test_large_answers_are_spilled_without_changing_bits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, undisturbed: dict[int, str]
) -> None:
    monkeypatch.setattr(site_coding, "IN_MEMORY", 0)
    with rig(tmp_path, PAIRS[0]) as own:
        assert rounds(own) == undisturbed[0]
        assert not list((tmp_path / "sites").rglob("*.encoded"))


def test_the_disk_holds_few_models_however_many_rounds(tmp_path: Path) -> None:
    with rig(tmp_path, (TopK(), TopK())) as own:
        counts = []
        params: Any = theta()
        for _ in range(6):
            params = own.edges.merge(Mean(), params, own.edges.train(params, RECIPE))
            assert isinstance(params, StoredParams)
            own.journal.settle()
            counts.append(len(list(tmp_path.rglob("*.safetensors"))))
        assert counts[-1] == counts[-2] == counts[2]


def test_constants_of_a_loss_are_sent_exactly_beside_coded_parameters(tmp_path: Path) -> None:
    fleet = Partial(tmp_path / "sites", {})
    with rig(tmp_path, (Int8(), Int8()), fleet) as own:
        own_tensors = {site: EdgeTensors.of({".c": torch.full((2,), float(ord(site)))}) for site in SITES}
        own.edges.train(theta(), RECIPE, own=own_tensors)
        own.edges.train(None, RECIPE, own=own_tensors)  # differences to the first call's model
        for site, task in fleet.tasks:
            blob: Any = task.blob
            assert blob.size == len(blob.source)
            if task.call == 1:
                assert isinstance(blob, CodedBlob)
                assert blob.decoded.open()[".c"].tolist() == [ord(site)] * 2
            assert task.coding is not None
            assert (task.continues, task.coding.reference) == (task.call == 2, 1)


def test_topk_sends_a_model_to_adopt_as_float32(tmp_path: Path) -> None:
    with rig(tmp_path, (TopK(), EXACT)) as own:
        params = own.edges.merge(Mean(), theta(), own.edges.train(theta(), RECIPE))
        own.edges.adopt(params)
        held = own.edges.collect()
        assert all(torch.equal(update.params["1.weight"], params["1.weight"]) for update in held)


def test_an_edge_has_its_own_codec_in_both_directions(tmp_path: Path) -> None:
    """The others' messages are those of a run without codecs."""
    bits, sizes = [], []
    for of_edges in ({}, {"a": Int8()}):
        coding = CloudCoding(network(), of_edges=of_edges)
        folder = tmp_path / str(len(of_edges))
        fleet = Partial(folder / "sites", {})
        with Rig(folder, fleet, coding=coding) as own:
            own.edges.train(theta(), RECIPE)
            again = own.edges.train(theta(), RECIPE)
            bits.append({update.site: Blob.of(update.params).sha256 for update in again})
            costs = own.ledger.sites
            sizes.append({site: (costs[site].bytes_received, costs[site].bytes_sent) for site in SITES})
            coded = {site for site, task in fleet.tasks if task.coding is not None}
            assert coded == set(of_edges)
    assert {site for site in SITES if bits[0][site] != bits[1][site]} == {"a"}
    assert {site for site in SITES if sizes[0][site][0] != sizes[1][site][0]} == {"a"}
    assert all(small < large for small, large in zip(sizes[1]["a"], sizes[0]["a"], strict=True))
