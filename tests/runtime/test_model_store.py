"""What a site holds, and held before the call that is asked again."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sheaf.core.tensor_file import Blob, write_together
from sheaf.runtime.model_store import ModelStore


def blob(value: float) -> Blob:
    return Blob.of({"w": torch.tensor([value])})


def value(found: Blob | None) -> float:
    assert found is not None
    return float(found.open()["w"])


@settings(max_examples=30)
@given(st.lists(st.integers(1, 50), min_size=1, max_size=8, unique=True).map(sorted), st.data())
def test_a_call_starts_from_the_call_before_it_however_often_it_is_asked(
    calls: list[int], data: st.DataObject
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        latest = None
        for call in calls:
            for attempt in range(data.draw(st.integers(1, 3))):
                held = ModelStore(Path(folder), "a")  # a site that was restarted reads what lies on its disk
                found = held.before(call)
                assert (None if found is None else value(found)) == latest
                held.keep(call, blob(call + attempt / 10))
            latest = value(ModelStore(Path(folder), "a").before(call + 1))
            assert latest == value(Blob.at(Path(folder) / f"a.held-{call:06d}.safetensors"))
        assert len(list(Path(folder).iterdir())) == min(2, len(calls))


def test_the_files_that_remain(tmp_path: Path) -> None:
    held = ModelStore(tmp_path / "made" / "here", "a")
    assert held.before(1) is None
    for call in (2, 5, 9):
        held.keep(call, blob(call))
    assert sorted(path.name for path in (tmp_path / "made" / "here").iterdir()) == [
        "a.held-000005.safetensors",
        "a.held-000009.safetensors",
    ]
    assert value(held.before(9)) == 5
    assert value(held.before(10)) == 9


def test_what_a_killed_write_left_is_not_held(tmp_path: Path) -> None:
    held = ModelStore(tmp_path, "a")
    held.keep(1, blob(1))
    (tmp_path / "a.held-000002.safetensors.part").write_bytes(b"half")
    assert value(held.before(3)) == 1


def test_more_than_a_million_calls_stay_in_order(tmp_path: Path) -> None:
    held = ModelStore(tmp_path, "a")
    for call in (999_999, 1_000_000, 1_000_001):
        held.keep(call, blob(call))
    assert value(held.before(1_000_001)) == 1_000_000


def test_the_two_newest_copies_are_remembered(tmp_path: Path) -> None:
    held = ModelStore(tmp_path, "a")
    with pytest.raises(ValueError, match="the site holds no model to remember"):
        held.remember(1)
    for call in (1, 3, 5):
        held.keep(call, blob(float(call)))
        held.remember(call + 1)
        held.remember(call + 1)  # asked again: what was held when the call began
    assert held.remembered(2) is None
    assert [value(ModelStore(tmp_path, "a").remembered(call)) for call in (4, 6)] == [3.0, 5.0]


def test_sites_that_share_a_folder_and_a_file_hold_their_own(tmp_path: Path) -> None:
    sites = "a", "a.b", "c"
    held = {site: ModelStore(tmp_path, site) for site in sites}
    for call in (1, 2, 3):
        blobs = {site: blob(10 * call + k) for k, site in enumerate(sites)}
        written = write_together(tmp_path / "whole", {site: blobs[site].open() for site in sites})
        for site in sites:
            kept = held[site].keep(call, written[site], named=False)
            assert kept.sha256 == blobs[site].sha256
            assert value(kept) == value(blobs[site])
        (tmp_path / "whole").unlink()
    held["c"].keep(4, blob(5))
    for k, site in enumerate(sites):
        assert value(held[site].before(4)) == value(ModelStore(tmp_path, site).before(4)) == 30 + k
        held[site].remember(5)
        assert value(ModelStore(tmp_path, site).remembered(5)) == (5 if site == "c" else 30 + k)
    assert ModelStore(tmp_path, "b").before(9) is None
