"""Named tensors in the safetensors format, in memory or on disk."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import safetensors
import safetensors.torch
import torch
import xxhash
from torch import Tensor

from sheaf.core import atomic_io
from sheaf.core.atomic_io import sync, sync_soon


class Lease(Protocol):
    """Keeps the file of a blob: its owner deletes the file after the last blob with the lease is gone."""

    def read(self, blob: Blob) -> Blob:
        """Report that ``blob`` is read, and return the blob to read instead: the same one, or its file."""
        ...


@dataclass(frozen=True)
class Blob:
    """Encoded named tensors, in memory or in a file. Equal tensors under equal names give equal bytes.

    Attributes:
        source: the bytes, or the file that contains them.
        digest: SHA-256 of the bytes, in hexadecimal; None: not computed yet, see ``sha256``.
        size: number of bytes.
        lies_at: a durable file with the same bytes, or None. Writing the blob to another file then makes a
            hard link.
        offset: position of the bytes in the file if it contains several blobs (``write_together``), else
            None.
        syncing: completes when ``lies_at`` is durable, if it may not be yet; see ``sync_soon``.
        lease: keeps the file, if its owner deletes it when no blob needs it; None if it stays.
    """

    source: bytes | Path
    digest: str | None = field(compare=False)
    size: int
    lies_at: Path | None = None
    offset: int | None = None
    syncing: Future[None] | None = field(default=None, compare=False)
    lease: Lease | None = field(default=None, compare=False)

    @classmethod
    def of(cls, tensors: Mapping[str, Tensor]) -> Blob:
        """Encode CPU tensors. Values are preserved, strides are not."""
        encoded = encode(tensors)
        return cls(encoded, None, len(encoded))

    @classmethod
    def at(cls, path: Path, name: str | None = None) -> Blob:
        """Return the blob in a file, or the one with this name if the file contains several."""
        if name is not None and (position := _find(path, name)) is not None:
            offset, size = position
            return cls(path, None, size, path, offset)
        return cls(path, None, path.stat().st_size, path)

    @cached_property
    def sha256(self) -> str:
        """SHA-256 of the bytes, in hexadecimal."""
        return self.digest or self._hash(hashlib.sha256())

    @cached_property
    def key(self) -> str:
        """XXH3 of the bytes, in hexadecimal: detects other content, but no forgery."""
        return self._hash(xxhash.xxh3_128())

    def open(self, select: Callable[[str], bool] = lambda name: True) -> dict[str, Tensor]:
        """Decode the tensors whose names ``select`` accepts; all by default."""
        if self.lease is not None:
            self.lease.read(self)
        if isinstance(self.source, Path):
            if self.offset is not None:
                return _decode(_map_file(self.source, self.offset, self.size), select)
            with safetensors.safe_open(self.source, framework="pt") as file:
                return {name: file.get_tensor(name) for name in file.offset_keys() if select(name)}
        return {name: value for name, value in safetensors.torch.load(self.source).items() if select(name)}

    def open_strided(self) -> dict[str, Tensor]:
        """Decode all tensors, with any strides; ``open`` returns contiguous ones."""
        return self.open()

    def rows(self, name: str, start: int, stop: int) -> Tensor:
        """Return rows ``start`` to ``stop`` of one tensor (a scalar whole); read only these from a file."""
        if self.lease is not None:
            self.lease.read(self)
        if isinstance(self.source, Path) and self.offset is None:
            with safetensors.safe_open(self.source, framework="pt") as file:
                tensor = file.get_slice(name)
                value: Tensor = tensor[start:stop] if tensor.get_shape() else file.get_tensor(name)
                return value
        value = self.open(lambda other: other == name)[name]
        return value[start:stop] if value.dim() else value

    def decode_from(self, content: Tensor) -> dict[str, Tensor]:
        """Decode the blob from its whole file, (N,) uint8; the tensors share the memory."""
        offset = self.offset or 0
        return _decode(content[offset : offset + self.size], lambda name: True)

    def write(self, path: Path, named: bool = True, over: Path | None = None) -> Blob:
        """Write the bytes to a file, atomically, and return the blob in that file, without the lease.

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
        return with_hashes(Blob(path, self.digest, self.size, path, offset, syncing), self)

    def _hash(self, digest: Any) -> str:
        """Update the hash with the bytes and return it in hexadecimal."""
        if isinstance(self.source, Path) and self.offset is None:
            with self.source.open("rb") as file:
                while piece := file.read(1 << 18):
                    digest.update(piece)
        else:
            digest.update(self._content())
        return str(digest.hexdigest())

    def _content(self) -> bytes | memoryview:
        if not isinstance(self.source, Path):
            return self.source
        if self.offset is None:
            return self.source.read_bytes()
        return _map_file(self.source, self.offset, self.size).numpy().data


