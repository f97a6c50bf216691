"""A device, as the cloud's messages meet it: what it is asked, it checks, does, and answers.

Every message is answered at once; what takes long is begun by one message and looked after by others, so
that a slow device can be told from a dead one. Tensors come and go in chunks. Whatever the cloud asks, the
device's own file (``edge_settings.py``) has the last word.
"""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
import threading
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from sheaf.core.atomic_io import write_durably
from sheaf.core.dataset import Dataset, Samples
from sheaf.core.errors import DataError, FleetError, SheafError
from sheaf.core.recipe import Share
from sheaf.core.seeds import generator, seed_for
from sheaf.core.settings import parse
from sheaf.core.task import Task, Update
from sheaf.core.tensor_file import Blob
from sheaf.core.wire_format import decode_samples, encode_header
from sheaf.data.load import DataSettings, load_own
from sheaf.fleets.remote.device_settings import EdgeFile
from sheaf.fleets.remote.hashed_file import Arriving, Piece
from sheaf.fleets.remote.messages import (
    CHUNK,
    MOST,
    Begin,
    BlobHeader,
    Get,
    Look,
    Put,
    Setup,
    State,
    check,
    decode_task,
)
from sheaf.models.build import ModelSettings, build_model, build_skeleton
from sheaf.runtime.worker import Worker
from sheaf.training.loop import pick_device
from sheaf.training.network import Network

logger = logging.getLogger("sheaf")

KEPT_RUNS = 4
"""Runs of which a device keeps what it held."""


class Cancelled(Exception):  # noqa: N818  # it is no error
    """The cloud no longer waits for what is being done."""


@dataclass
class Work:
    """Something that was begun, and how far it is."""

    ticket: str
    state: State = field(default_factory=lambda: State(state="working"))
    blob: bytes = b""
    cancelled: bool = False
    finished: threading.Event = field(default_factory=threading.Event)


