"""A remote fleet: tasks, progress, absences, retries and restarts."""

from __future__ import annotations

import signal
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from device_rig import SITES, Rig, absent, theta, train
from safetensors.torch import load, save

from sheaf.core.recipe import Recipe
from sheaf.core.task import Task, Update
from sheaf.core.tensor_file import Blob
from sheaf.fleets.remote.device_settings import EdgeFile, EdgeSettings
from sheaf.fleets.remote.messages import DeviceInfo, State


def test_devices_report_their_class_counts_and_width(tmp_path: Path) -> None:
    own = {"left": EdgeFile(edge=EdgeSettings(width=0.25))}
    devices = Rig(tmp_path, own).fleet.devices()
    assert list(devices) == list(SITES)
    for site, width in (("left", 0.25), ("right", 1.0)):
        device = devices[site]
        assert isinstance(device, DeviceInfo)
        assert (sum(device.counts), len(device.counts), device.width) == (27, 3, width)


def test_a_task_returns_an_update_and_reports_progress(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    updates = rig.run(train(recipe=Recipe(epochs=100, batch_size=8)))
    for site, update in updates.items():
        assert isinstance(update, Update)
        assert update.params.keys() == theta().keys()
        assert len(update.metrics["losses"]) == 100
        assert any(name == site for name, _ in rig.steps)
    kinds = [kind for site, kind, *_ in rig.link.sent if site == "left"]
    assert kinds.count("begin") == 2  # the set-up and the task


def test_tensors_are_not_changed_by_the_transfer(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    rig.run(Task("adopt", 1, 5, Blob.of(theta())))
    collected = rig.run(Task("collect", 2, 5))["left"]
    assert isinstance(collected, Update)
    assert collected.blob is not None
    sent = load(save(dict(theta())))
    assert all(torch.equal(value, sent[name]) for name, value in collected.params.items())


def test_a_device_that_missed_remember_chooses_the_received_model(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    rig.run(Task("adopt", 1, 5, Blob.of(theta())))
    rig.link.gone.add("left")
    assert absent(rig.run(Task("remember", 2, 5))["left"]) == "not connected"
    rig.link.gone.clear()
    rig.run(Task("adopt", 3, 5, Blob.of({name: value + 1 for name, value in theta().items()})))
    updates = rig.run(Task("choose", 4, 5, since=2, mixtures=(0.5,)))
    mixtures = {site: update.metrics["mixtures"] for site, update in updates.items()}  # type: ignore[union-attr]
    assert mixtures == {"left": [1.0], "right": [0.0, 0.5]}


def test_a_device_that_is_not_connected_is_absent(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    rig.link.gone.add("left")
    results = rig.run(train())
    assert absent(results["left"]) == "not connected"
    assert isinstance(results["right"], Update)


def test_a_device_that_dies_is_absent_after_the_timeout_and_back_in_the_next_call(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    rig.run(train(1))
    rig.link.dead.add("left")
    results = rig.run(train(2))
    assert absent(results["left"]).startswith("no reply for 0.6 s")
    assert isinstance(results["right"], Update)
    rig.link.dead.clear()
    rig.link.gone.clear()
    assert all(isinstance(result, Update) for result in rig.run(train(3)).values())


def test_a_slow_device_is_cancelled_at_the_deadline(tmp_path: Path) -> None:
    rig = Rig(tmp_path, deadline=4.0)  # on a busy machine the next call's training takes seconds
    for result in rig.run(train(recipe=Recipe(epochs=1000, batch_size=1))).values():
        assert "no update within 4 s; raise fleet.deadline" in absent(result)
    quick = rig.run(train(2, recipe=Recipe(epochs=1)))  # the device is free for the next call
    assert all(isinstance(result, Update) for result in quick.values())


def test_an_interrupt_ends_the_set_up_of_devices(tmp_path: Path) -> None:
    """Otherwise the command ends after the deadline, by default an hour."""
    polls = []

    def working(kind: str, reply: dict[str, Any], content: bytes) -> tuple[dict[str, Any], bytes]:
        polls.append(kind)
        if len(polls) == 3:
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGUSR1)
        time.sleep(0.05)
        return State(state="working").model_dump(mode="json"), b""

    default = signal.signal(signal.SIGUSR1, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            Rig(tmp_path, tamper={"left": working}, deadline=5.0).fleet.devices()
    finally:
        signal.signal(signal.SIGUSR1, default)
    assert len(polls) < 10


def test_a_call_is_repeated_when_the_clouds_side_of_the_link_fails(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    rig.link.down = 2
    assert all(isinstance(result, Update) for result in rig.run(train()).values())


def test_a_link_that_stays_down_leaves_all_devices_absent(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    rig.link.down = 10**6
    reasons = [absent(result) for result in rig.run(train()).values()]
    assert reasons == ["unreachable: the relay is gone"] * 2


def test_a_repeated_call_returns_the_same_bits(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    rig.run(train(1))
    first = rig.run(train(2, blob=None))["left"]
    assert isinstance(first, Update)
    bits = first.blob.sha256  # type: ignore[union-attr]
    restarted = Rig(tmp_path)  # new processes on the devices; the run is the same
    restarted.fleet._setup = rig.setup
    second = restarted.run(train(2, blob=None))["left"]
    assert isinstance(second, Update)
    assert second.blob.sha256 == bits  # type: ignore[union-attr]


def test_devices_in_a_new_job_are_set_up_again(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    rig.run(train(1))
    for site, restarted in Rig(tmp_path).link.sites.items():
        rig.link.sites[site] = restarted
    rig.link.job += 1
    assert all(isinstance(result, Update) for result in rig.run(train(2)).values())


def test_a_restarted_device_is_set_up_again_after_it_was_dead(tmp_path: Path) -> None:
    """In the same job too: ``RemoteFleet`` must forget the set-up of a device that did not reply."""
    rig = Rig(tmp_path)
    rig.run(train(1))
    rig.link.dead.add("left")
    assert absent(rig.run(train(2))["left"]).startswith("no reply")
    rig.link.sites["left"] = Rig(tmp_path).link.sites["left"]
    rig.link.dead.clear()
    rig.link.gone.clear()
    assert all(isinstance(result, Update) for result in rig.run(train(3)).values())
