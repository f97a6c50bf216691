"""The protocol between cloud and devices, without a network: what fails, what is refused, what goes on."""

from __future__ import annotations

import functools
import hashlib
import json
import threading
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load, save

from sheaf.core.dataset import Samples
from sheaf.core.recipe import Recipe, Share
from sheaf.core.seeds import generator
from sheaf.core.task import Absence, Cost, Task, Update
from sheaf.core.tensor_file import Blob
from sheaf.core.types import Params
from sheaf.core.wire_format import decode_samples
from sheaf.data.load import save_own
from sheaf.fleets.remote import device, fleet
from sheaf.fleets.remote.device import EdgeSite, describe
from sheaf.fleets.remote.device_settings import EdgeFile, EdgeSettings, ShareSettings
from sheaf.fleets.remote.fleet import LinkDownError, LinkError, RemoteFleet
from sheaf.fleets.remote.messages import DataForm, Present, Setup
from sheaf.fleets.remote.sample_pool import Pool

SHAPE = (1, 4, 4)
CLASSES = ("a", "b", "c")
SITES = ("left", "right")
ALL = EdgeFile(share=ShareSettings(max_fraction=1.0))
Tamper = Callable[[str, dict[str, Any], bytes], tuple[dict[str, Any], bytes]]


def samples(seed: int, count: int = 30) -> Samples:
    inputs = torch.randint(256, (count, *SHAPE), generator=generator(seed), dtype=torch.uint8)
    return Samples.of(inputs, torch.arange(count) % 3)


class Wires:
    """A link to devices in this process.

    Args:
        tamper: site -> what becomes of its answers on the way: (what was asked, header, bytes).
    """

    def __init__(self, sites: Mapping[str, EdgeSite], tamper: Mapping[str, Tamper] | None = None) -> None:
        self.sites = dict(sites)
        self.tamper = dict(tamper or {})
        self.sent: list[tuple[str, str, dict[str, Any], int]] = []
        self.dead: set[str] = set()
        self.gone: set[str] = set()
        self.down = 0
        self.job = 0

    def gather(self, sites: Sequence[str]) -> set[str]:
        return {site for site in sites if site in self.sites and site not in self.gone}

    def call(
        self, site: str, what: str, header: Mapping[str, Any], payload: bytes, timeout: float
    ) -> tuple[dict[str, Any], bytes]:
        self.sent.append((site, what, dict(header), len(payload)))
        if self.down:
            self.down -= 1
            raise LinkDownError("the relay is gone")
        if site in self.dead:
            raise LinkError("no answer")
        answer, piece = self.sites[site].handle(what, json.dumps(header).encode(), payload)
        return self.tamper.get(site, lambda _, *same: same)(what, json.loads(answer), piece)

    def lose(self, site: str) -> None:
        self.gone.add(site)


class Rig:
    def __init__(
        self,
        folder: Path,
        own: Mapping[str, EdgeFile] | None = None,
        tamper: Mapping[str, Tamper] | None = None,
        deadline: float = 20.0,
        setup: Mapping[str, Any] | None = None,
    ) -> None:
        sites = {}
        for number, site in enumerate(SITES):
            (folder / site).mkdir(parents=True, exist_ok=True)
            save_own(folder / site / "own.safetensors", samples(number), samples(9, 6), CLASSES)
            file = (own or {}).get(site, ALL)
            sites[site] = EdgeSite(site, folder / site / "own.safetensors", file, folder / site / "state")
        self.wires = Wires(sites, tamper)
        told = {"model": "mlp", "options": {"hidden": 8}, "held_out": 0.1, "form": DataForm()} | (setup or {})
        self.setup = Setup(
            run=uuid.uuid4().hex,
            seed=3,
            classes=list(CLASSES),
            shape=SHAPE,
            mean=[0.5],
            std=[0.25],
            **told,  # type: ignore[arg-type]
        )
        self.steps: list[tuple[str, int]] = []
        self.pool = Pool(folder / "pool")
        self.folder = folder
        self.fleet = RemoteFleet(
            SITES,
            self.wires,
            self.setup,
            lambda _: Blob.of(theta()).size,
            (SHAPE, torch.uint8),
            deadline,
            folder / "incoming",
            lambda site, done, *_: self.steps.append((site, done)),
            self.pool.take,
        )

    def ask(self, task: Task) -> dict[str, Update | Absence]:
        return {answer.site: answer for answer in self.fleet.run(dict.fromkeys(SITES, task))}


