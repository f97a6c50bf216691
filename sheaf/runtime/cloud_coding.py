"""The cloud's side of coded messages: encode the parameters of tasks, decode those of answers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache, cached_property
from typing import Any

from torch import Tensor

from sheaf.codecs.float32 import Float32
from sheaf.core.coding import Codec, CodedBlob, Coding, decoded_blob
from sheaf.core.cut import Cut
from sheaf.core.lazy_blob import LazyBlob, TensorBlob
from sheaf.core.seeds import seed_for
from sheaf.core.stored_params import StoredParams
from sheaf.core.task import Absence, Task, Update
from sheaf.core.tensor_file import Blob, encoded_size
from sheaf.core.types import Params
from sheaf.runtime.coded_params import DecodedBlob, encodable, encode, is_exact, layout
from sheaf.runtime.edge_tensors import constants_of
from sheaf.runtime.site_coding import encode_answer
from sheaf.training.network import Blocks, Network

EXACT = Float32()

ANSWERED = ("train", "choose", "restat", "refit")
"""Kinds of tasks whose answers are encoded. A model for the record (``collect``) is sent exactly."""

Record = Callable[[str, Callable[[], Params]], StoredParams]
"""Returns the recorded result of a computation, given its description; see ``Calls.merged``."""


@dataclass(frozen=True)
class Held:
    """A model that a site received.

    Attributes:
        call: the call that sent it.
        cut: its sub-model.
        blocks: of the whole model, see ``Task``.
        blob: the parameters that the site decoded.
    """

    call: int
    cut: Cut | None
    blocks: Blocks
    blob: Blob


@dataclass(frozen=True)
class Changes:
    """The parameters in which a model differs from the model of an earlier call.

    Attributes:
        call: number of the earlier call. With 0 the model is sent whole, and the sites store it.
        sites: the sites that hold its model.
        names: the parameters that differ.
    """

    call: int = 0
    sites: frozenset[str] = frozenset()
    names: tuple[str, ...] = ()

    def fields(self, site: str, theta: Params, whole: Blob, shapes: Params) -> dict[str, Any]:
        """Return the fields of a task that sends only these parameters to a site that has the others.

        Args:
            site: the site.
            theta: the model.
            whole: its encoding.
            shapes: its names, types and shapes.
        """
        if site not in self.sites:
            return {"coding": Coding()}
        size = encoded_size({name: shapes[name] for name in self.names})
        changed = LazyBlob(lambda: TensorBlob({name: theta[name] for name in self.names}), size)
        blob = CodedBlob(changed, whole, f"{whole.key} {self.names}")
        return {"blob": blob, "coding": Coding(base=self.call, digest=whole.key)}


class CloudCoding:
    """Codes the messages of a run's edges, which all go through one object, in the order of calls.

    An edge holds the model of the latest call whose parameters it answered. After an absence, the edge may
    have received them or not: its next parameters are whole.

    Args:
        network: the global model; None if both codecs are ``float32``, which change nothing.
        download: the codec of parameters that the cloud sends.
        upload: the codec of parameters that edges send.
        of_edges: edge -> its codec in both directions, instead of these.
    """

    def __init__(
        self,
        network: Network | None = None,
        download: Codec = EXACT,
        upload: Codec = EXACT,
        of_edges: Mapping[str, Codec] | None = None,
    ) -> None:
        self._model = network
        self._codecs = download, upload
        self._of_edges = {site: (codec, codec) for site, codec in (of_edges or {}).items()}
        pairs = self._codecs, *self._of_edges.values()
        self._changes_nothing = all(is_exact(codec) for pair in pairs for codec in pair)
        self._held: dict[str, Held] = {}
        self._acknowledged: dict[str, tuple[int, Cut | None]] = {}  # the latest usable answer

    def encode(self, tasks: Mapping[str, Task], record: Record) -> dict[str, Task]:
        """Return the tasks of a call with encoded parameters.

        Edges with equal parameters that hold equal models get the same blob.

        Args:
            tasks: edge -> its task.
            record: records the parameters that edges decode, so that a resumed run has them.
        """
        if self._changes_nothing:
            return dict(tasks)
        blobs: dict[tuple[str, str, str], CodedBlob] = {}
        return {site: self._encode(site, task, blobs, record) for site, task in tasks.items()}

    def is_exact(self, site: str) -> bool:
        """Return whether both codecs of a site leave parameters as they are."""
        return all(map(is_exact, self._of(site)))

    def _of(self, site: str) -> tuple[Codec, Codec]:
        """Return the codecs of the parameters that a site receives and sends."""
        return self._of_edges.get(site, self._codecs)

    def _encode(
        self, site: str, task: Task, blobs: dict[tuple[str, str, str], CodedBlob], record: Record
    ) -> Task:
        if self.is_exact(site):
            return task
        download, upload = self._of(site)
        held = self._held.get(site)
        if held is not None and (held.cut, held.blocks) != (task.cut, task.blocks):
            held = None
        sends = task.has_parameters
        answers = task.kind in ANSWERED and task.reply
        if not (sends or answers):
            return task
        coding = Coding()
        if sends and self._encodes(task, held, download):
            assert task.blob is not None
            key = task.blob.key, "" if held is None else held.blob.key, repr(download)
            if key not in blobs:
                blobs[key] = self._coded(task, held, record, download)
            task = replace(task, blob=blobs[key])
            coding = Coding(
                download=download,
                base=0 if held is None else held.call,
                digest=blobs[key].decoded.key,
            )
        reference = task.call if sends else 0 if held is None else held.call
        if answers and not is_exact(upload) and (reference or not upload.feedback):
            call, cut = self._acknowledged.get(site, (0, None))
            feedback = call if upload.feedback and cut == task.cut else 0
            coding = replace(coding, upload=upload, reference=reference, feedback=feedback)
        return replace(task, coding=coding)

    def _encodes(self, task: Task, held: Held | None, codec: Codec) -> bool:
        """Return whether the parameters of a task are encoded. Otherwise they are sent as float32.

        A codec that omits values needs a model that the edge holds and later calls that send them, which a
        model to adopt may not have.
        """
        if is_exact(codec) or (codec.feedback and (held is None or task.kind != "train")):
            return False
        assert task.blob is not None
        known = self._network.shapes(task.cut, task.blocks) | constants_of(task.blob)
        return task.blob.size == encoded_size(known)  # nothing else beside the parameters

    def _coded(self, task: Task, held: Held | None, record: Record, codec: Codec) -> CodedBlob:
        """Return the parameters of a task encoded, and record those that a site decodes."""
        blob = task.blob
        assert blob is not None
        shapes = self._network.shapes(task.cut, task.blocks)
        base = None if held is None else held.blob

        @cache
        def encoded() -> Mapping[str, Tensor]:
            seed = seed_for(task.seed, "download")
            return encode(blob.open(), codec, self._names, seed, None if base is None else base.open())[0]

        def decoded() -> Params:
            return DecodedBlob(TensorBlob(encoded()), shapes, codec, self._names, base).open()

        of = f"parameters sent by {type(codec).__name__}{'' if held is None else f' after call {held.call}'}"
        stored = record(of, decoded).blob
        size = encoded_size(layout(shapes, codec, self._names) | constants_of(blob))
        return CodedBlob(LazyBlob(lambda: TensorBlob(encoded()), size), stored, f"coded {stored.key}")

    def decode(self, task: Task, update: Update) -> Update:
        """Return an answer whose parameters are decoded when they are read."""
        coding = task.coding
        if coding is None or update.blob is None or is_exact(coding.upload):
            return update
        shapes, reference = self._network.shapes(task.cut), self._reference(update.site, task)
        return replace(update, blob=DecodedBlob(update.blob, shapes, coding.upload, self._names, reference))

    def encode_again(self, site: str, task: Task, model: Callable[[str], Blob]) -> Blob:
        """Return the encoded parameters of an answer that the journal does not hold.

        Args:
            site: the edge, which is in this process.
            task: its task.
            model: returns the model that the edge trained.
        """
        blob = model(site)
        if task.coding is None or is_exact(task.coding.upload):
            return blob
        reference = self._reference(site, task)
        opened = None if reference is None else reference.open()
        return TensorBlob(encode_answer(task, blob.open(), opened, self._names)[0])

    def settle(
        self,
        tasks: Mapping[str, Task],
        answers: Mapping[str, Update | Absence | None],
        flaws: Mapping[str, str | None],
    ) -> None:
        """Note which edges hold the parameters of a call, and which answers were usable.

        Args:
            tasks: edge -> its task, encoded.
            answers: edge -> its answer.
            flaws: edge -> why its answer cannot be used.
        """
        for site, task in tasks.items():
            if task.coding is None or self.is_exact(site):
                continue
            answered = isinstance(answers.get(site), Update)
            if task.has_parameters:
                self._held.pop(site, None)
                if answered and (blob := decoded_blob(task.blob)) is not None:
                    self._held[site] = Held(task.call, task.cut, task.blocks, blob)
            if answered and task.coding.upload.feedback and flaws.get(site) is None:
                self._acknowledged[site] = task.call, task.cut
        self._drop_old_cuts()

    def _drop_old_cuts(self) -> None:
        """Drop exact sub-models of earlier calls, each of which keeps a whole model in memory."""
        latest = max((held.call for held in self._held.values()), default=0)
        self._held = {
            site: held
            for site, held in self._held.items()
            if held.cut is None or held.call == latest or not is_exact(self._of(site)[0])
        }

    @property
    def _network(self) -> Network:
        assert self._model is not None
        return self._model

    @cached_property
    def _names(self) -> frozenset[str]:
        return encodable(self._network)

    def _reference(self, site: str, task: Task) -> Blob | None:
        """Return the model to which the parameters of an answer are differences."""
        assert task.coding is not None
        if task.coding.reference == 0:
            return None
        return decoded_blob(task.blob) if task.has_parameters else self._held[site].blob
