"""The journal of a run: a write-ahead log of the sites' answers, from which a run resumes.

``journal.jsonl`` has one line for each answer. The answer's tensors are in a safetensors file in the same
folder, which is durable before the line is written.

Fsync takes longer than training a small network. Therefore the answers of one second are synced together on
another thread, and a crash loses at most these. A resumed run asks for them again. Answers that cannot be
repeated are made durable before the method continues (``settle``).

A resumed run executes its method from the start and takes the recorded answers from here. If a crash left the
last line incomplete, it is dropped. Any other inconsistency is damage and an error.
"""

from __future__ import annotations

import contextlib
import json
import os
import threading
import zlib
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from typing import Any

from sheaf.core.atomic_io import sync
from sheaf.core.errors import RunFolderError
from sheaf.core.task import Absence, Task, Update
from sheaf.core.tensor_file import Blob
from sheaf.core.wire_format import encode_header, task_digest

TOGETHER = 1.0
"""Seconds between a recorded answer and the fsync that makes it durable, together with later ones."""


class Journal:
    """The journal of one run. A context manager that makes all answers durable at its end.

    Args:
        folder: created if it is missing.
        identity: values that identify the run, such as digests of the experiment and the data.

    Raises:
        RunFolderError: the folder's journal has another identity, or is damaged.
    """

    def __init__(self, folder: Path, identity: dict[str, str]) -> None:
        self._folder = folder
        self._file = folder / "journal.jsonl"
        folder.mkdir(parents=True, exist_ok=True)
        entries = self._read()
        if entries:
            self._check_identity(entries[0], identity)
        self._entries = {(entry["call"], entry["site"]): entry for entry in entries[1:]}
        self._shared_files: dict[tuple[int, int], Path] = {}  # (call, inode) -> link in this folder
        self._log = self._file.open("ab")
        self._pending: list[bytes] = []  # lines
        self._syncing: set[Future[None]] = set()  # fsyncs of the tensors of the pending lines
        self._lock = threading.Lock()
        self._writing = threading.Lock()  # taken for a whole write, during which other threads may record
        self._timer: threading.Timer | None = None
        self._failed: OSError | None = None
        if not entries:
            self._append(identity)
            self.settle()

    def result(self, site: str, task: Task) -> Update | Absence | None:
        """Return the recorded answer of ``site`` to ``task``, its absence, or None if neither is recorded.

        Raises:
            RunFolderError: the journal has the answer to another task of that call, or its tensors are
                damaged.
        """
        entry = self._entries.get((task.call, site))
        if entry is None:
            return None
        if entry["task"] != task_digest(task):
            raise RunFolderError(
                f"{self._file}: call {task.call} gave {site} another task than it would now, because the "
                "program or its environment has changed; start the run again in another folder"
            )
        if "absent" in entry:
            return Absence(site, entry["absent"])
        return Update.of(entry["update"], self._checked_blob(entry))

    def record(self, task: Task, update: Update) -> Update:
        """Record an answer, durable within ``TOGETHER`` seconds, and return it with its tensors on disk."""
        blob, file = update.blob, None
        if blob is not None:
            blob, path = self._store(task.call, update.site, blob)
            file = {"sha256": blob.sha256, "size": blob.size, "file": path.name}
        entry: dict[str, Any] = {
            "call": task.call,
            "site": update.site,
            "task": task_digest(task),
            "update": update.header(),
            "blob": file,
        }
        self._append(entry, None if update.blob is None else update.blob.syncing)
        self._entries[task.call, update.site] = entry
        return Update.of(entry["update"], blob)

    def record_absence(self, task: Task, absence: Absence) -> None:
        """Record that a call continued without a site, so that a resumed run does the same."""
        entry = {
            "call": task.call,
            "site": absence.site,
            "task": task_digest(task),
            "absent": absence.why,
        }
        self._append(entry)
        self._entries[task.call, absence.site] = entry

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *error: object) -> None:
        try:
            self.settle()
        finally:
            self._log.close()

    def settle(self) -> None:
        """Make all recorded answers durable: first the tensors, then the lines.

        Raises:
            OSError: writing failed now or earlier. The lines are not written a second time.
        """
        with self._writing:
            with self._lock:
                if self._failed is not None:
                    raise self._failed
                if self._timer is not None:
                    self._timer.cancel()
                    self._timer = None
                pending, self._pending = self._pending, []
                syncing, self._syncing = self._syncing, set()
            if not pending:
                return
            try:
                for future in syncing:
                    future.result()
                sync(self._folder)
                self._log.writelines(pending)
                self._log.flush()
                os.fsync(self._log.fileno())
            except OSError as error:
                self._failed = error
                raise

    def _settle_on_timer(self) -> None:
        with contextlib.suppress(OSError):  # the next ``record`` raises it
            self.settle()

    def _append(self, entry: dict[str, Any], syncing: Future[None] | None = None) -> None:
        body = encode_header(entry)
        with self._lock:
            if self._failed is not None:
                raise self._failed
            self._pending.append(b"%08x %s\n" % (zlib.crc32(body), body))
            if syncing is not None:
                self._syncing.add(syncing)
            if self._timer is None:
                self._timer = threading.Timer(TOGETHER, self._settle_on_timer)
                self._timer.daemon = True
                self._timer.start()

    def _read(self) -> list[dict[str, Any]]:
        if not self._file.exists():
            return []
        content = self._file.read_bytes()
        entries, valid = [], 0  # bytes of complete lines
        for number, line in enumerate(content.splitlines(keepends=True), start=1):
            body = line[9:].rstrip(b"\n")
            if line.endswith(b"\n") and line[:9] == b"%08x " % zlib.crc32(body):
                entries.append(json.loads(body))
                valid += len(line)
            elif valid + len(line) < len(content) or line.endswith(b"\n"):
                raise RunFolderError(
                    f"{self._file}: line {number} is damaged; the run cannot be resumed, start it again"
                )
        os.truncate(self._file, valid)
        return entries

    def _check_identity(self, recorded: dict[str, str], identity: dict[str, str]) -> None:
        for key, value in identity.items():
            if recorded.get(key) != value:
                raise RunFolderError(
                    f"{self._file}: the run was started with another {key} ({recorded.get(key)}, now "
                    f"{value}); resume it with that one, or start a run in another folder"
                )

    def _checked_blob(self, entry: dict[str, Any]) -> Blob | None:
        if entry["blob"] is None:
            return None
        path = self._folder / entry["blob"]["file"]
        blob = Blob.at(path, entry["site"]) if path.exists() else None
        if blob is None or blob.sha256 != entry["blob"]["sha256"]:
            raise RunFolderError(f"{path}: missing or damaged; the run cannot be resumed, start it again")
        return blob

    def _store(self, call: int, site: str, blob: Blob) -> tuple[Blob, Path]:
        """Store a blob in this folder and return it with its file. Blobs of one file share one link to it."""
        path = self._folder / f"{call:06d}-{site}.safetensors"
        if blob.offset is None or blob.lies_at is None:
            return blob.write(path, named=False), path
        key = call, blob.lies_at.stat().st_ino
        if (link := self._shared_files.get(key)) is not None:
            return replace(blob, source=link, lies_at=link), link
        blob = blob.write(path, named=False)
        if blob.offset is not None:
            self._shared_files[key] = path
        return blob, path


def answered(folder: Path) -> bool:
    """Return whether the journal in ``folder`` has any answer."""
    file = folder / "journal.jsonl"
    return file.exists() and file.read_bytes().count(b"\n") > 1
