"""Codecs on devices: the bits of one process, restarts, repeated tasks, lost files and hostile messages."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from device_rig import CLASSES, SHARES_ALL, SITES, Rig, absent, theta, train
from torch import Tensor

from sheaf.codecs.float32 import Float32
from sheaf.codecs.int8 import Int8
from sheaf.codecs.topk import TopK
from sheaf.core.coding import Coding
from sheaf.core.fleet import Fleet
from sheaf.core.recipe import Recipe
from sheaf.core.task import Task, Update
from sheaf.core.tensor_file import Blob
from sheaf.fleets.local.fleet import LocalFleet
from sheaf.fleets.remote.device import EdgeSite
from sheaf.fleets.remote.device_settings import EdgeFile, ShareSettings
from sheaf.fleets.remote.task_messages import decode_task
from sheaf.merges.merge import Merge
from sheaf.merges.rules.mean import Mean
from sheaf.merges.rules.regmean_plus_plus import RegmeanPlusPlus
from sheaf.runtime.calls import Calls
from sheaf.runtime.cloud_coding import Changes, CloudCoding
from sheaf.runtime.coded_params import encodable, encode
from sheaf.runtime.costs import Ledger
from sheaf.runtime.edges import Edges
from sheaf.runtime.journal import Journal
from sheaf.submodels.scheme import SiteNeeds
from sheaf.training.network import Network

EXACT = Float32()
MEAN = Mean()
RECIPE = Recipe(epochs=2, batch_size=8)
PAIRS = [(Int8(), TopK(fraction=0.2)), (TopK(fraction=0.2), Int8())]


class Run:
    """Calls and edges over a fleet, with codecs."""

    def __init__(self, folder: Path, fleet: Fleet, network: Network, codecs: tuple[Any, Any]) -> None:
        self.journal, self.ledger = Journal(folder / "journal", {}), Ledger(SITES, 0, 0)
        self.calls = Calls(5, self.journal, self.ledger)
        needs = [SiteNeeds(site, tuple(range(len(CLASSES)))) for site in SITES]
        coding = CloudCoding(network, *codecs)
        self.edges = Edges(self.calls, fleet, network, needs, 0.5, lambda _: theta(), coding=coding)
        self.params: Any = theta()

    def round(self, merge: Merge = MEAN) -> None:
        self.params = self.edges.merge(merge, self.params, self.edges.train(self.params, RECIPE))

    def end(self) -> tuple[str, list[str], dict[str, tuple[int, int]]]:
        """Return hashes of the model and of the edges' models, and the bytes of each edge."""
        self.edges.adopt(self.params)
        held = [update.blob.sha256 for update in self.edges.collect() if update.blob is not None]
        costs = {site: self.ledger.sites[site] for site in SITES}
        with self.journal:
            model = Blob.of(self.params).sha256
        return model, held, {site: (cost.bytes_sent, cost.bytes_received) for site, cost in costs.items()}


def network_of(rig: Rig) -> Network:
    rig.fleet.devices()
    worker = rig.link.sites["left"]._worker
    assert worker is not None
    return worker.network


