"""A fleet of devices elsewhere: tasks and tensors go down, answers come up, and what fails is an absence.

Says nothing of how messages travel: that is the ``Link``'s matter (``nvflare.py``).
"""

from __future__ import annotations

import hashlib
import logging
import math
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any, Protocol

import safetensors
import torch
from safetensors import SafetensorError

from sheaf.core.atomic_io import write_durably
from sheaf.core.errors import FleetError
from sheaf.core.recipe import Share
from sheaf.core.task import Absence, Progress, Task, Update
from sheaf.core.tensor_file import Blob
from sheaf.fleets.remote.hashed_file import Arriving, Piece
from sheaf.fleets.remote.memory_trim import give_back
from sheaf.fleets.remote.messages import CHUNK, MOST, BlobHeader, Present, Setup, State, check, decode_update

logger = logging.getLogger("sheaf")

PATIENCE = 10.0
"""Seconds without any sign of life after which a device is taken for dead; with ``ATTEMPT``, at most 15."""

ATTEMPT = 5.0
"""Seconds that one message may take before it is sent again."""

LOOK = 1.0
"""Seconds that a device may wait with its answer, for what it does to be done."""

SLACK = 1 << 20
"""Bytes by which an answer may be larger than what was asked for: names and shapes."""

TRIES = 3
"""How often a call is made anew when it was the cloud's own part that failed."""


class LinkError(Exception):
    """A message was not answered in time."""


class LinkDownError(LinkError):
    """The cloud's own part of the link is gone: no device can be reached until it is made anew."""


class Link(Protocol):
    """How messages travel to the devices of a fleet."""

    @property
    def job(self) -> int:
        """Counts up when ``gather`` has the devices begin anew, knowing nothing of any run."""
        ...

    def gather(self, sites: Sequence[str]) -> set[str]:
        """Makes ready to call those of ``sites`` that can be reached, and says which these are."""
        ...

    def call(
        self, site: str, what: str, header: Mapping[str, Any], payload: Piece, timeout: float
    ) -> tuple[dict[str, Any], Piece]:
        """Sends one message and returns the answer.

        Raises:
            LinkError: there was none in ``timeout`` seconds.
        """
        ...

    def lose(self, site: str) -> None:
        """Takes note that a device no longer answers."""
        ...


