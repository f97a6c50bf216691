"""Messages of a fleet: those of a cloud to a device, and the replies of a device to its cloud."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

from device_rig import CLASSES, SHAPE, SITES, Rig, samples, theta, train
from fuzz.engine import (
    ByteEdits,
    Harness,
    ValueEdits,
    byte_edits,
    check_message,
    edit_bytes,
    edit_value,
    mutated,
    mutated_values,
    value_edits,
)
from hypothesis import strategies as st

from sheaf.codecs.topk import TopK
from sheaf.core.coding import Coding
from sheaf.core.recipe import Share
from sheaf.core.task import Absence, Task
from sheaf.core.tensor_file import Blob
from sheaf.data.device_data import save_device_data
from sheaf.fleets.remote.device import EdgeSite
from sheaf.fleets.remote.device_settings import EdgeFile, EdgeSettings, ShareSettings
from sheaf.fleets.remote.messages import State

Message = tuple[str, bytes, bytes]
"""(kind, header, payload)."""

OWN = EdgeFile(edge=EdgeSettings(max_epochs=3, max_mb=1.0), share=ShareSettings(max_fraction=0.5))
WAIT = 60.0
"""Seconds in which an operation must end."""


def setup() -> dict[str, Any]:
    """Return the header of a run's set-up."""
    return {
        "run": 32 * "0",
        "seed": 3,
        "model": "mlp",
        "options": {"hidden": 8},
        "classes": list(CLASSES),
        "shape": list(SHAPE),
        "mean": [0.5],
        "std": [0.25],
        "held_out": 0.1,
        "form": {"seconds": 1.0, "test_share": 0.2},
    }


def messages() -> list[tuple[str, dict[str, Any], bytes]]:
    """Return valid messages to a device."""
    blob = Blob.of(theta())
    assert isinstance(blob.source, bytes)
    put = {"sha256": blob.sha256, "size": blob.size}
    tasks = [
        train(),
        Task("evaluate", 1, 5, blob),
        Task("share", 1, 5, None, share=Share(fraction=0.3)),
        Task("adopt", 1, 5, blob),
        train(coding=Coding(upload=TopK(), reference=1)),
    ]
    begins = [
        {"ticket": f"run-{task.kind}", "wait": 0.1, "task": task.header(), "put": put if task.blob else None}
        for task in tasks
    ]
    return [
        ("begin", {"ticket": "set-up", "wait": 0.1, "setup": setup()}, b""),
        *[("begin", begin, blob.source if begin["put"] else b"") for begin in begins],
        ("poll", {"ticket": "run-train", "wait": 0.1, "max_bytes": 1000}, b""),
        ("put", put | {"offset": 0}, blob.source[:100]),
        ("get", {"sha256": blob.sha256, "start": 0, "stop": 10}, b""),
    ]


def read_message(message: Message) -> None:
    """Send a valid set-up to a device, then the message, and wait for the end of its operation."""
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder, "own.safetensors")
        save_device_data(data, samples(1), samples(9, 6), CLASSES)
        site = EdgeSite("left", data, OWN, Path(folder, "state"))
        begin = {"ticket": "first", "setup": setup()}
        site.handle("begin", json.dumps(begin).encode(), b"")
        assert finish(site).state == "done"
        kind, header, payload = message
        reply, content = site.handle(kind, header, payload)
        answer = json.loads(reply)
        assert isinstance(content, bytes)
        if "error" in answer:
            check_message(answer["error"])
        state = finish(site)
        if state.state == "refused":
            check_message(state.reason)
            assert "unexpected error" not in state.reason, message


def finish(site: EdgeSite) -> State:
    """Return the state of a device's operation at its end."""
    operation = site._operation
    assert operation is not None
    assert operation.finished.wait(WAIT), "the operation does not end"
    return operation.state


def read_reply(change: tuple[int, ValueEdits, ByteEdits]) -> None:
    """Run a task on two devices, of which one changes one of its replies."""
    number, header_edits, payload_edits = change
    replies = 0

    def tamper(kind: str, reply: dict[str, Any], content: bytes) -> tuple[dict[str, Any], bytes]:
        nonlocal replies
        replies += 1
        if replies != number + 1:
            return reply, content
        return edit_value(reply, header_edits), edit_bytes(content, payload_edits)

    with tempfile.TemporaryDirectory() as folder:
        rig = Rig(Path(folder), tamper={SITES[0]: tamper}, deadline=2.0)
        answers = rig.run(train())
        for site in rig.link.sites.values():
            if site._operation is not None:
                finish(site)
        assert set(answers) == set(SITES)
        for answer in answers.values():
            if isinstance(answer, Absence):
                check_message(answer.why)
            elif answer.blob is not None:
                answer.blob.open()


def _send(kind: str, header: bytes, payload: bytes) -> Message:
    return kind, header, payload


_to_device = st.one_of(
    [
        st.one_of(
            st.builds(
                _send,
                st.just(kind),
                mutated_values([header]).map(lambda value: json.dumps(value).encode()),
                st.just(payload),
            ),
            st.builds(_send, st.just(kind), mutated([json.dumps(header).encode()]), mutated([payload])),
        )
        for kind, header, payload in messages()
    ]
)
TO_DEVICE = Harness(_to_device, read_message)
FROM_DEVICE = Harness(st.tuples(st.integers(0, 6), value_edits, byte_edits), read_reply)
