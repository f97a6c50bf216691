"""A site's side of coded messages: decode the parameters of tasks, encode those of answers."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from functools import cached_property
from pathlib import Path

from sheaf.core.coding import decoded_blob
from sheaf.core.errors import FleetError
from sheaf.core.lazy_blob import TensorBlob, origin_of, spill
from sheaf.core.seeds import seed_for
from sheaf.core.task import Task, Update
from sheaf.core.tensor_file import Blob
from sheaf.core.types import Params
from sheaf.runtime.call_files import CallFiles
from sheaf.runtime.coded_params import DecodedBlob, encodable, encode, is_exact
from sheaf.training.network import Network

IN_MEMORY = 2**27
"""Encoded answers of one call are kept in memory up to this size together, and in unnamed files beyond it."""


def encode_answer(
    task: Task, params: Params, reference: Params | None, names: Collection[str], error: Params | None = None
) -> tuple[Params, Params]:
    """Encode the parameters of an answer; see ``coded_params.encode``. Repeating it gives the same bits."""
    assert task.coding is not None
    seed = seed_for(task.seed, "upload")
    return encode(params, task.coding.upload, names, seed, reference, error)


class SiteCoding:
    """The models that a site received, to which differences refer, and the errors of its encodings.

    Both are in durable files, each of the call that gave it: a task that is repeated, after a crash of the
    site or of the cloud, gives the same answer. A site in the process of the cloud has no files of received
    models, which a resumed run replays.

    Args:
        network: the global model.
        folder: for the files.
        site: the site's name.
    """

    def __init__(self, network: Network, folder: Path, site: str) -> None:
        self._network = network
        self._folder = folder
        self._site = site

    @cached_property
    def _received(self) -> CallFiles:
        return CallFiles(self._folder, self._site, "received")

    @cached_property
    def _errors(self) -> CallFiles:
        return CallFiles(self._folder, self._site, "error")

    @cached_property
    def _names(self) -> frozenset[str]:
        return encodable(self._network)

    def receive(self, task: Task) -> Task:
        """Return the task with decoded parameters, which are stored durably.

        Raises:
            FleetError: the device does not hold the model that a difference refers to, or decodes others.
            ValueError: the message is malformed.
        """
        coding = task.coding
        if coding is None or task.blob is None or not task.has_parameters:
            return task
        blob = task.blob
        if coding.base or not is_exact(coding.download):
            base = self._model(coding.base)
            if base is not None and is_exact(coding.download):
                blob = _completed(base, blob)
            else:
                shapes = self._network.shapes(task.cut, task.blocks)
                blob = Blob.of(DecodedBlob(blob, shapes, coding.download, self._names, base).open())
            if blob.key != coding.digest:
                raise FleetError(
                    f"the parameters of call {task.call} have the hash {blob.key} instead of "
                    f"{coding.digest}; install the same versions of sheaf and torch on cloud and device"
                )
        return replace(task, blob=self._received.keep(task.call, blob, coding.base))

    def hold(self, task: Task) -> Task:
        """Return the task with decoded parameters, for a site in the process of the cloud."""
        if task.coding is None or not task.has_parameters:
            return task
        blob = decoded_blob(task.blob)
        self._received.hold(task.call, blob, task.coding.base)
        return replace(task, blob=blob)

    def answer(self, task: Task, update: Update, sites: int = 1) -> Update:
        """Return the answer to a task with encoded parameters.

        Args:
            task: the task.
            update: the answer in float32.
            sites: the number of sites whose answers may be in memory.

        Raises:
            FleetError: the device does not hold the model that the difference refers to.
        """
        coding = task.coding
        if coding is None or update.blob is None or is_exact(coding.upload):
            return update
        reference, params = self._model(coding.reference), update.blob.open()
        error = self._errors.at(coding.feedback) if coding.feedback else None
        opened = [None if blob is None else blob.open() for blob in (reference, error)]
        encoded, errors = encode_answer(task, params, opened[0], self._names, opened[1])
        if errors:
            self._errors.keep(task.call, Blob.of(errors), coding.feedback)
        if not isinstance(update.blob, TensorBlob):
            if update.blob.syncing is not None:
                update.blob.syncing.result()  # the held model is durable before the answer
            return replace(update, blob=Blob.of(encoded))
        blob = TensorBlob(encoded)
        if blob.size * sites > IN_MEMORY:
            encoded = spill(self._folder / f"{self._site}.encoded", {self._site: encoded})[self._site]
        return replace(update, blob=TensorBlob(encoded, blob.size, origin=origin_of(update.blob)))

    def _model(self, call: int) -> Blob | None:
        """Return the model that the site received in a call; None for 0."""
        if call == 0:
            return None
        if (blob := self._received.at(call)) is None:
            raise FleetError(
                f"the device does not hold the model of call {call}, to which the cloud refers; "
                "the cloud sends the whole model in its next call"
            )
        return blob


def _completed(base: Blob, changed: Blob) -> Blob:
    """Return the parameters of ``base`` with those that have changed.

    Raises:
        FleetError: ``base`` has no such parameter.
    """
    params, new = base.open(), changed.open()
    for name, value in new.items():
        if name not in params or value.shape != params[name].shape or value.dtype != params[name].dtype:
            raise FleetError(f"{name!r} of the message, {tuple(value.shape)}, is not in the earlier model")
    return Blob.of({**params, **new})