class RemoteFleet:
    """Devices elsewhere.

    Args:
        sites: the devices, in the order in which sums run.
        link: how they are reached.
        setup: what a device is told of the run before its first task.
        largest: how many bytes the tensors of an answer to a task can be; samples aside.
        sample: (C, H, W) and type of one example.
        deadline: seconds that a device may take for a call.
        folder: where answers lie until they are journaled.
        progress: told of every training step that is heard of.
        arrived: told of every ``share`` that came, with its samples.
    """

    def __init__(
        self,
        sites: Sequence[str],
        link: Link,
        setup: Setup,
        largest: Callable[[Task], int],
        sample: tuple[tuple[int, int, int], torch.dtype],
        deadline: float,
        folder: Path,
        progress: Progress | None = None,
        arrived: Callable[[Task, Update], None] | None = None,
    ) -> None:
        self._sites = tuple(sites)
        self._link = link
        self._setup = setup
        self._largest = largest
        self._sample = sample
        self._deadline = deadline
        self._folder = folder
        self._progress = progress
        self._arrived = arrived
        self._ready: dict[str, Present] = {}
        self._job = 0
        self._telling = threading.Lock()
        self._has: dict[str, str] = {}  # device -> digest of the tensors that it was given last
        self._pace: dict[tuple[str, str], int] = {}  # (device, "put" or "get") -> chunks for one message
        self._stopped = False

    def names(self) -> tuple[str, ...]:
        """The sites, in their order."""
        return self._sites

    def present(self) -> dict[str, Present | Absence]:
        """What each device says of itself, or why it says nothing."""
        answers = self._all(dict.fromkeys(self._sites, self._get_ready))
        return {site: answers[site] for site in self._sites}

    def run(
        self, tasks: Mapping[str, Task], call: Mapping[str, Task] | None = None
    ) -> Iterator[Update | Absence]:
        """Has each named site do its task; see ``Fleet.run``."""
        give_back()  # what the last call's merge has left
        todo = dict(tasks)
        for attempt in range(1, TRIES + 1):
            reached = self._gather(list(todo))
            down: Exception | None = None
            for site in [site for site in todo if site not in reached]:
                yield Absence(site, "it is not connected")
                del todo[site]
            with ThreadPoolExecutor(max(1, len(todo))) as pool:
                asked = {pool.submit(self._ask, site, task): site for site, task in todo.items()}
                try:
                    for future in as_completed(asked):
                        try:
                            answer = future.result()
                        except LinkDownError as error:
                            down = error
                            continue
                        del todo[asked[future]]
                        yield answer
                except BaseException:
                    self._stopped = True  # Ctrl-C, or the run failed: nobody waits for the rest
                    raise
            if down is None:
                return
            logger.info("the cloud's part of the link failed (%s); attempt %d", down, attempt)
        for site in todo:
            yield Absence(site, f"it could not be reached: {down}")

    def _gather(self, sites: Sequence[str]) -> set[str]:
        reached = self._link.gather(sites)
        if self._link.job != self._job:
            self._ready.clear()
            self._has.clear()
            self._job = self._link.job
        return reached

    def _all(self, what: Mapping[str, Callable[[str], Any]]) -> dict[str, Any]:
        """Does something with every site that can be reached, at once."""
        reached = self._gather(list(what))
        answers: dict[str, Any] = {
            site: Absence(site, "it is not connected") for site in what if site not in reached
        }
        with ThreadPoolExecutor(max(1, len(reached))) as pool:
            asked = {site: pool.submit(do, site) for site, do in what.items() if site in reached}
            for site, future in asked.items():
                try:
                    answers[site] = future.result()
                except (LinkError, FleetError) as error:
                    answers[site] = Absence(site, str(error))
        return answers

    def _ask(self, site: str, task: Task) -> Update | Absence:
        """One site's answer to one task.

        Raises:
            LinkDownError: it was not the site that failed.
        """
        began = time.monotonic()
        try:
            present = self._get_ready(site)
            begin: dict[str, Any] = {"ticket": f"{self._setup.run}-{task.call}", "task": task.header()}
            last: Piece = b""
            given = self._has.pop(site, None)
            if task.blob is not None:
                at = task.blob.size if task.blob.sha256 == given else self._send(site, task.blob, began)
                last = _piece(task.blob, at, task.blob.size - at)
                begin["put"] = {"sha256": task.blob.sha256, "size": task.blob.size, "at": at}
            state, first = self._do(site, begin, last, began, self._most_at_once(site, task))
            if task.blob is not None:
                self._has[site] = task.blob.sha256
            return self._fetch(site, task, state, first, present, began)
        except LinkDownError:
            raise
        except (LinkError, FleetError) as error:
            return Absence(site, str(error))
        except OSError as error:  # of the cloud's own disk: nothing that the device could mend
            raise FleetError(f"{error.filename or self._folder}: {error.strerror or error}") from error

    def _get_ready(self, site: str) -> Present:
        """Tells the device of the run, unless it was told."""
        if site not in self._ready:
            ticket = f"{self._setup.run}-setup"
            begin = {"ticket": ticket, "setup": self._setup.model_dump(mode="json")}
            state, _ = self._do(site, begin, b"", time.monotonic(), 0)
            present = check(Present, state.answer)
            if len(present.counts) != len(self._setup.classes):
                raise FleetError(f"it counted {len(present.counts)} classes of {len(self._setup.classes)}")
            self._ready[site] = present
        return self._ready[site]

    def _do(
        self, site: str, begin: dict[str, Any], last: Piece, began: float, most: int
    ) -> tuple[State, Piece]:
        """Has a device begin something, and looks after it until it is done.

        Args:
            last: what is missing of the tensors that go with it.
            most: how many bytes of the answer's tensors may come at once; they are returned too.

        Raises:
            FleetError: the device refuses, or the deadline is over.
            LinkError: the device is dead.
        """
        look: dict[str, Any] = {"wait": min(LOOK, self._deadline), "most": most}
        answer, first = self._call(site, "begin", begin | look, last, most)
        look |= {"ticket": begin["ticket"], "cancel": False}
        while True:
            state = check(State, answer)
            if state.state == "refused":
                raise FleetError(f"it refuses: {state.why}")
            if state.state == "done":
                return state, first
            if look["cancel"]:
                raise FleetError(f"it did not answer within {self._deadline:g} s (fleet.deadline)")
            if self._progress is not None and state.steps and state.loss is not None:
                with self._telling:
                    self._progress(site, state.done, state.steps, state.loss, state.examples)
            left = began + self._deadline - time.monotonic()
            look |= {"wait": min(LOOK, max(0.0, left)), "cancel": left <= 0}
            answer, first = self._call(site, "look", look, most=most)

    def _send(self, site: str, blob: Blob, began: float) -> int:
        """Sends tensors down, from where an earlier attempt stopped; says where the last piece begins."""
        put, at = {"sha256": blob.sha256, "size": blob.size}, 0
        while blob.size - at > self._paced(site, "put"):
            self._check_deadline(began)
            piece, started = _piece(blob, at, self._paced(site, "put")), time.monotonic()
            at = self._call(site, "put", put | {"at": at}, piece)[0].get("have", -1)
            self._keep_pace(site, "put", time.monotonic() - started)
            if not isinstance(at, int) or not 0 <= at <= blob.size:
                raise FleetError("it does not say how much it has of what is sent")
        return at

    def _paced(self, site: str, what: str) -> int:
        """How many bytes go into the next message."""
        return self._pace.get((site, what), 1) * CHUNK

    def _keep_pace(self, site: str, what: str, seconds: float) -> None:
        """Sets how many bytes go into the next message, from how long the last one took."""
        many = self._pace.get((site, what), 1)
        if seconds < 0.5:
            self._pace[site, what] = min(MOST, 2 * many)
        elif seconds > 2:
            self._pace[site, what] = max(1, many // 2)

    def _most_at_once(self, site: str, task: Task) -> int:
        """How many bytes of its answer's tensors a device may send unasked; none where some came before."""
        return 0 if task.kind == "share" and self._chunks_of(site).exists() else self._paced(site, "get")

    def _chunks_of(self, site: str) -> Path:
        return self._folder / f"chunks-{site}"

    def _fetch(
        self, site: str, task: Task, state: State, first: Piece, present: Present, began: float
    ) -> Update:
        """The answer with its tensors, of which ``first`` came; a damaged chunk is asked for again.

        Raises:
            FleetError: it claims too much, or is no answer to the task.
        """
        update = decode_update(state.answer, None, site, task.kind, len(self._setup.classes))
        if state.blob is None:
            if task.kind in ("share", "collect") or (task.kind in ("train", "choose") and task.reply):
                raise FleetError(f"its answer to {task.kind} carries no tensors")
            if first:
                raise FleetError(f"it sent {len(first)} bytes that nobody asked for")
            return update
        self._check_claim(task, state.blob, present)
        fetch = self._fetch_samples if task.kind == "share" else self._fetch_model
        blob = fetch(site, state.blob, first, began)
        answer = Update.of(update.header(), blob)
        self._check_tensors(task, answer, present)
        if task.kind == "share" and self._arrived is not None:
            self._arrived(task, answer)
        return answer

    def _check_claim(self, task: Task, blob: BlobHeader, present: Present) -> None:
        if task.kind == "share":
            shape, dtype = self._sample
            each = math.prod(shape) * dtype.itemsize + 8
            most = _most_samples(task, present) * each + SLACK
        elif task.kind in ("train", "choose", "collect", "restat", "refit") and task.reply:
            most = self._largest(task) + SLACK
        else:
            most = 0
        if blob.size > most:
            raise FleetError(f"it claims to send {blob.size / 1e6:.4g} MB where {most / 1e6:.4g} can be")
        if task.kind == "share" and len(blob.chunks) != math.ceil(blob.size / CHUNK):
            raise FleetError("it names more or fewer chunks than its answer has")

    def _fetch_model(self, site: str, blob: BlobHeader, first: Piece, began: float) -> Blob:
        """Fetches parameters into a file, from the first byte to the last."""
        self._folder.mkdir(parents=True, exist_ok=True)
        path = self._folder / f"{site}.safetensors"
        for _ in range(TRIES):
            path.unlink(missing_ok=True)  # the journal may have a name for the last one too
            arriving, at = Arriving(path), len(first)
            arriving.add(first)
            while at < blob.size:
                self._check_deadline(began)
                stop = min(blob.size, at + self._paced(site, "get"))
                arriving.add(self._get(site, blob, at, stop))
                at = stop
            if whole := arriving.finish(blob.sha256, synced=True):
                return whole
            first = b""
            logger.info("%s: its parameters arrived damaged and are asked for again", site)
        raise FleetError("its parameters arrive damaged again and again")

    def _fetch_samples(self, site: str, blob: BlobHeader, first: Piece, began: float) -> Blob:
        """Fetches chunks into files named by their content, those that are not there yet; joins them."""
        folder = self._chunks_of(site)
        folder.mkdir(parents=True, exist_ok=True)
        missing = [n for n, digest in enumerate(blob.chunks) if not (folder / digest).exists()]
        damaged, run, piece = 0, missing[: math.ceil(len(first) / CHUNK)], first
        while missing:
            if not piece:
                self._check_deadline(began)
                many = self._paced(site, "get") // CHUNK
                run = [n for place, n in enumerate(missing[:many]) if n == missing[0] + place]
                piece = self._get(site, blob, run[0] * CHUNK, min(blob.size, (run[-1] + 1) * CHUNK))
            for place, n in enumerate(run):
                chunk = piece[place * CHUNK : (place + 1) * CHUNK]
                if hashlib.sha256(chunk).hexdigest() == blob.chunks[n]:
                    write_durably(folder / blob.chunks[n], chunk)
                    missing.remove(n)
                else:
                    damaged += 1
                    logger.info("%s: a chunk arrived damaged and is asked for again", site)
            if damaged > TRIES + len(blob.chunks) // 100:
                raise FleetError("its chunks arrive damaged again and again")
            piece = b""
        path = self._folder / f"{site}.safetensors"
        path.unlink(missing_ok=True)
        arriving = Arriving(path)
        for name in blob.chunks:
            arriving.add((folder / name).read_bytes())
        shutil.rmtree(folder)
        whole = arriving.finish(blob.sha256, synced=True)
        if whole is None or whole.size != blob.size:
            raise FleetError("its chunks do not make what it says they make")
        return whole

    def _get(self, site: str, blob: BlobHeader, start: int, stop: int) -> Piece:
        get, started = {"sha256": blob.sha256, "start": start, "stop": stop}, time.monotonic()
        piece = self._call(site, "get", get, most=stop - start)[1]
        self._keep_pace(site, "get", time.monotonic() - started)
        return piece

    def _check_tensors(self, task: Task, update: Update, present: Present) -> None:
        """Refuses what is no tensor file, and samples that cannot be the device's."""
        assert update.blob is not None
        assert isinstance(update.blob.source, Path)
        try:
            with safetensors.safe_open(update.blob.source, "pt") as file:
                if task.kind != "share":
                    return
                if sorted(file.keys()) != ["inputs", "labels"]:
                    raise FleetError("what it shares is not samples")
                inputs, labels = file.get_tensor("inputs"), file.get_tensor("labels")
        except (SafetensorError, OSError) as error:
            raise FleetError(f"its tensors cannot be read: {error}") from error
        shape, dtype = self._sample
        if tuple(inputs.shape[1:]) != shape or inputs.dtype != dtype:
            raise FleetError(f"it shares samples of {tuple(inputs.shape[1:])} {inputs.dtype}, not {shape}")
        if labels.dtype != torch.int64 or labels.shape != inputs.shape[:1]:
            raise FleetError("it shares samples without one label each")
        if len(inputs) > _most_samples(task, present):
            raise FleetError(f"it shares {len(inputs)} samples where {_most_samples(task, present)} can be")
        classes = len(self._setup.classes)
        if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < classes:
            raise FleetError(f"it shares samples with labels outside of 0 to {classes - 1}")
        if inputs.is_floating_point() and not torch.isfinite(inputs).all():
            raise FleetError("it shares samples that are not finite")

    def _check_deadline(self, began: float) -> None:
        if time.monotonic() - began > self._deadline:
            raise FleetError(f"it did not answer within {self._deadline:g} s (fleet.deadline)")

    def _call(
        self,
        site: str,
        what: str,
        header: Mapping[str, Any],
        payload: Piece = b"",
        most: int = 0,
    ) -> tuple[dict[str, Any], Piece]:
        """One message, sent again until it is answered or the device is taken for dead.

        Raises:
            FleetError: the device says that something is wrong with the message.
            LinkError: the device is dead.
        """
        last = time.monotonic() + PATIENCE
        while True:
            if self._stopped:
                raise LinkError("the run was stopped")
            try:
                answer, piece = self._link.call(site, what, header, payload, ATTEMPT)
                break
            except LinkDownError:
                raise
            except LinkError as error:
                if time.monotonic() + 1 > last:
                    self._link.lose(site)
                    self._ready.pop(site, None)
                    for way in ("put", "get"):  # it may be the link that has become slow
                        self._pace.pop((site, way), None)
                    raise LinkError(f"it gave no sign of life for {PATIENCE:g} s ({error})") from error
                time.sleep(0.5)
        if "error" in answer:
            raise FleetError(f"it refuses: {str(answer['error'])[:300]}")
        if len(piece) > most:
            raise FleetError(f"it sent {len(piece)} bytes that nobody asked for")
        return answer, piece


def _most_samples(task: Task, present: Present) -> int:
    share = task.share or Share()
    return min(math.ceil(share.fraction * sum(present.counts)) + 1, share.count or sum(present.counts))


def _piece(blob: Blob, at: int, size: int) -> Piece:
    if isinstance(blob.source, bytes):
        return memoryview(blob.source)[at : at + size]
    with blob.source.open("rb") as file:
        file.seek(at)
        return file.read(size)