@functools.cache
def theta() -> Params:
    from sheaf.models.build import ModelSettings, build_model

    return build_model(ModelSettings(name="mlp", options={"hidden": 8}), 3, SHAPE, 1).state_dict()


def train(call: int = 1, **changes: Any) -> Task:
    return replace(Task("train", call, 5, Blob.of(theta()), Recipe(epochs=2, batch_size=8)), **changes)


def absent(answer: Update | Absence) -> str:
    assert isinstance(answer, Absence), answer
    assert "\n" not in answer.why
    return answer.why


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fleet, "PATIENCE", 0.6)
    monkeypatch.setattr(fleet, "LOOK", 0.05)


@pytest.fixture(autouse=True)
def _one_device_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each device is a process of its own; two of them in one would draw and parse across each other."""
    turn, do = threading.Lock(), EdgeSite._do

    def alone(self: EdgeSite, *arguments: Any) -> None:
        with turn:
            do(self, *arguments)

    monkeypatch.setattr(EdgeSite, "_do", alone)


def test_devices_say_how_many_examples_of_which_class_they_have(tmp_path: Path) -> None:
    own = {"left": EdgeFile(edge=EdgeSettings(width=0.25))}
    found = Rig(tmp_path, own).fleet.present()
    assert list(found) == list(SITES)
    for site, share in (("left", 0.25), ("right", 1.0)):
        told = found[site]
        assert isinstance(told, Present)
        assert (sum(told.counts), len(told.counts), told.width) == (27, 3, share)


def test_a_task_is_done_and_progress_is_heard_of(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    answers = rig.ask(train(recipe=Recipe(epochs=400, batch_size=8)))
    for site, answer in answers.items():
        assert isinstance(answer, Update)
        assert answer.params.keys() == theta().keys()
        assert len(answer.metrics["losses"]) == 400
        assert any(who == site for who, _ in rig.steps)
    kinds = [what for site, what, *_ in rig.wires.sent if site == "left"]
    assert kinds.count("begin") == 2  # the set-up and the task


def test_what_has_come_down_is_not_sent_again(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    rig.ask(train())
    rig.ask(Task("adopt", 2, 5, Blob.of(theta())))
    weights = [length for site, _, _, length in rig.wires.sent if site == "left"]
    assert [length for length in weights if length] == [Blob.of(theta()).size]


def test_what_goes_down_goes_on_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fleet, "CHUNK", 64)
    rig = Rig(tmp_path)
    sent = 0

    def dies(what: str, header: dict[str, Any], piece: bytes) -> tuple[dict[str, Any], bytes]:
        nonlocal sent
        sent += what == "put"
        if sent > 2:
            raise LinkError("the line is cut")
        return header, piece

    rig.wires.tamper["left"] = dies
    assert "the line is cut" in absent(rig.ask(train())["left"])
    again = Rig(tmp_path, setup={})  # both processes died and are back
    again.fleet._setup = rig.setup
    answers = again.ask(train())
    assert isinstance(answers["left"], Update)
    places = [header["at"] for site, what, header, _ in again.wires.sent if (site, what) == ("left", "put")]
    assert places[0] == 0
    assert places[1] >= 3 * 64, "what had come is not sent again"
    assert answers["left"].blob.sha256 == train_alone(tmp_path / "alone")["left"].blob.sha256  # type: ignore[union-attr]


def test_a_link_that_has_become_slow_carries_what_it_can_from_the_next_call_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What does not get through in time is never answered; it must not be tried at that size for ever."""
    monkeypatch.setattr(fleet, "CHUNK", 64)
    rig = Rig(tmp_path)
    assert isinstance(rig.ask(train())["left"], Update)
    assert rig.fleet._pace["left", "put"] > 1
    call = rig.wires.call

    def slow(site: str, what: str, header: Mapping[str, Any], payload: bytes, timeout: float) -> Any:
        bytes_up = header.get("most", header.get("stop", 0) - header.get("start", 0))
        if site == "left" and len(payload) + bytes_up > 2 * 64:
            raise LinkError("it takes too long")
        return call(site, what, header, payload, timeout)

    monkeypatch.setattr(rig.wires, "call", slow)
    changed = Blob.of({name: value + 1 for name, value in theta().items()})
    assert "it takes too long" in absent(rig.ask(train(2, blob=changed))["left"])
    rig.wires.gone.clear()
    monkeypatch.setattr(rig.fleet, "_keep_pace", lambda *_: None)  # here a small piece takes no time at all
    assert isinstance(rig.ask(train(3, blob=changed))["left"], Update)


