"""A device's message handler: malformed messages."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from device_rig import Rig


@pytest.mark.parametrize(
    "message",
    [
        ("rm", {}),
        ("begin", {"ticket": "../../x"}),
        ("begin", {"ticket": "x", "task": {}, "extra": 1}),
        ("begin", []),
        ("put", {"sha256": "../" * 21 + "x", "size": 1, "offset": 0}),
        ("put", {"sha256": "0" * 64, "size": 10**12, "offset": 0}),
        ("get", {"sha256": "0" * 64, "start": 0, "stop": 1}),
        ("poll", {"ticket": "never", "wait": 1e9}),
    ],
)
def test_a_malformed_message_is_refused_and_writes_no_file(tmp_path: Path, message: tuple[str, Any]) -> None:
    rig = Rig(tmp_path)
    kind, header = message
    before = sorted(tmp_path.rglob("*"))
    reply, content = rig.link.sites["left"].handle(kind, json.dumps(header).encode(), b"x")
    assert "error" in json.loads(reply)
    assert content == b""
    assert sorted(tmp_path.rglob("*")) == before
