"""The journal of a run: a write-ahead log of answers and merges, from which a run resumes.

``journal.jsonl`` has one line for each answer and each merge (``journal_log``). Tensors are in safetensors
files in the same folder (``journal_files``), which are durable before the line is written. An update of an
edge in this process has no file if training it again is cheaper (``worker_group``): a resumed run trains it
again if something opens it.

Fsync takes longer than training a small network. Therefore the lines of one second are synced together on
another thread, and a crash loses at most these. A resumed run asks for them again. Answers that cannot be
repeated are made durable before the method continues (``settle``).

A resumed run executes its method from the start and takes recorded answers and merges from here. Their
tensors are read when something opens them. Files that no object can open any more are deleted once all lines
that were recorded until then are durable; docs/concepts.md has the argument. If a crash left the last line
incomplete, it is dropped. Any other inconsistency is damage and an error.
"""

from __future__ import annotations

import contextlib
import os
import threading
import weakref
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from sheaf.core.atomic_io import sync
from sheaf.core.errors import RunFolderError
from sheaf.core.lazy_blob import LazyBlob, TensorBlob
from sheaf.core.stored_params import StoredParams
from sheaf.core.task import Absence, Task, Times, Update
from sheaf.core.tensor_file import Blob
from sheaf.core.types import Params
from sheaf.core.wire_format import encode_header, encoded_header, task_digest
from sheaf.runtime.journal_files import FileEntry, JournalFiles
from sheaf.runtime.journal_log import line_of, read_line, read_lines
from sheaf.runtime.leases import TensorLease

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
        self._files = JournalFiles(folder)
        self._positions: dict[tuple[int, str | int], int] = {}  # (call, site or number of a merge) -> line
        self._kept: dict[tuple[int, str], FileEntry] = {}  # tensors that got a file after their line
        self._recent: dict[tuple[int, str | int], dict[str, Any]] = {}  # entries of the latest call
        first = self._read(identity)
        self._log = self._file.open("ab")
        self._pending: list[bytes] = []  # lines
        self._syncing: set[Future[None]] = set()  # fsyncs of the tensors of the pending lines
        self._unwritten: list[weakref.ref[TensorLease]] = []  # merges of the pending lines
        self._lock = threading.Lock()
        self._writing = threading.Lock()  # taken for a whole write, during which other threads may record
        self._timer: threading.Timer | None = None
        self._failed: OSError | None = None
        if first:
            self._append(encode_header(identity))
            self.settle()

    def internally(self) -> AbstractContextManager[None]:
        """Open tensors inside the block for a call or a merge, whose result is recorded; see ``Leases``."""
        return self._files.leases.internally()

    def result(
        self, site: str, task: Task, again: Callable[[], Blob] | None = None
    ) -> Update | Absence | None:
        """Return the recorded answer of ``site`` to ``task``, its absence, or None if neither is recorded.

        Args:
            site: the site's name.
            task: its task.
            again: returns the model by training again, for an answer whose tensors have no file.

        Raises:
            RunFolderError: the journal has the answer to another task of that call.
        """
        entry = self._entry(task.call, site)
        if entry is None:
            return None
        if entry["task"] != task_digest(task):
            raise RunFolderError(
                f"{self._file}: call {task.call} gave {site} another task than it would now, because the "
                "program or its environment has changed; start the run again in another folder"
            )
        times = Times(*entry["times"]) if "times" in entry else None
        if "absent" in entry:
            return Absence(site, entry["absent"], times)
        file, blob = self._kept.get((task.call, site), entry["blob"]), None
        if file is not None and "file" in file:
            blob = self._files.load(file, site)
        elif file is not None:
            assert again is not None
            blob = LazyBlob(again, file["size"], lease=self._volatile(task.call, site))
        return Update.of(entry["update"], blob, times)

    def flaw(self, site: str, call: int) -> str | None:
        """Return why the recorded answer of the latest call cannot be used, or None if it can."""
        flaw: str | None = self._recent[call, site].get("flaw")
        return flaw

    def record(self, task: Task, update: Update, flaw: str | None = None) -> Update:
        """Record an answer, durable within ``TOGETHER`` seconds, and return it.

        Its tensors are in a file of the journal, except a train task's ``TensorBlob``.
        """
        blob, syncing = update.blob, None
        file: FileEntry | None = None
        if isinstance(blob, TensorBlob) and update.kind == "train":
            file = {"size": blob.size}
            blob = blob.leased(self._volatile(task.call, update.site))
        elif blob is not None:
            stored = self._files.store(task.call, update.site, blob)
            blob, file, syncing = stored.blob, stored.entry, stored.syncing
        entry: dict[str, Any] = {
            "blob": file,
            "call": task.call,
            "site": update.site,
            "task": task_digest(task),
        }
        if flaw is not None:
            entry["flaw"] = flaw
        if update.times is not None:
            entry["times"] = [*vars(update.times).values()]
        header = encoded_header(update)
        self._append(encode_header(entry)[:-1] + b',"update":' + header + b"}", syncing)
        self._remember((task.call, update.site), entry | {"update": update.header()})
        recorded = replace(update, blob=blob)
        vars(recorded).update(vars(update) | {"blob": blob})  # with its encoded header
        return recorded

    def record_absence(self, task: Task, absence: Absence) -> None:
        """Record that a call continued without a site, so that a resumed run does the same."""
        entry: dict[str, Any] = {
            "call": task.call,
            "site": absence.site,
            "task": task_digest(task),
            "absent": absence.why,
        }
        if absence.times is not None:
            entry["times"] = [*vars(absence.times).values()]
        self._append(encode_header(entry))
        self._remember((task.call, absence.site), entry)

    def keep(self, updates: Iterable[Update]) -> None:
        """Keep the files of recorded answers until the run ends."""
        for update in updates:
            if update.blob is not None and isinstance(update.blob.lease, TensorLease):
                update.blob.lease.pin()

    def merged(self, call: int, number: int, of: str) -> StoredParams | None:
        """Return the recorded result of the merge with this number after a call, or None.

        Args:
            call: the latest call.
            number: of the merge after this call, from 0.
            of: describes the merge and its updates.

        Raises:
            RunFolderError: the journal has the result of another merge.
        """
        entry = self._entry(call, number)
        if entry is None:
            return None
        if entry["of"] != of:
            raise RunFolderError(
                f"{self._file}: after call {call} the run merged {entry['of']}, now it would merge {of}, "
                "because the program has changed; start the run again in another folder"
            )
        return StoredParams(self._files.load(entry["blob"], None))

    def record_merged(self, call: int, number: int, of: str, params: Params) -> StoredParams:
        """Record the result of a merge. Its file is written with its line, if something still needs it."""
        file, lease = self._files.plan(f"{call:06d}.merge-{number}.safetensors", Blob.of(params))
        entry = {"call": call, "merge": number, "of": of, "blob": file}
        self._append(encode_header(entry), unwritten=lease)
        self._remember((call, number), entry)
        return StoredParams(self._files.load(file, None), params)

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *error: object) -> None:
        try:
            self.settle(delete=not any(error))  # a resumed run needs what a failing one released
        finally:
            self._log.close()

    def settle(self, delete: bool = True) -> None:
        """Make all recorded answers durable: first the tensors, then the lines. Then delete obsolete files.

        Args:
            delete: False keeps the obsolete files.

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
                # What was released until now is needed by no line that is not in this batch.
                released = self._files.leases.take_released()
                unwritten = [lease for ref in self._unwritten if (lease := ref()) is not None]
                pending, self._pending, self._unwritten = self._pending, [], []
                syncing, self._syncing = self._syncing, set()
            try:
                if pending:
                    self._write(pending, syncing, unwritten)
                for path in released if delete else ():
                    path.unlink(missing_ok=True)
            except OSError as error:
                self._failed = error
                raise

    def _write(
        self, lines: list[bytes], syncing: Iterable[Future[None]], unwritten: Iterable[TensorLease]
    ) -> None:
        self._files.write(unwritten)
        for future in syncing:
            future.result()
        sync(self._folder)
        self._log.writelines(lines)
        self._log.flush()
        os.fsync(self._log.fileno())

    def _settle_on_timer(self) -> None:
        with contextlib.suppress(OSError):  # the next ``record`` raises it
            self.settle()

    def _append(
        self,
        entry: bytes,
        syncing: Future[None] | None = None,
        unwritten: TensorLease | None = None,
    ) -> None:
        line = line_of(entry)
        with self._lock:
            if self._failed is not None:
                raise self._failed
            self._pending.append(line)
            if syncing is not None:
                self._syncing.add(syncing)
            if unwritten is not None:
                self._unwritten.append(weakref.ref(unwritten))
            if self._timer is None:
                self._timer = threading.Timer(TOGETHER, self._settle_on_timer)
                self._timer.daemon = True
                self._timer.start()

    def _read(self, identity: dict[str, str]) -> bool:
        """Read the positions of all entries; return whether the log is new."""
        first = True
        for position, entry in read_lines(self._file):
            if first:
                self._check_identity(entry, identity)
            elif "kept" in entry:
                self._kept[entry["call"], entry["site"]] = entry["kept"]
            else:
                name: str | int = entry["site"] if "site" in entry else entry["merge"]
                self._positions[entry["call"], name] = position
            first = False
        return first

    def _check_identity(self, recorded: dict[str, str], identity: dict[str, str]) -> None:
        for key, value in identity.items():
            if recorded.get(key) != value:
                raise RunFolderError(
                    f"{self._file}: the run was started with another {key} ({recorded.get(key)}, now "
                    f"{value}); resume it with that one, or start a run in another folder"
                )

    def _entry(self, call: int, name: str | int) -> dict[str, Any] | None:
        """Return the entry of a site's answer or of a merge."""
        if (call, name) not in self._recent and (call, name) in self._positions:
            self._remember((call, name), read_line(self._file, self._positions[call, name]))
        return self._recent.get((call, name))

    def _remember(self, key: tuple[int, str | int], entry: dict[str, Any]) -> None:
        """Hold an entry in memory; those of other calls are dropped, as calls are asked in order."""
        if self._recent and next(iter(self._recent))[0] != key[0]:
            self._recent.clear()
            self._files.forget_shared()
        self._recent[key] = entry

    def _volatile(self, call: int, site: str) -> TensorLease:
        return self._files.leases.volatile(partial(self._keep, call, site))

    def _keep(self, call: int, site: str, blob: Blob) -> Blob:
        """Store tensors without a file, which the method has opened, unless the journal is closed."""
        if self._log.closed:
            return blob
        with self.internally():
            stored = self._files.store(call, site, blob)
        self._files.leases.of(stored.path).pin()
        self._append(encode_header({"call": call, "site": site, "kept": stored.entry}), stored.syncing)
        return stored.blob


def answered(folder: Path) -> bool:
    """Return whether the journal in ``folder`` has any answer."""
    file = folder / "journal.jsonl"
    return file.exists() and file.read_bytes().count(b"\n") > 1