def with_hashes(blob: Blob, same: Blob) -> Blob:
    """Return ``blob`` with the hashes that were computed of the ``same`` bytes."""
    vars(blob).update({name: vars(same)[name] for name in ("sha256", "key") if name in vars(same)})
    return blob


def write_together(
    path: Path, states: Mapping[str, Mapping[str, Tensor]], synced: bool = True
) -> dict[str, Blob]:
    """Write several blobs to one file, because a disk writes and frees one file faster than many.

    The file is a safetensors file whose tensors are the bytes of the blobs. The bytes are durable once
    ``syncing`` of a blob completes, the name after ``sync(path.parent)``.

    Args:
        path: replaced if it exists.
        states: name -> named tensors.
        synced: make the bytes durable. Otherwise there is no ``syncing``.

    Returns:
        name -> its blob.
    """
    pieces = {name: encode_pieces(tensors) for name, tensors in sorted(states.items())}
    sizes = {name: sum(map(len, pieces[name])) for name in pieces}
    content = b"".join(_file([(name, "U8", [sizes[name]], pieces[name]) for name in pieces], _SEVERAL_BLOBS))
    atomic_io.write(path, content, synced=False)
    syncing = sync_soon(path) if synced else None
    blobs, offset = {}, len(content) - sum(sizes.values())
    for name, size in sizes.items():
        blobs[name] = Blob(path, None, size, path, offset, syncing)
        if synced:  # while the bytes are in memory
            vars(blobs[name])["key"] = xxhash.xxh3_128_hexdigest(memoryview(content)[offset : offset + size])
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
    return b"".join(encode_pieces(tensors, metadata))


def encoded_size(tensors: Mapping[str, Tensor]) -> int:
    """Return the length of ``encode(tensors)``, from names, types and shapes only."""
    if any(tensor.dtype not in _DTYPE_ORDER for tensor in tensors.values()):
        return sum(map(len, encode_pieces(tensors)))
    names = sorted(tensors, key=lambda name: (_DTYPE_ORDER[tensors[name].dtype], name))
    sizes = [
        (name, _DTYPE_NAMES[tensors[name].dtype], list(tensors[name].shape), tensors[name].nbytes)
        for name in names
    ]
    return sum(map(len, _head(sizes, None))) + sum(value.nbytes for value in tensors.values())


Pieces = list[bytes | memoryview]
"""Consecutive bytes."""


def encode_pieces(tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> Pieces:
    """Return the bytes of ``encode`` in consecutive pieces, mostly without copying tensors."""
    if any(tensor.dtype not in _DTYPE_ORDER for tensor in tensors.values()):
        copies = {
            name: tensor.clone(memory_format=torch.contiguous_format) for name, tensor in tensors.items()
        }
        return [safetensors.torch.save(copies, None if metadata is None else dict(metadata))]
    entries = []
    for name in sorted(tensors, key=lambda name: (_DTYPE_ORDER[tensors[name].dtype], name)):
        flat = tensors[name].detach().contiguous().reshape(-1).view(torch.uint8)
        pieces: Pieces = [flat.numpy().data]
        entries.append((name, _DTYPE_NAMES[tensors[name].dtype], list(tensors[name].shape), pieces))
    return _file(entries, metadata)


def _file(
    entries: Sequence[tuple[str, str, list[int], Pieces]], metadata: Mapping[str, str] | None
) -> Pieces:
    """Return a safetensors file of entries (name, type, shape, bytes) in this order."""
    sizes = [(name, kind, shape, sum(map(len, pieces))) for name, kind, shape, pieces in entries]
    return [*_head(sizes, metadata), *(piece for *_, pieces in entries for piece in pieces)]


def _head(
    entries: Sequence[tuple[str, str, list[int], int]], metadata: Mapping[str, str] | None
) -> list[bytes]:
    """Return the first bytes of a safetensors file of entries (name, type, shape, number of bytes)."""
    header: dict[str, Any] = {}
    start = 0
    for name, kind, shape, size in entries:
        stop = start + size
        header[name] = {"dtype": kind, "shape": shape, "data_offsets": [start, stop]}
        start = stop
    if metadata is None:
        text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    else:
        header["__metadata__"] = dict(metadata)
        text = json.dumps(header, separators=(",", ":"), sort_keys=True).encode()
    text += b" " * (-len(text) % 8)
    return [len(text).to_bytes(8, "little"), text]


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