@pytest.fixture(scope="module")
def in_process(tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    """The results of the same runs in one process, on the devices' data."""
    results = []
    for codecs in PAIRS:
        folder = tmp_path_factory.mktemp("local")
        rig = Rig(folder)
        network = network_of(rig)
        workers = [rig.link.sites[site]._worker for site in SITES]
        run = Run(folder, LocalFleet(workers, together="never"), network, codecs)  # type: ignore[arg-type]
        for _ in range(3):
            run.round()
        results.append(run.end())
    return results


@pytest.mark.parametrize("number", range(len(PAIRS)))
def test_devices_give_the_bits_and_bytes_of_one_process_though_they_restart(
    tmp_path: Path, number: int, in_process: list[Any]
) -> None:
    rig = Rig(tmp_path)
    run = Run(tmp_path, rig.fleet, network_of(rig), PAIRS[number])
    for _ in range(3):
        run.round()
        rig.link.job += 1  # new processes on the devices, with the files of the old ones
        rig.link.sites |= {site: restarted(tmp_path, site) for site in SITES}
    model, held, sizes = run.end()
    assert (model, held) == in_process[number][:2]
    expected = in_process[number][2]
    for site in SITES:
        assert sizes[site][0] == pytest.approx(expected[site][0], abs=200)  # times in the headers
        assert sizes[site][1] == expected[site][1]


def restarted(folder: Path, site: str) -> EdgeSite:
    return EdgeSite(site, folder / site / "own.safetensors", SHARES_ALL, folder / site / "state")


def test_a_device_that_lost_its_files_gets_the_whole_model_in_the_next_call(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    run = Run(tmp_path, rig.fleet, network_of(rig), (Int8(), Int8()))
    run.round()
    shutil.rmtree(tmp_path / "left" / "state")
    rig.link.job += 1
    rig.link.sites["left"] = restarted(tmp_path, "left")
    run.round()
    (refusal,) = run.calls.refused
    assert refusal.site == "left"
    assert "does not hold the model of call 1" in refusal.why
    run.round()
    assert len(run.calls.refused) == 1
    run.end()


STATISTICS = EdgeFile(share=ShareSettings(statistics=True))
LAYERS = RegmeanPlusPlus(off_diagonal=1.0)


class LosingFleet:
    """A fleet that calls a function before some call."""

    def __init__(self, fleet: Fleet, call: int, before: Callable[[], None]) -> None:
        self._fleet, self._call, self._before = fleet, call, before

    def names(self) -> tuple[str, ...]:
        return self._fleet.names()

    def run(self, tasks: Mapping[str, Task], call: Mapping[str, Task] | None = None) -> Iterator[Any]:
        if {task.call for task in tasks.values()} == {self._call}:
            self._before()
        return self._fleet.run(tasks, call)


def test_an_edge_that_missed_a_call_gets_the_whole_model() -> None:
    changes = Changes(4, frozenset({"right"}), ("fc1.weight",))
    blob = Blob.of(theta())
    assert changes.fields("left", theta(), blob, theta()) == {"coding": Coding()}
    fields = changes.fields("right", theta(), blob, theta())
    assert list(fields["blob"].open()) == ["fc1.weight"]
    assert fields["coding"] == Coding(base=4, digest=blob.key)


def test_a_merge_layer_by_layer_sends_the_model_once(tmp_path: Path) -> None:
    """With the bits and bytes of one process, and after a device has lost the model, without it."""
    ends = {}
    own = dict.fromkeys(SITES, STATISTICS)
    for name in ("local", "devices", "lost"):
        rig = Rig(tmp_path / name, own)
        network, fleet = network_of(rig), rig.fleet
        if name == "local":
            fleet = LocalFleet([rig.link.sites[site]._worker for site in SITES], together="never")
        if name == "lost":
            files = tmp_path / name / "left" / "state" / "runs" / rig.setup.run

            def lose(files: Path = files, rig: Rig = rig) -> None:
                for path in files.glob("left.received-*"):
                    path.unlink()
                rig.link.job += 1
                rig.link.sites["left"] = EdgeSite(
                    "left", tmp_path / "lost/left/own.safetensors", STATISTICS, tmp_path / "lost/left/state"
                )

            fleet = LosingFleet(rig.fleet, 3, lose)
        run = Run(tmp_path / name, fleet, network, (EXACT, EXACT))
        run.round(LAYERS)
        received = run.ledger.sites["left"].bytes_received
        ends[name] = run.end(), run.calls.refused, received
    (model, held, sizes), refused, received = ends["devices"]
    assert (model, held, refused) == (*ends["local"][0][:2], [])
    assert {site: size[1] for site, size in sizes.items()} == {
        site: size[1] for site, size in ends["local"][0][2].items()
    }
    whole, first_layer = Blob.of(theta()).size, theta()["fc1.weight"].nbytes
    headers = 3 * 1000
    assert received < 2 * whole + first_layer + headers, "to train, to start the merge, and the fitted layer"
    (refusal,) = ends["lost"][1]
    assert (refusal.site, refusal.call) == ("left", 3)
    assert "does not hold the model of call 2" in refusal.why


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"fc1.bias": torch.ones(8)}, "install the same versions"),
        ({"fc1.bias": torch.ones(9)}, "'fc1.bias' of the message, (9,), is not in the earlier model"),
        ({"fc1.bias": torch.ones(8).half()}, "is not in the earlier model"),
        ({"fc3.weight": torch.ones(8)}, "is not in the earlier model"),
    ],
)
def test_a_device_refuses_changes_that_do_not_complete_its_model(
    tmp_path: Path, changed: dict[str, Tensor], message: str
) -> None:
    rig = Rig(tmp_path)
    rig.run(Task("adopt", 1, 5, Blob.of(theta()), coding=Coding()))
    coding = Coding(base=1, digest=32 * "0")
    assert message in absent(rig.run(Task("adopt", 2, 5, Blob.of(changed), coding=coding))["left"])
    coding = Coding(base=1, digest=Blob.of(theta() | changed).key)
    assert ("versions" in message) == isinstance(
        rig.run(Task("adopt", 3, 5, Blob.of(changed), coding=coding))["left"], Update
    )


