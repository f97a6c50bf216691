"""Named tensors in the safetensors format, in memory or on disk."""

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
    """Encoded named tensors, in memory or in a file. Equal tensors under equal names give equal bytes.

    Attributes:
        source: the bytes, or the file that contains them.
        sha256: SHA-256 of the bytes, in hexadecimal.
        size: number of bytes.
        lies_at: a durable file with the same bytes, or None. Writing the blob to another file then makes a
            hard link.
        offset: position of the bytes in the file if it contains several blobs (``write_together``), else
            None.
        syncing: completes when ``lies_at`` is durable, if it may not be yet; see ``sync_soon``.
    """

    source: bytes | Path
    sha256: str
    size: int
    lies_at: Path | None = None
    offset: int | None = None
    syncing: Future[None] | None = field(default=None, compare=False)

    @classmethod
    def of(cls, tensors: Mapping[str, Tensor]) -> Blob:
        """Encode CPU tensors. Values are preserved, strides are not."""
        encoded = encode(tensors)
        return cls(encoded, hashlib.sha256(encoded).hexdigest(), len(encoded))

    @classmethod
    def at(cls, path: Path, name: str | None = None) -> Blob:
        """Return the blob in a file, or the one with this name if the file contains several."""
        if name is not None and (position := _find(path, name)) is not None:
            offset, size = position
            digest = hashlib.sha256(_map_file(path, offset, size).numpy().data).hexdigest()
            return cls(path, digest, size, path, offset)
        hashed = hashlib.sha256()
        with path.open("rb") as file:
            while piece := file.read(1 << 18):
                hashed.update(piece)
        return cls(path, hashed.hexdigest(), path.stat().st_size, path)

    def open(self, select: Callable[[str], bool] = lambda name: True) -> dict[str, Tensor]:
        """Decode the tensors whose names ``select`` accepts; all by default."""
        if isinstance(self.source, Path):
            if self.offset is not None:
                return _decode(_map_file(self.source, self.offset, self.size), select)
            with safetensors.safe_open(self.source, framework="pt") as file:
                return {name: file.get_tensor(name) for name in file.offset_keys() if select(name)}
        return {name: value for name, value in safetensors.torch.load(self.source).items() if select(name)}

    def rows(self, name: str, start: int, stop: int) -> Tensor:
        """Return rows ``start`` to ``stop`` of one tensor (a scalar whole); read only these from a file."""
        if isinstance(self.source, Path) and self.offset is None:
            with safetensors.safe_open(self.source, framework="pt") as file:
                tensor = file.get_slice(name)
                value: Tensor = tensor[start:stop] if tensor.get_shape() else file.get_tensor(name)
                return value
        value = self.open(lambda other: other == name)[name]
        return value[start:stop] if value.dim() else value

    def write(self, path: Path, named: bool = True, over: Path | None = None) -> Blob:
        """Write the bytes to a file, atomically, and return the blob in that file.

        Args:
            path: replaced if it exists.
            named: make the bytes and the file's name durable before returning. If False, the bytes are
                durable once ``syncing`` completes, the name after ``sync(path.parent)``.
            over: an obsolete file on the same disk whose blocks are reused, which takes a fraction of the
                time that new blocks take. It is deleted, or left untouched if it has another hard link.
        """
        durable = self.lies_at
        if durable is None and isinstance(self.source, Path):
            durable = self.source
            sync(durable)
        if durable is not None and atomic_io.link(durable, path):
            offset, syncing = self.offset, self.syncing
        else:
            offset, syncing = None, None
            atomic_io.write(path, self._content(), over)
        if named:
            sync(path.parent)
            if syncing is not None:
                syncing.result()
        return Blob(path, self.sha256, self.size, path, offset, syncing)

    def _content(self) -> bytes | memoryview:
        if not isinstance(self.source, Path):
            return self.source
        if self.offset is None:
            return self.source.read_bytes()
        return _map_file(self.source, self.offset, self.size).numpy().data


def write_together(path: Path, states: Mapping[str, Mapping[str, Tensor]]) -> dict[str, Blob]:
    """Write several blobs to one file, because a disk writes and frees one file faster than many.

    The file is a safetensors file whose tensors are the bytes of the blobs. The bytes are durable once
    ``syncing`` of a blob completes, the name after ``sync(path.parent)``.

    Args:
        path: replaced if it exists.
        states: name -> named tensors.

    Returns:
        name -> its blob.
    """
    pieces = {name: _encode(tensors) for name, tensors in sorted(states.items())}
    sizes = {name: sum(map(len, pieces[name])) for name in pieces}
    content = b"".join(_file([(name, "U8", [sizes[name]], pieces[name]) for name in pieces], _SEVERAL_BLOBS))
    atomic_io.write(path, content, synced=False)
    syncing = sync_soon(path)
    blobs, offset = {}, len(content) - sum(sizes.values())
    for name, size in sizes.items():
        digest = hashlib.sha256(memoryview(content)[offset : offset + size]).hexdigest()
        blobs[name] = Blob(path, digest, size, path, offset, syncing)
        offset += size
    return blobs


