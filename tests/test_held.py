"""What a site holds, and held before the call that is asked again."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from sheaf.blob import Blob
from sheaf.held import Held


def blob(value: float) -> Blob:
    return Blob.of({"w": torch.tensor([value])})


def value(path: Path | None) -> float:
    assert path is not None
    return float(load_file(path)["w"])


@settings(max_examples=30)
@given(st.lists(st.integers(1, 50), min_size=1, max_size=8, unique=True).map(sorted), st.data())
def test_a_call_starts_from_the_call_before_it_however_often_it_is_asked(
    calls: list[int], data: st.DataObject
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        latest = None
        for call in calls:
            for attempt in range(data.draw(st.integers(1, 3))):
                held = Held(Path(folder))  # a site that was restarted reads what lies on its disk
                found = held.before(call)
                assert (None if found is None else value(found)) == latest
                held.keep(call, blob(call + attempt / 10))
            latest = value(Held(Path(folder)).before(call + 1))
            assert latest == value(Path(folder) / f"held-{call:06d}.safetensors")
        assert len(list(Path(folder).iterdir())) == min(2, len(calls))


def test_the_files_that_remain(tmp_path: Path) -> None:
    held = Held(tmp_path / "made" / "here")
    assert held.before(1) is None
    for call in (2, 5, 9):
        held.keep(call, blob(call))
    assert sorted(path.name for path in (tmp_path / "made" / "here").iterdir()) == [
        "held-000005.safetensors",
        "held-000009.safetensors",
    ]
    assert value(held.before(9)) == 5
    assert value(held.before(10)) == 9


def test_what_a_killed_write_left_is_not_held(tmp_path: Path) -> None:
    held = Held(tmp_path)
    held.keep(1, blob(1))
    (tmp_path / "held-000002.safetensors.part").write_bytes(b"half")
    assert value(held.before(3)) == 1


def test_more_than_a_million_calls_stay_in_order(tmp_path: Path) -> None:
    held = Held(tmp_path)
    for call in (999_999, 1_000_000, 1_000_001):
        held.keep(call, blob(call))
    assert value(held.before(1_000_001)) == 1_000_000


def test_the_two_newest_copies_are_remembered(tmp_path: Path) -> None:
    held = Held(tmp_path)
    with pytest.raises(ValueError, match="nothing to remember"):
        held.remember(1)
    for call in (1, 3, 5):
        held.keep(call, blob(float(call)))
        held.remember(call + 1)
        held.remember(call + 1)  # asked again: what was held when the call began
    assert not held.remembered(2).exists()
    assert [value(Held(tmp_path).remembered(call)) for call in (4, 6)] == [3.0, 5.0]
