"""Tensors as bytes: one safetensors file's content, in memory or on disk."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from sheaf.core import atomic_io
from sheaf.core.atomic_io import sync, sync_soon


@dataclass(frozen=True)
class Blob:
    """Named tensors, encoded, in memory or in a file. Equal tensors under equal names give equal bytes.

    Attributes:
        source: the bytes, or the file that holds them.
        sha256: of the bytes, in hexadecimal.
        size: bytes.
        lies_at: a file that holds the same bytes, synced to disk, if there is one: another file of them
            need not be written then, only linked.
        syncing: done when that is synced, where it may not be yet; see ``sync_soon``.
        begins: where in the file the bytes begin, if others lie there too (``write_together``).
    """

    source: bytes | Path
    sha256: str
    size: int
    lies_at: Path | None = None
    begins: int | None = None
    syncing: Future[None] | None = field(default=None, compare=False)

    @classmethod
    def of(cls, tensors: Mapping[str, Tensor]) -> Blob:
        """Encodes CPU tensors; strides are not kept, values are."""
        encoded = encode(tensors)
        return cls(encoded, hashlib.sha256(encoded).hexdigest(), len(encoded))

    @classmethod
    def at(cls, path: Path, name: str | None = None) -> Blob:
        """The blob that lies in a file, or the one of that name where several lie there."""
        if name is not None and (lies := _among(path, name)) is not None:
            begins, size = lies
            digest = hashlib.sha256(_mapped(path, begins, size).numpy().data).hexdigest()
            return cls(path, digest, size, path, begins)
        hashed = hashlib.sha256()
        with path.open("rb") as file:
            while piece := file.read(1 << 18):
                hashed.update(piece)
        return cls(path, hashed.hexdigest(), path.stat().st_size, path)

    def open(self, which: Callable[[str], bool] = lambda name: True) -> dict[str, Tensor]:
        """The tensors of these names, decoded anew."""
        if isinstance(self.source, Path):
            if self.begins is not None:
                return _decoded(_mapped(self.source, self.begins, self.size), which)
            with safetensors.safe_open(self.source, framework="pt") as file:
                return {name: file.get_tensor(name) for name in file.offset_keys() if which(name)}
        return {name: value for name, value in safetensors.torch.load(self.source).items() if which(name)}

    def rows(self, name: str, start: int, stop: int) -> Tensor:
        """Rows ``start`` to ``stop`` of one tensor, or all of it if it has no dimensions.

        No more than that is read where the bytes lie in a file.
        """
        if isinstance(self.source, Path) and self.begins is None:
            with safetensors.safe_open(self.source, framework="pt") as file:
                lying = file.get_slice(name)
                value: Tensor = lying[start:stop] if lying.get_shape() else file.get_tensor(name)
                return value
        value = self.open(lambda which: which == name)[name]
        return value[start:stop] if value.dim() else value

    def write(self, path: Path, named: bool = True, over: Path | None = None) -> Blob:
        """Puts the bytes into a file, wholly or not at all, and returns the blob that lies there.

        Args:
            named: the file is durable on return. If not, its bytes are, once ``syncing`` is done, and its
                name is after ``sync``.
            over: a file on the same disk that is of no use any more, and may be gone afterwards: its room is
                written over, which takes a fraction of the time that new room takes. Not if it has another
                name.
        """
        there = self.lies_at
        if there is None and isinstance(self.source, Path):
            there = self.source
            sync(there)
        if there is not None and atomic_io.link(there, path):
            begins, syncing = self.begins, self.syncing
        else:
            begins, syncing = None, None
            atomic_io.write(path, self._content(), over)
        if named:
            sync(path.parent)
            if syncing is not None:
                syncing.result()
        return Blob(path, self.sha256, self.size, path, begins, syncing)

    def _content(self) -> bytes | memoryview:
        if not isinstance(self.source, Path):
            return self.source
        if self.begins is None:
            return self.source.read_bytes()
        return _mapped(self.source, self.begins, self.size).numpy().data


def write_together(path: Path, states: Mapping[str, Mapping[str, Tensor]]) -> dict[str, Blob]:
    """Puts the blobs of several into one file, whose bytes are durable once ``syncing`` is done.

    Its name is after ``sync``. A disk takes one file in less time than many, above all when it is given back.
    The file is a safetensors file too: each blob's bytes are a tensor of it.
    """
    each = {name: _encoded(tensors) for name, tensors in sorted(states.items())}
    sizes = {name: sum(map(len, pieces)) for name, pieces in each.items()}
    content = b"".join(_laid_out([(name, "U8", [sizes[name]], each[name]) for name in each], TOGETHER))
    atomic_io.write(path, content, synced=False)
    syncing = sync_soon(path)
    blobs, begins = {}, len(content) - sum(sizes.values())
    for name, size in sizes.items():
        digest = hashlib.sha256(memoryview(content)[begins : begins + size]).hexdigest()
        blobs[name] = Blob(path, digest, size, path, begins, syncing)
        begins += size
    return blobs


_NAMES = {
    torch.uint64: "U64",
    torch.int64: "I64",
    torch.float64: "F64",
    torch.complex64: "C64",
    torch.float32: "F32",
    torch.uint32: "U32",
    torch.int32: "I32",
    torch.bfloat16: "BF16",
    torch.float16: "F16",
    torch.uint16: "U16",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}
"""Types as a safetensors file names them, in the order in which tensors lie in it."""


_PLACES = {dtype: place for place, dtype in enumerate(_NAMES)}


_TYPES = {name: dtype for dtype, name in _NAMES.items()}


TOGETHER = {"holds": "blobs"}
"""What the header of a file of several blobs says."""


def encode(tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> bytes:
    """What ``safetensors.torch.save`` gives, byte for byte, with each tensor copied once, not four times.

    With ``metadata``, the header has its keys sorted: safetensors writes these in an order of chance.
    """
    return b"".join(_encoded(tensors, metadata))


_Pieces = list[bytes | memoryview]
"""Bytes that follow one another."""


def _encoded(tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> _Pieces:
    if any(tensor.dtype not in _PLACES for tensor in tensors.values()):
        apart = {
            name: tensor.clone(memory_format=torch.contiguous_format) for name, tensor in tensors.items()
        }
        return [safetensors.torch.save(apart, None if metadata is None else dict(metadata))]
    parts = []
    for name in sorted(tensors, key=lambda name: (_PLACES[tensors[name].dtype], name)):
        flat = tensors[name].detach().contiguous().reshape(-1).view(torch.uint8)
        pieces: _Pieces = [flat.numpy().data]
        parts.append((name, _NAMES[tensors[name].dtype], list(tensors[name].shape), pieces))
    return _laid_out(parts, metadata)


def _laid_out(
    parts: Sequence[tuple[str, str, list[int], _Pieces]], metadata: Mapping[str, str] | None
) -> _Pieces:
    """A safetensors file of (name, type, shape, bytes), in this order: header and bytes."""
    header: dict[str, Any] = {}
    at = 0
    for name, kind, shape, pieces in parts:
        stop = at + sum(map(len, pieces))
        header[name] = {"dtype": kind, "shape": shape, "data_offsets": [at, stop]}
        at = stop
    if metadata is None:
        text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    else:
        header["__metadata__"] = dict(metadata)
        text = json.dumps(header, separators=(",", ":"), sort_keys=True).encode()
    text += b" " * (-len(text) % 8)
    return [len(text).to_bytes(8, "little"), text, *(piece for *_, pieces in parts for piece in pieces)]


def _among(path: Path, name: str) -> tuple[int, int] | None:
    """Where the blob of this name begins in a file of several, and its size; None if it is not such a file.

    None too where the file is damaged, as the hash of the whole will tell.
    """
    with path.open("rb") as file:
        there = path.stat().st_size
        length = int.from_bytes(file.read(8), "little")
        try:
            header = json.loads(file.read(min(length, there)))
            if header["__metadata__"] != TOGETHER:
                return None
            start, stop = map(int, header[name]["data_offsets"])
        except (ValueError, KeyError, TypeError):
            return None
    begins = 8 + length
    return (begins + start, stop - start) if 0 <= start <= stop <= there - begins else None


def _mapped(path: Path, begins: int, size: int) -> Tensor:
    """(size) uint8: a map of what lies there, in half of the time that ``safe_open`` takes."""
    return torch.from_file(str(path), size=begins + size, dtype=torch.uint8)[begins:]


def _decoded(content: Tensor, which: Callable[[str], bool]) -> dict[str, Tensor]:
    """The tensors of what ``encode`` gave, (N) uint8, in the same memory."""
    begin = 8 + int.from_bytes(content[:8].numpy().tobytes(), "little")
    header = json.loads(content[8:begin].numpy().tobytes())
    found = {}
    for name in (name for name in header if name != "__metadata__" and which(name)):
        start, stop = header[name]["data_offsets"]
        dtype, flat = _TYPES[header[name]["dtype"]], content[begin + start : begin + stop]
        if flat.storage_offset() % dtype.itemsize:
            flat = flat.clone()
        found[name] = flat.view(dtype).view(header[name]["shape"])
    return found
