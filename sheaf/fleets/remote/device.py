"""A device's message handler: it validates each message of the cloud, runs tasks, and returns updates.

Each message is answered within seconds. ``begin`` starts an operation in a thread and ``poll`` reports its
state, so that the cloud can tell a slow device from a dead one. Tensors are transferred in chunks. Requests
that exceed the device's own ``edge.toml`` are refused (``device_limits.py``).
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

from sheaf.core.available_memory import available_memory
from sheaf.core.dataset import Dataset
from sheaf.core.errors import DataError, FleetError, SheafError, first_line
from sheaf.core.seeds import seed_for
from sheaf.core.task import Update
from sheaf.core.tensor_file import Blob
from sheaf.core.wire_format import encode_header
from sheaf.data.device_data import load_device_data
from sheaf.data.settings import DataSettings
from sheaf.data.shared_samples import decode_shared
from sheaf.fleets.remote import device_limits
from sheaf.fleets.remote.blob_receiver import BlobReceiver
from sheaf.fleets.remote.device_settings import EdgeFile, read_joined
from sheaf.fleets.remote.hashed_file import Bytes
from sheaf.fleets.remote.messages import (
    CHUNK,
    MAX_CHUNKS,
    Begin,
    BlobHeader,
    Get,
    PlannedTask,
    Poll,
    Put,
    Setup,
    State,
    validate,
)
from sheaf.fleets.remote.model_keeper import ModelKeeper
from sheaf.fleets.remote.noise_key import noise_key
from sheaf.fleets.remote.privacy_record import PrivacyRecord
from sheaf.fleets.remote.sample_record import SampleRecord
from sheaf.fleets.remote.task_messages import decode_task
from sheaf.fleets.remote.training_heap import reused_blocks
from sheaf.models.build import ModelSettings, build_model, build_skeleton
from sheaf.runtime.site_coding import SiteCoding
from sheaf.runtime.worker import Worker
from sheaf.training.network import Network
from sheaf.training.preparation import pick_device

logger = logging.getLogger("sheaf")

KEPT_RUNS = 4
"""Number of runs whose models a device keeps."""


class Cancelled(Exception):  # noqa: N818  # it is no error
    """The cloud has cancelled the operation."""


@dataclass
class Operation:
    """A set-up or task that was begun.

    Attributes:
        ticket: its identifier.
        state: its current state.
        content: encoded tensors of the update.
        cancelled: whether the cloud has cancelled it.
        finished: set at its end.
    """

    ticket: str
    state: State = field(default_factory=lambda: State(state="working"))
    content: bytes = b""
    cancelled: bool = False
    finished: threading.Event = field(default_factory=threading.Event)

    def report(self, wait: float, max_bytes: int) -> tuple[dict[str, Any], bytes]:
        """Return the state after at most ``wait`` seconds, with the first ``max_bytes`` bytes of a result."""
        self.finished.wait(wait)
        return self.state.model_dump(), self.content[:max_bytes] if self.finished.is_set() else b""


class EdgeSite:
    """One device.

    Args:
        name: name of the device in its fleet.
        data: folder of images, sounds or parquet files, or a .safetensors file.
        own: its ``edge.toml``.
        folder: for its models, the record of shared samples, and received tensors.
    """

    def __init__(self, name: str, data: Path, own: EdgeFile, folder: Path) -> None:
        self.name = name
        self._data = data
        self._own = own
        self._folder = folder
        self._receiver = BlobReceiver(folder / "blobs")
        self._lock = threading.Lock()
        self._operation: Operation | None = None
        self._setup: Setup | None = None
        self._worker: Worker | None = None
        self._coding: SiteCoding | None = None
        self._keeper: ModelKeeper | None = None
        if own.edge.threads:
            torch.set_num_threads(own.edge.threads)

    @classmethod
    def at(cls, folder: Path) -> EdgeSite:
        """Return the device that ``sheaf edge join`` has configured in ``folder``."""
        joined = read_joined(folder)
        return cls(joined.edge, joined.data, joined.own, folder)

    def handle(self, kind: str, header: bytes, payload: Bytes) -> tuple[bytes, bytes]:
        """Return the reply to one message: a JSON header, with a key ``error`` on failure, and a payload."""
        handlers: dict[str, Callable[[Any, Bytes], tuple[dict[str, Any], bytes]]] = {
            "begin": self._begin,
            "poll": self._poll,
            "put": self._put,
            "get": self._get,
        }
        try:
            if kind not in handlers:
                raise FleetError(f"unknown message {kind[:20]!r}; known: {', '.join(handlers)}")
            reply, content = handlers[kind](json.loads(header), payload)
        except (SheafError, OSError, ValueError) as error:
            reply, content = {"error": error_line(error)}, b""
        return encode_header(reply), content

    def _begin(self, header: Any, payload: Bytes) -> tuple[dict[str, Any], bytes]:
        device_limits.check_version(header)
        begin = validate(Begin, header)
        if begin.put is not None and (received := self._receive(begin.put, payload)) < begin.put.size:
            raise FleetError(f"{received} of {begin.put.size} bytes of the task's tensors were received")
        with self._lock:
            previous = operation = self._operation
            if operation is None or operation.ticket != begin.ticket:
                operation = self._operation = Operation(begin.ticket)
                if previous is not None:
                    previous.cancelled = True
                threading.Thread(target=self._run, args=(operation, begin, previous), daemon=True).start()
        return operation.report(begin.wait, begin.max_bytes)

    def _poll(self, header: Any, _: Bytes) -> tuple[dict[str, Any], bytes]:
        poll = validate(Poll, header)
        operation = self._operation
        if operation is None or operation.ticket != poll.ticket:
            raise FleetError(f"no operation {poll.ticket[:100]!r} was begun")
        if poll.cancel:
            operation.cancelled = True
        return operation.report(poll.wait, poll.max_bytes)

    def _put(self, header: Any, payload: Bytes) -> tuple[dict[str, Any], bytes]:
        return {"received": self._receive(validate(Put, header), payload)}, b""

    def _receive(self, put: Put, chunk: Bytes) -> int:
        device_limits.check_message_size(put.size, self._own.edge)
        idle = self._operation is None or self._operation.finished.is_set()
        return self._receiver.receive(put, chunk, reuse=idle)

    def _get(self, header: Any, _: Bytes) -> tuple[dict[str, Any], bytes]:
        get = validate(Get, header)
        operation = self._operation
        if operation is None or operation.state.blob is None or operation.state.blob.sha256 != get.sha256:
            raise FleetError(f"no update has tensors with the hash {get.sha256}")
        if not get.start < get.stop <= get.start + MAX_CHUNKS * CHUNK:
            raise FleetError(f"bytes {get.start} to {get.stop} are not 1 to {MAX_CHUNKS * CHUNK} bytes")
        return {}, operation.content[get.start : get.stop]

    def _run(self, operation: Operation, begin: Begin, previous: Operation | None) -> None:
        """Run an operation, in its own thread, after the previous one has finished."""
        if previous is not None:
            previous.finished.wait()
        try:
            if begin.setup is not None:
                operation.state = State(state="done", answer=self._set_up(begin.setup))
            elif begin.planned is not None:
                operation.state = State(state="done", answer={"refusals": self._check(begin.planned)})
            else:
                update = self._do_task(operation, begin)
                operation.content = _read(update.blob)
                operation.state = State(
                    state="done",
                    answer=update.header(),
                    blob=None if update.blob is None else describe(update, operation.content),
                )
        except Cancelled:
            operation.state = State(state="refused", reason="cancelled")
        except (SheafError, OSError, ValueError, RuntimeError, MemoryError, SafetensorError) as error:
            logger.exception("%s", begin.ticket)
            operation.state = State(state="refused", reason=error_line(error))
        finally:
            if operation.state.state == "working":
                operation.state = State(state="refused", reason="unexpected error; see the device's log")
            operation.finished.set()

    def _set_up(self, setup: Setup) -> dict[str, Any]:
        """Load the data and build the model, unless this was done; return a ``DeviceInfo``."""
        if setup != self._setup:
            self._setup = None
            device_limits.check_plugin("model", setup.model, self._own.edge)
            own = load_device_data(
                DataSettings(name=str(self._data), cache=self._own.edge.cache, **setup.form.model_dump()),
                tuple(setup.classes),
            )
            dataset = replace(own, mean=tuple(setup.mean), std=tuple(setup.std), bits=setup.form.bits)
            if self._own.share.files == "none":
                dataset = replace(dataset, train=replace(dataset.train, read_file=None))
            if dataset.shape != setup.shape:
                raise DataError(f"examples have the shape {dataset.shape}, the fleet's {setup.shape}")
            self._worker = self._make_worker(setup, dataset)
            self._coding = SiteCoding(self._worker.network, self._worker.folder, self.name)
            logger.info("run %s: model %s, %d training examples", setup.run, setup.model, len(dataset.train))
            self._setup = setup
        assert self._worker is not None
        counts = self._worker.data.train.counts(len(setup.classes)).tolist()
        disk = shutil.disk_usage(self._folder).free
        return {
            "counts": counts,
            "width": self._own.edge.width,
            "memory": available_memory(),
            "disk": disk,
        }

    def _check(self, planned: list[PlannedTask]) -> list[str]:
        """Return why the device would refuse some of the planned tasks, each reason once."""
        if self._worker is None:
            raise FleetError("the device has no set-up of a run yet")
        refusals = []
        for each in planned:
            try:
                device_limits.check_plugins(each.task, self._own.edge)
                device_limits.check_message_size(each.size, self._own.edge)
                task = decode_task(each.task, None)
                device_limits.check_task(task, self._worker, self._own, self._samples, self._privacy)
            except (SheafError, ValueError, RuntimeError) as error:
                refusals.append(error_line(error))
        return list(dict.fromkeys(refusals))

    def _make_worker(self, setup: Setup, dataset: Dataset) -> Worker:
        settings = ModelSettings(name=setup.model, options=setup.options)
        classes = len(setup.classes)
        skeleton = build_skeleton(settings, classes, dataset.shape)
        parameters = sum(value.numel() for value in skeleton.state_dict().values())
        device_limits.check_model_size(parameters, self._own.edge)
        model = build_model(settings, classes, dataset.shape, 0)
        fraction = setup.held_out if self._own.edge.held_out is None else self._own.edge.held_out
        self._samples = samples = SampleRecord(self._folder)
        self._privacy = PrivacyRecord(self._folder)
        train, held_out = samples.split(
            dataset.train,
            fraction,
            seed_for(setup.seed, "held out", self.name),
            by_owner=self._own.edge.held_out is not None,
        )
        self._keeper = ModelKeeper(self._folder, self.name, self._own.edge, setup, dataset, held_out, samples)
        return Worker(
            self.name,
            Network(model, dataset.shape),
            replace(dataset, train=train),
            held_out,
            self._run_folder(setup.run),
            pick_device(self._own.edge.device),
            private_test=True,
            may_leave=lambda order: samples.may_leave(order, self._own.share),
            originals=self._own.share.files == "any",
            key=noise_key(self._folder),
        )

    def _run_folder(self, run: str) -> Path:
        """Return the run's folder for models; delete all but the ``KEPT_RUNS`` latest runs."""
        runs = self._folder / "runs"
        (runs / run).mkdir(parents=True, exist_ok=True)
        (runs / run).touch()
        newest = sorted(runs.iterdir(), key=lambda path: path.stat().st_mtime, reverse=True)
        for old in newest[KEPT_RUNS:]:
            shutil.rmtree(old, ignore_errors=True)
        return runs / run

    def _do_task(self, operation: Operation, begin: Begin) -> Update:
        if self._worker is None or self._setup is None:
            raise FleetError("the device has no set-up of a run yet")
        blob = self._receiver.take(begin.put)
        device_limits.check_plugins(begin.task, self._own.edge)
        task = decode_task(begin.task, blob)
        logger.info("%s: %s", begin.ticket, task.kind)
        device_limits.check_task(task, self._worker, self._own, self._samples, self._privacy)
        assert self._coding is not None
        coded, task = task, self._coding.receive(task)

        def progress(site: str, done: int, steps: int, loss: float, examples: int) -> None:
            if operation.cancelled:
                raise Cancelled
            operation.state = State(state="working", done=done, steps=steps, loss=loss, examples=examples)

        with reused_blocks():
            update = self._worker.do(task, progress)
        final = task.kind == "collect" or (task.kind == "adopt" and self._setup.deliver == "adoptions")
        if final and (stored := update.blob or task.blob) is not None and self._keeper is not None:
            replacement = self._keeper.keep(task.call, stored.open(), task.cut)
            update = replace(update, metrics=update.metrics | {"replacement": replacement})
        if task.statistic is not None and update.blob is not None:
            self._privacy.add(task, update.blob.sha256, self._own.share)
        if task.kind == "share":
            assert update.blob is not None
            data = self._worker.data
            shared = decode_shared(update.blob, data.shape, data.bits)
            self._samples.record_shared(shared, self._own.share)
        return self._coding.answer(coded, update)


def describe(update: Update, content: bytes) -> BlobHeader:
    """Return the header from which the cloud downloads ``content``, the encoded tensors of ``update``."""
    assert update.blob is not None
    chunks = []
    if update.kind == "share":
        view = memoryview(content)
        chunks = [hashlib.sha256(view[at : at + CHUNK]).hexdigest() for at in range(0, len(content), CHUNK)]
    return BlobHeader(sha256=update.blob.sha256, size=len(content), chunks=chunks)


def error_line(error: Exception) -> str:
    """Return an error on one line of at most 300 characters, for the cloud's log."""
    if isinstance(error, OSError):
        return f"{error.filename or 'disk'}: {error.strerror or error}"
    if isinstance(error, MemoryError):
        return "out of memory"
    return first_line(error)[:300]


def _read(blob: Blob | None) -> bytes:
    if blob is None:
        return b""
    return blob.source.read_bytes() if isinstance(blob.source, Path) else blob.source
