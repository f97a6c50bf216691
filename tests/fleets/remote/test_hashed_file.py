"""A file received in chunks: complete and verified, or deleted."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from sheaf.fleets.remote.hashed_file import HashedFile

CONTENT = bytes(range(256)) * 9
DIGEST = hashlib.sha256(CONTENT).hexdigest()


@pytest.mark.parametrize("size", [1, 100, len(CONTENT)])
@pytest.mark.parametrize("synced", [False, True])
def test_chunks_are_joined(tmp_path: Path, size: int, synced: bool) -> None:
    (tmp_path / "old").write_bytes(b"x" * 10_000)
    file = HashedFile(tmp_path / "old")
    for at in range(0, len(CONTENT), size):
        file.append(CONTENT[at : at + size])
    file.rename(tmp_path / "whole")
    blob = file.finish(DIGEST, synced=synced)
    assert blob is not None
    assert (tmp_path / "whole").read_bytes() == CONTENT
    assert (blob.source, blob.sha256, blob.size) == (tmp_path / "whole", DIGEST, len(CONTENT))
    assert blob.lies_at == (tmp_path / "whole" if synced else None)
    assert not (tmp_path / "old").exists()


def test_a_partial_file_is_continued(tmp_path: Path) -> None:
    HashedFile(tmp_path / "part").append(CONTENT[:1000])
    file = HashedFile(tmp_path / "part", 1000)  # after a restart of the process
    assert file.size == 1000
    file.append(CONTENT[1000:])
    assert file.finish(DIGEST) is not None


def test_a_damaged_file_is_deleted(tmp_path: Path) -> None:
    file = HashedFile(tmp_path / "part")
    file.append(CONTENT[1:])
    assert file.finish(DIGEST) is None
    assert list(tmp_path.iterdir()) == []