class EdgeSite:
    """One device.

    Args:
        name: the device's name in its fleet.
        data: its folder of images, sounds or parquet, or its file of tensors.
        own: what it allows.
        folder: where it keeps what it holds, what it has shared, and what is on its way.
    """

    def __init__(self, name: str, data: Path, own: EdgeFile, folder: Path) -> None:
        self.name = name
        self._data = data
        self._own = own
        self._folder = folder
        self._blobs = folder / "blobs"
        self._blobs.mkdir(parents=True, exist_ok=True)
        self._lock = threading.Lock()
        self._taking = threading.Lock()
        self._arriving: Arriving | None = None
        self._work: Work | None = None
        self._setup: Setup | None = None
        self._worker: Worker | None = None
        self._shared = Shared(folder / "shared.txt")
        if own.edge.threads:
            torch.set_num_threads(own.edge.threads)

    @classmethod
    def at(cls, folder: Path) -> EdgeSite:
        """The device that ``sheaf edge join`` described in ``folder``."""
        told = json.loads((folder / "join.json").read_text())
        return cls(told["edge"], Path(told["data"]), parse(EdgeFile, told["file"]), folder)

    def handle(self, what: str, header: bytes, payload: Piece) -> tuple[bytes, bytes]:
        """Answers one message: a JSON header, and bytes. What is wrong with it is said in the header."""
        answers: dict[str, Callable[[Any, Piece], tuple[dict[str, Any], bytes]]] = {
            "begin": self._begin,
            "look": self._look,
            "put": self._put,
            "get": self._get,
        }
        try:
            if what not in answers:
                raise FleetError(f"there is no message {what[:20]!r}")
            answer, out = answers[what](json.loads(header), payload)
        except (SheafError, OSError, ValueError) as error:
            answer, out = {"error": why(error)}, b""
        return encode_header(answer), out

    def _begin(self, header: Any, payload: Piece) -> tuple[dict[str, Any], bytes]:
        begin = check(Begin, header)
        if begin.put is not None and self._take(begin.put, payload) < begin.put.size:
            raise FleetError("the tensors of the task have not come")
        with self._lock:
            before = work = self._work
            if work is None or work.ticket != begin.ticket:
                work = self._work = Work(begin.ticket)
                if before is not None:
                    before.cancelled = True
                threading.Thread(target=self._do, args=(work, begin, before), daemon=True).start()
        return _seen(work, begin.wait, begin.most)

    def _look(self, header: Any, _: Piece) -> tuple[dict[str, Any], bytes]:
        look = check(Look, header)
        work = self._work
        if work is None or work.ticket != look.ticket:
            raise FleetError("nothing of that name was begun")
        if look.cancel:
            work.cancelled = True
        return _seen(work, look.wait, look.most)

    def _put(self, header: Any, payload: Piece) -> tuple[dict[str, Any], bytes]:
        return {"have": self._take(check(Put, header), payload)}, b""

    def _take(self, put: Put, payload: Piece) -> int:
        """Keeps a piece of tensors, unless it came before; says how much of them all is here."""
        if put.size > self._own.edge.max_mb * 1e6:
            raise FleetError(
                f"{put.size / 1e6:.4g} MB were to come, and [edge] max_mb allows {self._own.edge.max_mb:g}"
            )
        whole = self._blobs / put.sha256
        with self._taking:  # a message that was sent twice may be here twice at once
            if whole.exists():
                return put.size
            arriving = self._arriving
            if arriving is None or not arriving.path.name.startswith(put.sha256):
                arriving = self._arriving = self._make_room(put.sha256)
            new = memoryview(payload)[arriving.size - put.at :] if put.at <= arriving.size else b""
            if arriving.size + len(new) <= put.size:
                arriving.add(new)
                arriving.rename(_part(whole, arriving.size))
            if arriving.size == put.size:
                self._arriving = None
                if arriving.finish(put.sha256) is None:
                    raise FleetError("what came is not what was sent")
                arriving.rename(whole)
            return arriving.size

    def _make_room(self, sha256: str) -> Arriving:
        """Where a blob goes: on after what came of it before, else over one that is of no use any more."""
        whole = self._blobs / sha256
        for part in self._blobs.glob(f"{sha256}.*"):
            return Arriving(part, int(part.suffix[1:]))
        if self._work is None or self._work.finished.is_set():
            for old in self._blobs.iterdir():
                if old.stat().st_nlink == 1:
                    return Arriving(old.replace(_part(whole, 0)))
        return Arriving(_part(whole, 0))

    def _get(self, header: Any, _: Piece) -> tuple[dict[str, Any], bytes]:
        get = check(Get, header)
        work = self._work
        if work is None or work.state.blob is None or work.state.blob.sha256 != get.sha256:
            raise FleetError("there is no such answer")
        if not get.start < get.stop <= get.start + MOST * CHUNK:
            raise FleetError(f"at most {MOST} chunks go into one message")
        return {}, work.blob[get.start : get.stop]

    def _do(self, work: Work, begin: Begin, before: Work | None) -> None:
        """Does what was begun, in a thread of its own, when what was begun before has ended."""
        if before is not None:
            before.finished.wait()
        try:
            if begin.setup is not None:
                work.state = State(state="done", answer=self._get_ready(begin.setup))
            else:
                update = self._do_task(work, begin)
                work.blob = _bytes(update.blob)
                work.state = State(
                    state="done",
                    answer=update.header(),
                    blob=None if update.blob is None else describe(update, work.blob),
                )
        except Cancelled:
            work.state = State(state="refused", why="it was told to stop")
        except (SheafError, OSError, ValueError, RuntimeError, MemoryError, SafetensorError) as error:
            logger.exception("%s", begin.ticket)
            work.state = State(state="refused", why=why(error))
        finally:
            if work.state.state == "working":
                work.state = State(state="refused", why="it failed; its log says how")
            work.finished.set()

    def _get_ready(self, setup: Setup) -> dict[str, Any]:
        """Reads the data and builds the model, unless that was done; says what there is."""
        if setup != self._setup:
            self._setup = None
            if ":" in setup.model and setup.model not in self._own.edge.allow:
                raise FleetError(f"its own file does not allow the model {setup.model!r} ([edge] allow)")
            own = load_own(
                DataSettings(name=str(self._data), **setup.form.model_dump()), tuple(setup.classes)
            )
            dataset = replace(own, mean=tuple(setup.mean), std=tuple(setup.std))
            if dataset.shape != setup.shape:
                raise DataError(f"its examples are {dataset.shape}, and the fleet's {setup.shape}")
            self._worker = self._make_worker(setup, dataset)
            logger.info("run %s: %s, %d examples", setup.run, setup.model, len(dataset.train))
            self._setup = setup
        assert self._worker is not None
        counts = self._worker.data.train.counts(len(setup.classes)).tolist()
        return {"counts": counts, "width": self._own.edge.width}

    def _make_worker(self, setup: Setup, dataset: Dataset) -> Worker:
        settings = ModelSettings(name=setup.model, options=setup.options)
        classes = len(setup.classes)
        skeleton = build_skeleton(settings, classes, dataset.shape)
        numbers = sum(value.numel() for value in skeleton.state_dict().values())
        if 4 * numbers > self._own.edge.max_mb * 1e6:
            raise FleetError(f"the model holds {numbers} numbers, more than [edge] max_mb allows")
        model = build_model(settings, classes, dataset.shape, 0)
        held_out = setup.held_out if self._own.edge.held_out is None else self._own.edge.held_out
        train, kept = hold_out(dataset.train, held_out, seed_for(setup.seed, "held out", self.name))
        return Worker(
            self.name,
            Network(model, dataset.shape),
            replace(dataset, train=train),
            kept,
            self._keep_run(setup.run),
            pick_device(self._own.edge.device),
        )

    def _keep_run(self, run: str) -> Path:
        """The folder for what is held in a run; those of long ago go."""
        runs = self._folder / "runs"
        (runs / run).mkdir(parents=True, exist_ok=True)
        (runs / run).touch()
        newest = sorted(runs.iterdir(), key=lambda path: path.stat().st_mtime, reverse=True)
        for old in newest[KEPT_RUNS:]:
            shutil.rmtree(old, ignore_errors=True)
        return runs / run

    def _do_task(self, work: Work, begin: Begin) -> Update:
        if self._worker is None or self._setup is None:
            raise FleetError("it was told of no run yet")
        blob = None
        if begin.put is not None:
            blob = Blob(self._blobs / begin.put.sha256, begin.put.sha256, begin.put.size)
        for path in self._blobs.iterdir():
            if blob is None or path.name != blob.sha256:
                path.unlink()
        task = decode_task(begin.task, blob)
        logger.info("%s: %s", begin.ticket, task.kind)
        self._check(task, self._worker)

        def progress(site: str, done: int, steps: int, loss: float, examples: int) -> None:
            if work.cancelled:
                raise Cancelled
            work.state = State(state="working", done=done, steps=steps, loss=loss, examples=examples)

        update = self._worker.do(task, progress)
        if task.kind == "share":
            self._check_share(update, len(self._worker.data.train))
        return update

    def _check(self, task: Task, worker: Worker) -> None:
        """Refuses what the device's own file does not allow, and what is not fit to be begun."""
        own = self._own.edge
        if task.recipe is not None and task.recipe.epochs > own.max_epochs:
            raise FleetError(
                f"{task.recipe.epochs} epochs were asked for, [edge] max_epochs allows {own.max_epochs}"
            )
        if task.statistic is not None and (task.statistic.examples or 1) < 1:
            raise FleetError("a statistic of less than one example was asked for")
        if task.kind in ("train", "refit", "restat"):
            cost = worker.cost_of(task)
            if own.macs is not None and cost.macs_per_example > own.macs:
                raise FleetError(f"{cost.macs_per_example} multiply-adds are above [edge] macs, {own.macs:g}")
            if own.parameters is not None and cost.parameters > own.parameters:
                raise FleetError(f"{cost.parameters} numbers are above [edge] parameters, {own.parameters:g}")
        if task.kind == "share":
            asked, allowed = (task.share or Share()).fraction, self._own.share.max_fraction
            if asked > allowed:
                raise FleetError(
                    f"it was asked to share {asked:g} of its samples, [share] max_fraction allows {allowed:g}"
                )
        if task.kind == "lend" and task.blob is not None:
            lent, inputs = decode_samples(task.blob), worker.data.train.inputs
            if lent.inputs.shape[1:] != inputs.shape[1:] or lent.inputs.dtype != inputs.dtype:
                raise FleetError("the samples that were to be lent are not like its own")

    def _check_share(self, update: Update, examples: int) -> None:
        """Refuses to send samples beyond what may leave the device over all runs, and notes those that do."""
        assert update.blob is not None
        samples, limits = decode_samples(update.blob), self._own.share
        names = [_name(sample) for sample in samples.inputs]
        together = self._shared.with_(names)
        each = samples.inputs[0].nbytes + 8 if len(samples) else 0
        most = round(limits.max_fraction * examples)  # as many as a task of that fraction takes
        if len(together) > most:
            raise FleetError(
                f"{len(together)} of its {examples} samples would have left it, "
                f"[share] max_fraction = {limits.max_fraction:g} allows {most}"
            )
        if limits.max_mb is not None and len(together) * each > limits.max_mb * 1e6:
            raise FleetError(
                f"{len(together) * each / 1e6:.4g} MB of samples would have left it, "
                f"[share] max_mb allows {limits.max_mb:g}"
            )
        self._shared.note(names)