def train_alone(folder: Path) -> dict[str, Update | Absence]:
    return Rig(folder).ask(train())


def test_a_device_that_was_away_when_it_should_have_remembered_takes_what_it_is_given(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    rig.ask(Task("adopt", 1, 5, Blob.of(theta())))
    rig.wires.gone.add("left")
    assert "not connected" in absent(rig.ask(Task("remember", 2, 5))["left"])
    rig.wires.gone.clear()
    rig.ask(Task("adopt", 3, 5, Blob.of({name: value + 1 for name, value in theta().items()})))
    answers = rig.ask(Task("choose", 4, 5, since=2, mixtures=(0.5,)))
    found = {site: answer.metrics["mixtures"] for site, answer in answers.items()}  # type: ignore[union-attr]
    assert found == {"left": [1.0], "right": [0.0, 0.5]}


def test_a_device_that_is_not_connected_is_absent(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    rig.wires.gone.add("left")
    answers = rig.ask(train())
    assert absent(answers["left"]) == "it is not connected"
    assert isinstance(answers["right"], Update)


def test_a_device_that_dies_is_absent_within_the_patience_and_back_in_the_next_call(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    rig.ask(train(1))
    rig.wires.dead.add("left")
    answers = rig.ask(train(2))
    assert absent(answers["left"]).startswith("it gave no sign of life for 0.6 s")
    assert isinstance(answers["right"], Update)
    rig.wires.dead.clear()
    rig.wires.gone.clear()
    assert all(isinstance(answer, Update) for answer in rig.ask(train(3)).values())


def test_a_slow_device_is_left_alone_until_the_deadline_and_then_told_to_stop(tmp_path: Path) -> None:
    rig = Rig(tmp_path, deadline=1.5)
    for answer in rig.ask(train(recipe=Recipe(epochs=900, batch_size=2))).values():
        assert "did not answer within 1.5 s (fleet.deadline)" in absent(answer)
    quick = rig.ask(train(2, recipe=Recipe(epochs=1)))  # it is free for the next call
    assert all(isinstance(answer, Update) for answer in quick.values())


def test_a_call_is_made_anew_when_the_clouds_own_part_fails(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    rig.wires.down = 2
    assert all(isinstance(answer, Update) for answer in rig.ask(train()).values())


def test_a_link_that_fails_for_good_leaves_all_absent(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    rig.wires.down = 10**6
    assert [absent(answer) for answer in rig.ask(train()).values()] == [
        "it could not be reached: the relay is gone"
    ] * 2


def test_the_same_call_again_gives_the_same_bits(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    rig.ask(train(1))
    first = rig.ask(train(2, blob=None))["left"]
    assert isinstance(first, Update)
    bits = first.blob.sha256  # type: ignore[union-attr]
    again = Rig(tmp_path, setup={})  # the device's process died and is back; the run is the same
    again.setup = rig.setup
    again.fleet._setup = rig.setup
    second = again.ask(train(2, blob=None))["left"]
    assert isinstance(second, Update)
    assert second.blob.sha256 == bits  # type: ignore[union-attr]


def test_devices_that_begin_anew_are_told_of_the_run_again(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    rig.ask(train(1))
    for site, begun_anew in Rig(tmp_path).wires.sites.items():
        rig.wires.sites[site] = begun_anew
    rig.wires.job += 1
    assert all(isinstance(answer, Update) for answer in rig.ask(train(2)).values())


@pytest.mark.parametrize("kind", ["train", "share"])
def test_what_arrives_damaged_is_asked_for_again(tmp_path: Path, kind: str) -> None:
    harm = iter([True, False, True])

    def tamper(what: str, header: dict[str, Any], piece: bytes) -> tuple[dict[str, Any], bytes]:
        damaged = bool(piece) and next(harm, False)
        return header, bytes([piece[0] ^ 1]) + piece[1:] if damaged else piece

    task = train() if kind == "train" else Task("share", 1, 5, share=Share(fraction=1.0))
    assert isinstance(Rig(tmp_path, tamper={"left": tamper}).ask(task)["left"], Update)


def test_what_arrives_damaged_again_and_again_is_refused(tmp_path: Path) -> None:
    def tamper(what: str, header: dict[str, Any], piece: bytes) -> tuple[dict[str, Any], bytes]:
        return header, bytes(len(piece))  # zeros

    for task in (train(), Task("share", 2, 5, share=Share(fraction=1.0))):
        answers = Rig(tmp_path, tamper={"left": tamper}).ask(task)
        assert "damaged again and again" in absent(answers["left"])


def test_an_upload_that_stopped_goes_on_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "CHUNK", 64)
    monkeypatch.setattr(fleet, "CHUNK", 64)
    rig = Rig(tmp_path)
    fetched: list[tuple[int, int]] = []

    def dies(what: str, header: dict[str, Any], piece: bytes) -> tuple[dict[str, Any], bytes]:
        if what == "get":
            _, _, get, _ = rig.wires.sent[-1]
            fetched.append((get["start"], get["stop"]))
            if len(fetched) > 3:
                raise LinkError("the line is cut")
        return header, piece

    rig.wires.tamper["left"] = dies
    share = Task("share", 1, 5, share=Share(fraction=1.0))
    assert isinstance(rig.fleet._ready or rig.ask(share)["left"], Absence)
    had = max(last for _, last in fetched[:3])
    rig.wires.tamper.clear()
    rig.wires.gone.clear()
    before = len(rig.wires.sent)
    (answer,) = rig.fleet.run({"left": share})
    assert isinstance(answer, Update)
    asked = [get["start"] for _, what, get, _ in rig.wires.sent[before:] if what == "get"]
    assert min(asked) == had, "chunks that had come are not asked for again"
    assert len(decode_samples(answer.blob)) == 27  # type: ignore[arg-type]


def test_shared_samples_land_in_the_pool_with_their_origin(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    rig.ask(Task("share", 4, 5, share=Share(fraction=0.5)))
    found = [(pooled.edge, pooled.call, pooled.samples) for pooled in rig.pool.files()]
    assert found == [("left", 4, 14), ("right", 4, 14)]
    assert rig.pool.remove("left") == 14
    assert [pooled.edge for pooled in rig.pool.files()] == ["right"]


# What a device refuses


@pytest.mark.parametrize(
    ("own", "task", "said"),
    [
        (EdgeFile(), Task("share", 1, 5, share=Share(fraction=0.1)), "[share] max_fraction allows 0"),
        (
            EdgeFile(share=ShareSettings(max_fraction=0.2)),
            Task("share", 1, 5, share=Share(fraction=0.5)),
            "it was asked to share 0.5 of its samples, [share] max_fraction allows 0.2",
        ),
        (
            EdgeFile(share=ShareSettings(max_fraction=1.0, max_mb=0.0001)),
            Task("share", 1, 5, share=Share(fraction=1.0)),
            "[share] max_mb allows 0.0001",
        ),
        (EdgeFile(edge=EdgeSettings(max_epochs=1)), train(), "2 epochs were asked for, [edge] max_epochs"),
        (EdgeFile(edge=EdgeSettings(macs=10)), train(), "multiply-adds are above [edge] macs, 10"),
        (EdgeFile(edge=EdgeSettings(parameters=10)), train(), "numbers are above [edge] parameters, 10"),
        (EdgeFile(edge=EdgeSettings(max_mb=0.0005)), train(), "more than [edge] max_mb allows"),
        (ALL, train(blob=None), "holds no model yet"),
        (ALL, train(blob=Blob.of({"w": torch.ones(3)})), "Error(s) in loading state_dict"),
    ],
)
def test_the_devices_own_file_has_the_last_word(tmp_path: Path, own: EdgeFile, task: Task, said: str) -> None:
    answers = Rig(tmp_path, {"left": own}).ask(task)
    assert said in absent(answers["left"])


def test_what_may_be_shared_is_counted_over_all_runs(tmp_path: Path) -> None:
    own = {"left": EdgeFile(share=ShareSettings(max_fraction=0.5))}
    half = Task("share", 1, 5, share=Share(fraction=0.5))
    assert isinstance(Rig(tmp_path, own).ask(half)["left"], Update)
    again = Rig(tmp_path, own)
    assert isinstance(again.ask(half)["left"], Update), "the same ones again are no more"
    others = absent(again.ask(replace(half, call=2, seed=6))["left"])
    assert "samples would have left it, [share] max_fraction = 0.5 allows 14" in others


def test_a_model_of_the_users_own_is_loaded_only_where_the_device_allows_it(tmp_path: Path) -> None:
    name = "toys:DigitsCNN"
    refused = Rig(tmp_path, setup={"model": name, "options": {}}).fleet.present()["left"]
    assert f"does not allow the model '{name}' ([edge] allow)" in absent(refused)  # type: ignore[arg-type]
    for bad in ("os:system", "sheaf.core.tensor_file:Blob", "torchvision:resnet18"):
        refused = Rig(tmp_path, setup={"model": bad, "options": {}}).fleet.present()["left"]
        assert "does not allow the model" in absent(refused)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "message",
    [
        ("rm", {}),
        ("begin", {"ticket": "../../x"}),
        ("begin", {"ticket": "x", "task": {}, "extra": 1}),
        ("begin", []),
        ("put", {"sha256": "../" * 21 + "x", "size": 1, "at": 0}),
        ("put", {"sha256": "0" * 64, "size": 10**12, "at": 0}),
        ("get", {"sha256": "0" * 64, "start": 0, "stop": 1}),
        ("look", {"ticket": "never", "wait": 1e9}),
    ],
)
def test_a_malformed_message_is_refused_and_leaves_nothing(tmp_path: Path, message: tuple[str, Any]) -> None:
    rig = Rig(tmp_path)
    what, header = message
    before = sorted(tmp_path.rglob("*"))
    answer, piece = rig.wires.sites["left"].handle(what, json.dumps(header).encode(), b"x")
    assert "error" in json.loads(answer)
    assert piece == b""
    assert sorted(tmp_path.rglob("*")) == before


# What the cloud refuses


def forged(change: Callable[[dict[str, Any], dict[str, Any]], None]) -> Tamper:
    """The device's answer to its task, changed: (what it says, what it says of its tensors)."""

    def tamper(what: str, header: dict[str, Any], piece: bytes) -> tuple[dict[str, Any], bytes]:
        if header.get("answer") and "metrics" in header["answer"]:
            change(header["answer"], header.get("blob") or {})
            return header, b""
        return header, piece

    return tamper


def replaced(change: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor] | bytes]) -> Tamper:
    """Other tensors in place of the device's own."""
    content = b""

    def tamper(what: str, header: dict[str, Any], piece: bytes) -> tuple[dict[str, Any], bytes]:
        nonlocal content
        if header.get("blob"):
            made = change(dict(theta()))
            content = made if isinstance(made, bytes) else save(made)
            blob = Blob(content, hashlib.sha256(content).hexdigest(), len(content))
            update = Update("left", header["answer"]["kind"], blob, (), {}, Cost())
            header["blob"] = describe(update, content).model_dump()
            return header, b""
        if what == "get":
            return {}, content
        return header, piece

    return tamper


@pytest.mark.parametrize(
    ("tamper", "said"),
    [
        (forged(lambda answer, blob: blob.update(size=10**10)), "it claims to send 1e+04 MB where"),
        (forged(lambda answer, blob: blob.update(sha256="0" * 64)), "there is no such answer"),
        (forged(lambda answer, blob: answer.update(site="right")), "it answered as 'right'"),
        (forged(lambda answer, blob: answer.update(kind="share")), "to 'share' and was asked to train"),
        (forged(lambda answer, blob: answer.update(counts=[1, 2])), "it counted 2 classes of 3"),
        (forged(lambda answer, blob: answer.update(counts=[-1, 2, 3])), "counts.0"),
        (forged(lambda answer, blob: answer.update(run="rm")), "malformed message: run"),
        (forged(lambda answer, blob: answer["cost"].update(seconds=-1.0)), "cost.seconds"),
        (replaced(lambda own: b"not tensors"), "its tensors cannot be read"),
        (replaced(lambda own: b"\xff" * 8 + b"{}"), "its tensors cannot be read"),
    ],
)
def test_a_forged_answer_is_refused_by_name_and_the_rest_goes_on(
    tmp_path: Path, tamper: Tamper, said: str
) -> None:
    answers = Rig(tmp_path, tamper={"left": tamper}).ask(train())
    assert said in absent(answers["left"])
    assert isinstance(answers["right"], Update)


@pytest.mark.parametrize(
    ("pooled", "said"),
    [
        (samples(1, 40), "it shares 40 samples where 27 can be"),
        (replace(samples(1, 4), targets=torch.tensor([0, 1, 2, 3])), "labels outside of 0 to 2"),
        (Samples.of(torch.zeros(4, 1, 5, 5, dtype=torch.uint8), torch.zeros(4).long()), "(1, 5, 5)"),
        (Samples.of(torch.zeros(4, *SHAPE), torch.zeros(4).long()), "float32"),
    ],
)
def test_samples_that_cannot_be_the_devices_are_refused(tmp_path: Path, pooled: Samples, said: str) -> None:
    forge = replaced(lambda _: {"inputs": pooled.inputs, "labels": pooled.labels})
    rig = Rig(tmp_path, tamper={"left": forge})
    answers = rig.ask(Task("share", 1, 5, share=Share(fraction=1.0)))
    assert said in absent(answers["left"])
    assert [found.edge for found in rig.pool.files()] == ["right"]


def test_a_device_that_lies_about_what_it_got_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fleet, "CHUNK", 64)

    def tamper(what: str, header: dict[str, Any], piece: bytes) -> tuple[dict[str, Any], bytes]:
        return ({"have": -1} if what == "put" else header), piece

    answers = Rig(tmp_path, tamper={"left": tamper}).ask(train())
    assert "does not say how much it has" in absent(answers["left"])


def test_bytes_that_nobody_asked_for_are_refused(tmp_path: Path) -> None:
    def tamper(what: str, header: dict[str, Any], piece: bytes) -> tuple[dict[str, Any], bytes]:
        return header, b"x" * 100 if what == "begin" else piece

    adopt = Task("adopt", 1, 5, Blob.of(theta()))
    assert "that nobody asked for" in absent(Rig(tmp_path, tamper={"left": tamper}).ask(adopt)["left"])


def test_tensors_come_as_they_are(tmp_path: Path) -> None:
    answer = Rig(tmp_path).ask(Task("adopt", 1, 5, Blob.of(theta())))["left"]
    assert isinstance(answer, Update)
    rig = Rig(tmp_path)
    rig.ask(Task("adopt", 1, 5, Blob.of(theta())))
    collected = rig.ask(Task("collect", 2, 5))["left"]
    assert isinstance(collected, Update)
    assert collected.blob is not None
    sent = load(save(dict(theta())))
    assert all(torch.equal(value, sent[name]) for name, value in collected.params.items())