def coded(rig: Rig, call: int, blob: Blob, **coding: Any) -> Any:
    return rig.run(train(call, blob=blob, coding=Coding(upload=TopK(fraction=0.1), **coding)))


def test_a_repeated_task_gets_the_same_answer_with_the_same_feedback(tmp_path: Path) -> None:
    rig, blob = Rig(tmp_path), Blob.of(theta())

    def sent(call: int, **coding: Any) -> dict[str, bytes]:
        updates = coded(rig, call, blob, **coding)
        return {site: update.blob.source.read_bytes() for site, update in updates.items()}

    first = sent(1, reference=1)
    second = sent(2, reference=2, feedback=1)
    rig.link.job += 1
    rig.link.sites |= {site: restarted(tmp_path, site) for site in SITES}
    assert sent(2, reference=2, feedback=1) == second
    assert sent(3, reference=3) == first
    assert sent(4, reference=4, feedback=3) == second


def test_a_device_refuses_parameters_that_it_decodes_differently(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    task = Task("adopt", 1, 5, Blob.of(theta()), coding=Coding(download=Int8(), digest=32 * "0"))
    assert "bfloat16 is missing" in absent(rig.run(task)["left"])
    network = network_of(rig)
    encoded = Blob.of(encode(theta(), Int8(), encodable(network), 1)[0])
    why = absent(rig.run(replace(task, call=2, blob=encoded))["left"])
    assert "instead of 00000000000000000000000000000000; install the same versions" in why
    collected = rig.run(Task("collect", 3, 5))["left"]
    assert "holds no model yet" in absent(collected)


def test_a_codec_of_a_user_needs_the_consent_of_the_owner(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    header = train().header() | {"coding": {"upload": {"name": "os:system"}}}
    reply = rig.fleet.devices()
    assert set(reply) == set(SITES)
    device = rig.link.sites["left"]
    begin = {"ticket": "t", "wait": 5.0, "task": header}
    state, _ = device.handle("begin", json.dumps(begin).encode(), b"")
    assert "codec 'os:system' is not in [edge] allow" in json.loads(state)["reason"]


def test_the_header_of_a_coded_task_is_decoded_without_loss() -> None:
    coding = Coding(download=Int8(), base=3, digest=32 * "a", upload=TopK(), reference=4, feedback=3)
    task = train(4, blob=None, coding=coding)
    assert decode_task(task.header(), None) == task
    assert "coding" not in train().header()


def falsified(answer: Any, more: dict[str, Tensor], task: Task, update: Update) -> Update:
    sent = answer(task, update)
    return replace(sent, blob=Blob.of(sent.blob.open() | more))


def test_a_hostile_answer_is_refused_and_the_call_continues(tmp_path: Path) -> None:
    """A device whose encoding has other tensors, or values that are not finite."""
    for number, tensors in enumerate(
        (
            {"more": torch.zeros(10)},
            {"bfloat16": torch.full((11,), torch.inf, dtype=torch.bfloat16)},
            {"int8": torch.zeros(4, 38, dtype=torch.int8)},
        )
    ):
        folder = tmp_path / str(number)
        rig = Rig(folder)
        run = Run(folder, rig.fleet, network_of(rig), (EXACT, Int8()))
        device: Any = rig.link.sites["left"]
        device._coding.answer = partial(falsified, device._coding.answer, tensors)
        with run.journal:
            run.round()
        (refusal,) = run.calls.refused
        assert refusal.site == "left"
        assert "its parameters cannot be read" in refusal.why
        assert "\n" not in refusal.why