class Shared:
    """Which samples have left the device, by digest; whatever run it was for."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._names = set(file.read_text().split()) if file.exists() else set()

    def with_(self, names: list[str]) -> set[str]:
        """All that would have left the device if these did too."""
        return self._names | set(names)

    def note(self, names: list[str]) -> None:
        """These are about to leave."""
        self._names = self.with_(names)
        write_durably(self._file, "\n".join(sorted(self._names)).encode())


def hold_out(samples: Samples, share: float, seed: int) -> tuple[Samples, Samples]:
    """A device's (training samples, held-out samples), both in the order of ``samples``.

    Raises:
        DataError: nothing is left to train on.
    """
    order = torch.randperm(len(samples), generator=generator(seed))
    kept = round(share * len(samples))
    if len(samples) - kept == 0:
        raise DataError(f"nothing is left to train on ({len(samples)} examples, {kept} held out)")
    return samples.select(order[kept:].sort().values), samples.select(order[:kept].sort().values)


def _part(whole: Path, size: int) -> Path:
    """The name of a file while so many of its bytes came: room that is written over says nothing of that."""
    return whole.with_name(f"{whole.name}.{size}")


def _seen(work: Work, wait: float, most: int) -> tuple[dict[str, Any], bytes]:
    """How far some work is, with the first bytes of its tensors if it is done within ``wait`` seconds."""
    work.finished.wait(wait)
    return work.state.model_dump(), work.blob[:most] if work.finished.is_set() else b""


def describe(update: Update, content: bytes) -> BlobHeader:
    """What the cloud needs to know to fetch the bytes of an answer's tensors."""
    assert update.blob is not None
    chunks = []
    if update.kind == "share":
        view = memoryview(content)
        chunks = [hashlib.sha256(view[at : at + CHUNK]).hexdigest() for at in range(0, len(content), CHUNK)]
    return BlobHeader(sha256=update.blob.sha256, size=len(content), chunks=chunks)


def why(error: BaseException) -> str:
    """An error in one line, for the cloud's log."""
    if isinstance(error, OSError):
        return f"{error.filename or 'its disk'}: {error.strerror or error}"
    if isinstance(error, MemoryError):
        return "it has not enough memory"
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]


def _bytes(blob: Blob | None) -> bytes:
    if blob is None:
        return b""
    return blob.source.read_bytes() if isinstance(blob.source, Path) else blob.source


def _name(sample: torch.Tensor) -> str:
    return hashlib.blake2b(sample.contiguous().numpy().tobytes(), digest_size=16).hexdigest()
