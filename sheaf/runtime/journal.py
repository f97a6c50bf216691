"""Every call through the seam, durably: what a killed run goes on from.

``journal.jsonl`` holds one line for each answer of a site; its tensors lie beside it in a safetensors file
that was synced to disk before the line was written. To sync takes longer than to train a small network, so
answers that come within a second are synced together, while the run goes on: a crash costs at most the
answers of that second, which are asked for again. Those that could not be had again are waited for
(``settle``).

A run that starts again walks through its method from the top and finds here what was already answered. The
last line may be half-written, if the machine went down in mid-write: it is dropped, and that answer is asked
for again. Anything else that does not fit is damage, and refused.
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
"""Seconds within which answers are synced together: to wait for the disk takes longer than to write."""


class Journal:
    """The answers of one run, in the folder ``folder``.

    Args:
        folder: made if it is not there.
        identity: what the run is (experiment, data, version); a journal with another identity is refused.

    Raises:
        RunFolderError: the folder's journal belongs to another experiment, or is damaged.
    """

    def __init__(self, folder: Path, identity: dict[str, str]) -> None:
        self._folder = folder
        self._file = folder / "journal.jsonl"
        folder.mkdir(parents=True, exist_ok=True)
        entries = self._read()
        if entries:
            self._check_identity(entries[0], identity)
        self._entries = {(entry["call"], entry["site"]): entry for entry in entries[1:]}
        self._shared: dict[tuple[int, int], Path] = {}  # by call and file
        self._append_to = self._file.open("ab")
        self._waiting: list[bytes] = []
        self._syncing: set[Future[None]] = set()  # before what waits is written
        self._lock = threading.Lock()
        self._writing = threading.Lock()  # held for as long as the disk takes, in which others may record
        self._timer: threading.Timer | None = None
        self._failed: OSError | None = None
        if not entries:
            self._append(identity)
            self.settle()

    def result(self, site: str, task: Task) -> Update | Absence | None:
        """What ``site`` answered to ``task``, that it was left out, or None where neither is settled yet.

        Raises:
            RunFolderError: the site was asked something else in that call, or its tensors are damaged.
        """
        entry = self._entries.get((task.call, site))
        if entry is None:
            return None
        if entry["task"] != task_digest(task):
            raise RunFolderError(
                f"{self._file}: call {task.call} asked {site} something else than it would be asked now; "
                "the program or its environment changed since: start the run anew in another folder"
            )
        if "absent" in entry:
            return Absence(site, entry["absent"])
        return Update.of(entry["update"], self._checked_blob(entry))

    def record(self, task: Task, update: Update) -> Update:
        """Makes an answer durable within ``TOGETHER``. Returns it with its tensors on disk, not in memory."""
        blob, lies = update.blob, None
        if blob is not None:
            blob, path = self._lying(task.call, update.site, blob)
            lies = {"sha256": blob.sha256, "size": blob.size, "file": path.name}
        entry: dict[str, Any] = {
            "call": task.call,
            "site": update.site,
            "task": task_digest(task),
            "update": update.header(),
            "blob": lies,
        }
        self._append(entry, None if update.blob is None else update.blob.syncing)
        self._entries[task.call, update.site] = entry
        return Update.of(entry["update"], blob)

    def record_absence(self, task: Task, absence: Absence) -> None:
        """Makes it durable that a call went on without a site, so that a run which is resumed does too."""
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
            self._append_to.close()

    def settle(self) -> None:
        """Makes durable at once what was recorded: the tensors, then the lines that count on them.

        Raises:
            OSError: the disk takes no more. What is in doubt is not written a second time.
        """
        with self._writing:
            with self._lock:
                if self._failed is not None:
                    raise self._failed
                if self._timer is not None:
                    self._timer.cancel()
                    self._timer = None
                waiting, self._waiting = self._waiting, []
                syncing, self._syncing = self._syncing, set()
            if not waiting:
                return
            try:
                for each in syncing:
                    each.result()
                sync(self._folder)
                self._append_to.writelines(waiting)
                self._append_to.flush()
                os.fsync(self._append_to.fileno())
            except OSError as error:
                self._failed = error
                raise

    def _settle_in_time(self) -> None:
        with contextlib.suppress(OSError):  # raised again where the next answer is recorded
            self.settle()

    def _append(self, entry: dict[str, Any], syncing: Future[None] | None = None) -> None:
        body = encode_header(entry)
        with self._lock:
            if self._failed is not None:
                raise self._failed
            self._waiting.append(b"%08x %s\n" % (zlib.crc32(body), body))
            if syncing is not None:
                self._syncing.add(syncing)
            if self._timer is None:
                self._timer = threading.Timer(TOGETHER, self._settle_in_time)
                self._timer.daemon = True
                self._timer.start()

    def _read(self) -> list[dict[str, Any]]:
        if not self._file.exists():
            return []
        content = self._file.read_bytes()
        entries, good = [], 0
        for number, line in enumerate(content.splitlines(keepends=True), start=1):
            body = line[9:].rstrip(b"\n")
            if line.endswith(b"\n") and line[:9] == b"%08x " % zlib.crc32(body):
                entries.append(json.loads(body))
                good += len(line)
            elif good + len(line) < len(content) or line.endswith(b"\n"):
                raise RunFolderError(f"{self._file}: line {number} is damaged; this run cannot be resumed")
        os.truncate(self._file, good)
        return entries

    def _check_identity(self, found: dict[str, str], identity: dict[str, str]) -> None:
        for key, value in identity.items():
            if found.get(key) != value:
                raise RunFolderError(
                    f"{self._file}: the run was started with another {key} ({found.get(key)}, now {value}); "
                    "resume it as it was started, or start anew in another folder"
                )

    def _checked_blob(self, entry: dict[str, Any]) -> Blob | None:
        if entry["blob"] is None:
            return None
        path = self._folder / entry["blob"]["file"]
        blob = Blob.at(path, entry["site"]) if path.exists() else None
        if blob is None or blob.sha256 != entry["blob"]["sha256"]:
            raise RunFolderError(f"{path}: missing or damaged; this run cannot be resumed")
        return blob

    def _lying(self, call: int, site: str, blob: Blob) -> tuple[Blob, Path]:
        """``blob`` in a file here, and the file. Those that lie in one file elsewhere share its name here."""
        path = self._folder / f"{call:06d}-{site}.safetensors"
        if blob.offset is None or blob.lies_at is None:
            return blob.write(path, named=False), path
        which = call, blob.lies_at.stat().st_ino
        if (there := self._shared.get(which)) is not None:
            return replace(blob, source=there, lies_at=there), there
        blob = blob.write(path, named=False)
        if blob.offset is not None:
            self._shared[which] = path
        return blob, path


def answered(folder: Path) -> bool:
    """Whether the journal in ``folder`` holds any answer."""
    file = folder / "journal.jsonl"
    return file.exists() and file.read_bytes().count(b"\n") > 1
