"""Tensors on their way: however they come in pieces, they are what was sent, or there is no file."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from sheaf.fleets.remote.hashed_file import Arriving

CONTENT = bytes(range(256)) * 9
DIGEST = hashlib.sha256(CONTENT).hexdigest()


@pytest.mark.parametrize("size", [1, 100, len(CONTENT)])
@pytest.mark.parametrize("synced", [False, True])
def test_what_comes_in_pieces_is_there_whole(tmp_path: Path, size: int, synced: bool) -> None:
    (tmp_path / "room").write_bytes(b"x" * 10_000)  # of no use any more
    arriving = Arriving(tmp_path / "room")
    for at in range(0, len(CONTENT), size):
        arriving.add(CONTENT[at : at + size])
    arriving.rename(tmp_path / "whole")
    blob = arriving.finish(DIGEST, synced=synced)
    assert blob is not None
    assert (tmp_path / "whole").read_bytes() == CONTENT
    assert (blob.source, blob.sha256, blob.size) == (tmp_path / "whole", DIGEST, len(CONTENT))
    assert blob.lies_at == (tmp_path / "whole" if synced else None)
    assert not (tmp_path / "room").exists()


def test_what_came_before_is_not_needed_again(tmp_path: Path) -> None:
    Arriving(tmp_path / "part").add(CONTENT[:1000])
    after = Arriving(tmp_path / "part", 1000)  # the process died, and is back
    assert after.size == 1000
    after.add(CONTENT[1000:])
    assert after.finish(DIGEST) is not None


def test_what_is_damaged_leaves_nothing(tmp_path: Path) -> None:
    arriving = Arriving(tmp_path / "part")
    arriving.add(CONTENT[1:])
    assert arriving.finish(DIGEST) is None
    assert list(tmp_path.iterdir()) == []
