"""Durable writing: a file is complete or absent, and no temporary file is left behind."""

from __future__ import annotations

import os
import threading
from concurrent.futures import Future
from pathlib import Path

import pytest

from sheaf.core.atomic_io import sync_soon, write_durably


def test_a_write_replaces_the_file_and_leaves_no_other(tmp_path: Path) -> None:
    write_durably(tmp_path / "x", b"first and longer")
    write_durably(tmp_path / "x", b"second")
    assert (tmp_path / "x").read_bytes() == b"second"
    assert [path.name for path in tmp_path.iterdir()] == ["x"]


def test_a_failed_write_keeps_the_old_file(tmp_path: Path) -> None:
    write_durably(tmp_path / "x", b"first")
    with pytest.raises(TypeError):
        write_durably(tmp_path / "x", "no bytes")  # type: ignore[arg-type]
    assert (tmp_path / "x").read_bytes() == b"first"


def test_a_temporary_file_of_a_killed_write_is_overwritten(tmp_path: Path) -> None:
    (tmp_path / "x.part").write_bytes(b"half of a longer content that was never finished")
    write_durably(tmp_path / "x", b"whole")
    assert (tmp_path / "x").read_bytes() == b"whole"
    assert [path.name for path in tmp_path.iterdir()] == ["x"]


def test_a_file_may_be_deleted_before_its_fsync(tmp_path: Path) -> None:
    write_durably(tmp_path / "x", b"some")
    syncing = sync_soon(tmp_path / "x", tmp_path)
    (tmp_path / "x").unlink()
    assert syncing.result(10) is None


def test_sync_soon_blocks_while_too_many_fsyncs_are_queued(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_durably(tmp_path / "x", b"some")
    released, fsync = threading.Event(), os.fsync

    def slow(handle: int) -> None:
        released.wait(10)
        fsync(handle)

    monkeypatch.setattr("sheaf.core.atomic_io.PENDING_FSYNCS", threading.Semaphore(3))
    monkeypatch.setattr(os, "fsync", slow)
    asked: list[Future[None]] = []
    asking = threading.Thread(target=lambda: asked.extend(sync_soon(tmp_path / "x") for _ in range(5)))
    asking.start()
    asking.join(0.3)
    assert asking.is_alive()
    released.set()
    asking.join()
    assert [each.result(10) for each in asked] == [None] * 5