_DTYPE_NAMES = {
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
"""Names of types in a safetensors file, in the order in which the file stores tensors."""

_DTYPE_ORDER = {dtype: order for order, dtype in enumerate(_DTYPE_NAMES)}

_DTYPES = {name: dtype for dtype, name in _DTYPE_NAMES.items()}

_SEVERAL_BLOBS = {"holds": "blobs"}
"""The metadata of a file of several blobs."""


def encode(tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> bytes:
    """Encode CPU tensors, byte for byte as ``safetensors.torch.save`` does, with one copy instead of four.

    With ``metadata``, the header's keys are sorted; safetensors writes them in a random order.
    """
    return b"".join(_encode(tensors, metadata))


_Pieces = list[bytes | memoryview]
"""Consecutive bytes."""


def _encode(tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> _Pieces:
    if any(tensor.dtype not in _DTYPE_ORDER for tensor in tensors.values()):
        copies = {
            name: tensor.clone(memory_format=torch.contiguous_format) for name, tensor in tensors.items()
        }
        return [safetensors.torch.save(copies, None if metadata is None else dict(metadata))]
    entries = []
    for name in sorted(tensors, key=lambda name: (_DTYPE_ORDER[tensors[name].dtype], name)):
        flat = tensors[name].detach().contiguous().reshape(-1).view(torch.uint8)
        pieces: _Pieces = [flat.numpy().data]
        entries.append((name, _DTYPE_NAMES[tensors[name].dtype], list(tensors[name].shape), pieces))
    return _file(entries, metadata)


def _file(
    entries: Sequence[tuple[str, str, list[int], _Pieces]], metadata: Mapping[str, str] | None
) -> _Pieces:
    """Return a safetensors file of entries (name, type, shape, bytes) in this order."""
    header: dict[str, Any] = {}
    start = 0
    for name, kind, shape, pieces in entries:
        stop = start + sum(map(len, pieces))
        header[name] = {"dtype": kind, "shape": shape, "data_offsets": [start, stop]}
        start = stop
    if metadata is None:
        text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    else:
        header["__metadata__"] = dict(metadata)
        text = json.dumps(header, separators=(",", ":"), sort_keys=True).encode()
    text += b" " * (-len(text) % 8)
    return [len(text).to_bytes(8, "little"), text, *(piece for *_, pieces in entries for piece in pieces)]


def _find(path: Path, name: str) -> tuple[int, int] | None:
    """Return the offset and size of a named blob in a file of several.

    Returns None if the file is of another kind or damaged; in the second case, the hash of the file will
    differ.
    """
    with path.open("rb") as file:
        file_size = path.stat().st_size
        length = int.from_bytes(file.read(8), "little")
        try:
            header = json.loads(file.read(min(length, file_size)))
            if header["__metadata__"] != _SEVERAL_BLOBS:
                return None
            start, stop = map(int, header[name]["data_offsets"])
        except (ValueError, KeyError, TypeError):
            return None
    offset = 8 + length
    return (offset + start, stop - start) if 0 <= start <= stop <= file_size - offset else None


def _map_file(path: Path, offset: int, size: int) -> Tensor:
    """Memory-map a blob in a file, in half of the time of ``safe_open``: (size,) uint8."""
    return torch.from_file(str(path), size=offset + size, dtype=torch.uint8)[offset:]


def _decode(content: Tensor, select: Callable[[str], bool]) -> dict[str, Tensor]:
    """Decode the bytes from ``encode``, (N,) uint8; the tensors share their memory."""
    data_start = 8 + int.from_bytes(content[:8].numpy().tobytes(), "little")
    header = json.loads(content[8:data_start].numpy().tobytes())
    tensors = {}
    for name in (name for name in header if name != "__metadata__" and select(name)):
        start, stop = header[name]["data_offsets"]
        dtype, flat = _DTYPES[header[name]["dtype"]], content[data_start + start : data_start + stop]
        if flat.storage_offset() % dtype.itemsize:
            flat = flat.clone()
        tensors[name] = flat.view(dtype).view(header[name]["shape"])
    return tensors
