"""Transfers: resumed uploads and downloads, damaged chunks, message sizes, unrequested bytes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from device_rig import Rig, absent, theta, train

from sheaf.core.recipe import Share
from sheaf.core.task import Task, Update
from sheaf.core.tensor_file import Blob
from sheaf.core.wire_format import decode_samples
from sheaf.fleets.remote import device, transfer, update_limits
from sheaf.fleets.remote.link import LinkError

SHARE = Task("share", 1, 5, share=Share(fraction=1.0))


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (device, transfer, update_limits):
        monkeypatch.setattr(module, "CHUNK", 64)


def test_tensors_that_a_device_has_are_not_uploaded_again(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    rig.run(train())
    rig.run(Task("adopt", 2, 5, Blob.of(theta())))
    sizes = [size for site, _, _, size in rig.link.sent if site == "left"]
    assert [size for size in sizes if size] == [Blob.of(theta()).size]


@pytest.mark.usefixtures("small_chunks")
def test_an_interrupted_upload_is_resumed(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    puts = 0

    def cut_off(kind: str, header: dict[str, Any], content: bytes) -> tuple[dict[str, Any], bytes]:
        nonlocal puts
        puts += kind == "put"
        if puts > 2:
            raise LinkError("the line is cut")
        return header, content

    rig.link.tamper["left"] = cut_off
    assert "the line is cut" in absent(rig.run(train())["left"])
    restarted = Rig(tmp_path)  # new processes on both sides
    restarted.fleet._setup = rig.setup
    update = restarted.run(train())["left"]
    assert isinstance(update, Update)
    sent = restarted.link.sent
    offsets = [header["offset"] for site, kind, header, _ in sent if (site, kind) == ("left", "put")]
    assert offsets[0] == 0
    assert offsets[1] >= 3 * 64, "received bytes are not sent again"
    undisturbed = Rig(tmp_path / "undisturbed").run(train())["left"]
    assert update.blob.sha256 == undisturbed.blob.sha256  # type: ignore[union-attr]


@pytest.mark.usefixtures("small_chunks")
def test_messages_shrink_for_a_connection_that_has_become_slow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A message too large for the timeout never gets a reply; its size must not be tried for ever."""
    rig = Rig(tmp_path)
    assert isinstance(rig.run(train())["left"], Update)
    assert rig.fleet._transfer._chunks["left", "put"] > 1
    call = rig.link.call

    def slow(site: str, kind: str, header: Mapping[str, Any], payload: bytes, timeout: float) -> Any:
        bytes_up = header.get("max_bytes", header.get("stop", 0) - header.get("start", 0))
        if site == "left" and len(payload) + bytes_up > 2 * 64:
            raise LinkError("timed out")
        return call(site, kind, header, payload, timeout)

    monkeypatch.setattr(rig.link, "call", slow)
    changed = Blob.of({name: value + 1 for name, value in theta().items()})
    assert "timed out" in absent(rig.run(train(2, blob=changed))["left"])
    rig.link.gone.clear()
    monkeypatch.setattr(rig.fleet._transfer, "_adapt", lambda *_: None)  # here a small chunk takes no time
    assert isinstance(rig.run(train(3, blob=changed))["left"], Update)


@pytest.mark.parametrize("task", [train(), SHARE], ids=["train", "share"])
def test_damaged_content_is_downloaded_again(tmp_path: Path, task: Task) -> None:
    damages = iter([True, False, True])

    def damage(kind: str, header: dict[str, Any], content: bytes) -> tuple[dict[str, Any], bytes]:
        damaged = bool(content) and next(damages, False)
        return header, bytes([content[0] ^ 1]) + content[1:] if damaged else content

    assert isinstance(Rig(tmp_path, tamper={"left": damage}).run(task)["left"], Update)


def test_content_that_always_arrives_damaged_is_refused(tmp_path: Path) -> None:
    def damage(kind: str, header: dict[str, Any], content: bytes) -> tuple[dict[str, Any], bytes]:
        return header, bytes(len(content))  # zeros

    for task, message in ((train(), "arrived damaged 3 times"), (SHARE, "chunks arrived damaged")):
        assert message in absent(Rig(tmp_path, tamper={"left": damage}).run(task)["left"])


@pytest.mark.usefixtures("small_chunks")
def test_an_interrupted_download_of_samples_is_resumed(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    ranges: list[tuple[int, int]] = []

    def cut_off(kind: str, header: dict[str, Any], content: bytes) -> tuple[dict[str, Any], bytes]:
        if kind == "get":
            _, _, get, _ = rig.link.sent[-1]
            ranges.append((get["start"], get["stop"]))
            if len(ranges) > 3:
                raise LinkError("the line is cut")
        return header, content

    rig.link.tamper["left"] = cut_off
    absent(rig.run(SHARE)["left"])
    received = max(stop for _, stop in ranges[:3])
    rig.link.tamper.clear()
    rig.link.gone.clear()
    before = len(rig.link.sent)
    (update,) = rig.fleet.run({"left": SHARE})
    assert isinstance(update, Update)
    starts = [get["start"] for _, kind, get, _ in rig.link.sent[before:] if kind == "get"]
    assert min(starts) == received, "received chunks are not requested again"
    assert len(decode_samples(update.blob)) == 27  # type: ignore[arg-type]


@pytest.mark.usefixtures("small_chunks")
def test_a_wrong_count_of_received_bytes_is_refused(tmp_path: Path) -> None:
    def tamper(kind: str, header: dict[str, Any], content: bytes) -> tuple[dict[str, Any], bytes]:
        return ({"received": -1} if kind == "put" else header), content

    results = Rig(tmp_path, tamper={"left": tamper}).run(train())
    assert "received = -1, not 0 to" in absent(results["left"])


def test_unrequested_bytes_are_refused(tmp_path: Path) -> None:
    def tamper(kind: str, header: dict[str, Any], content: bytes) -> tuple[dict[str, Any], bytes]:
        return header, b"x" * 100 if kind == "begin" else content

    adopt = Task("adopt", 1, 5, Blob.of(theta()))
    message = absent(Rig(tmp_path, tamper={"left": tamper}).run(adopt)["left"])
    assert message == "reply to begin has 100 bytes, at most 0 were requested"
