"""Tensors as bytes: one safetensors file's content, in memory or on disk."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor


@dataclass(frozen=True)
class Blob:
    """Named tensors, encoded, in memory or in a file. Equal tensors under equal names give equal bytes.

    Attributes:
        source: the bytes, or the file that holds them.
        sha256: of the bytes, in hexadecimal.
        size: bytes.
        lies_at: a file that holds the same bytes, synced to disk, if there is one: another file of them
            need not be written then, only linked.
        among: where the bytes lie in a file beside others (``write_together``), what they are called there.
    """

    source: bytes | Path
    sha256: str
    size: int
    lies_at: Path | None = None
    among: str | None = None

    @classmethod
    def of(cls, tensors: Mapping[str, Tensor]) -> Blob:
        """Encodes CPU tensors; strides are not kept, values are."""
        encoded = encode(tensors)
        return cls(encoded, hashlib.sha256(encoded).hexdigest(), len(encoded))

    @classmethod
    def at(cls, path: Path, name: str | None = None) -> Blob:
        """The blob that lies in a file, or the one of that name where several lie there."""
        if name is not None and (lying := _among(path, name)) is not None:
            return cls(path, hashlib.sha256(lying.numpy().data).hexdigest(), len(lying), path, name)
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        return cls(path, digest, path.stat().st_size, path)

    def open(self, which: Callable[[str], bool] = lambda name: True) -> dict[str, Tensor]:
        """The tensors of these names, decoded anew."""
        if isinstance(self.source, Path):
            if self.among is not None:
                return _decoded(self._lying(), which)
            with safetensors.safe_open(self.source, framework="pt") as file:
                return {name: file.get_tensor(name) for name in file.offset_keys() if which(name)}
        return {name: value for name, value in safetensors.torch.load(self.source).items() if which(name)}

    def rows(self, name: str, start: int, stop: int) -> Tensor:
        """Rows ``start`` to ``stop`` of one tensor, or all of it if it has no dimensions.

        No more than that is read where the bytes lie in a file.
        """
        if isinstance(self.source, Path) and self.among is None:
            with safetensors.safe_open(self.source, framework="pt") as file:
                lying = file.get_slice(name)
                value: Tensor = lying[start:stop] if lying.get_shape() else file.get_tensor(name)
                return value
        value = self.open(lambda which: which == name)[name]
        return value[start:stop] if value.dim() else value

    def write(self, path: Path, named: bool = True, over: Path | None = None) -> Blob:
        """Puts the bytes into a file, wholly or not at all, and returns the blob that lies there.

        Args:
            named: the file is durable on return. If not, its bytes are, and its name is after ``sync``.
            over: a file on the same disk that is of no use any more, and may be gone afterwards: its room is
                written over, which takes a fraction of the time that new room takes. Not if it has another
                name.
        """
        there = self.lies_at
        if there is None and isinstance(self.source, Path):
            there = self.source
            sync(there)
        linked = there is not None and _link(there, path)
        if not linked:
            _write(path, self._content(), over)
        if named:
            sync(path.parent)
        return Blob(path, self.sha256, self.size, path, self.among if linked else None)

    def _content(self) -> bytes | memoryview:
        if not isinstance(self.source, Path):
            return self.source
        return self.source.read_bytes() if self.among is None else self._lying().numpy().data

    def _lying(self) -> Tensor:
        """The bytes, (N) uint8, in a map of the file: in half of the time that ``safe_open`` takes."""
        assert isinstance(self.source, Path)
        assert self.among is not None
        size = self.source.stat().st_size
        whole = torch.from_file(str(self.source), size=size, dtype=torch.uint8)
        return _decoded(whole, lambda name: name == self.among)[self.among]


def write_together(path: Path, blobs: Mapping[str, Blob]) -> dict[str, Blob]:
    """Puts blobs that are in memory into one file, whose bytes are durable on return; its name is not yet.

    A disk takes one file in less time than many, above all when it is given back. The file is a safetensors
    file too: each blob's bytes are a tensor of it.
    """
    parts = []
    for name, blob in sorted(blobs.items()):
        assert isinstance(blob.source, bytes)
        parts.append((name, "U8", [blob.size], memoryview(blob.source)))
    _write(path, _laid_out(parts, TOGETHER))
    return {name: Blob(path, blob.sha256, blob.size, path, name) for name, blob in blobs.items()}


def write_durably(path: Path, content: bytes | bytearray | memoryview, named: bool = True) -> None:
    """Writes a file that, after a crash at any moment, is there whole or not there at all.

    Args:
        named: see ``Blob.write``.
    """
    _write(path, content)
    if named:
        sync(path.parent)


def sync(path: Path) -> None:
    """Makes a file's bytes durable, or the names of a folder's files."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _write(path: Path, content: bytes | bytearray | memoryview, over: Path | None = None) -> None:
    half = path.with_name(path.name + ".part")
    half.unlink(missing_ok=True)
    if over is not None and over.stat().st_nlink == 1:
        over.replace(half)
    try:
        with half.open("r+b" if half.exists() else "wb") as file:
            file.write(content)
            file.truncate()
            file.flush()
            os.fsync(file.fileno())
        half.replace(path)
    except BaseException:
        half.unlink(missing_ok=True)
        raise


def _link(there: Path, path: Path) -> bool:
    """Gives the file ``there`` a second name. False where that cannot be: it is gone, or on another disk."""
    try:
        os.link(there, path)
    except FileExistsError:
        return _link_over(there, path)
    except OSError:
        return False
    return True


def _link_over(there: Path, path: Path) -> bool:
    """The same where ``path`` is the name of a file, until it is that of ``there``."""
    half = path.with_name(path.name + ".part")
    try:
        half.unlink(missing_ok=True)
        os.link(there, half)
    except OSError:
        return False
    half.replace(path)
    half.unlink(missing_ok=True)  # where both were names of one file already, replacing did nothing
    return True


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
    if any(tensor.dtype not in _PLACES for tensor in tensors.values()):
        apart = {
            name: tensor.clone(memory_format=torch.contiguous_format) for name, tensor in tensors.items()
        }
        return safetensors.torch.save(apart, None if metadata is None else dict(metadata))
    parts = []
    for name in sorted(tensors, key=lambda name: (_PLACES[tensors[name].dtype], name)):
        flat = tensors[name].detach().contiguous().reshape(-1).view(torch.uint8)
        parts.append((name, _NAMES[tensors[name].dtype], list(tensors[name].shape), flat.numpy().data))
    return _laid_out(parts, metadata)


def _laid_out(
    parts: Sequence[tuple[str, str, list[int], memoryview]], metadata: Mapping[str, str] | None
) -> bytes:
    """A safetensors file of (name, type, shape, bytes), in this order."""
    header: dict[str, Any] = {}
    at = 0
    for name, kind, shape, flat in parts:
        stop = at + flat.nbytes
        header[name] = {"dtype": kind, "shape": shape, "data_offsets": [at, stop]}
        at = stop
    if metadata is None:
        text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    else:
        header["__metadata__"] = dict(metadata)
        text = json.dumps(header, separators=(",", ":"), sort_keys=True).encode()
    text += b" " * (-len(text) % 8)
    return b"".join([len(text).to_bytes(8, "little"), text, *(flat for *_, flat in parts)])


def _among(path: Path, name: str) -> Tensor | None:
    """(N) uint8: the blob of this name in a file of several; None if it is not such a file."""
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            if file.metadata() == TOGETHER and name in file.keys():  # noqa: SIM118  # it is no mapping
                lying: Tensor = file.get_tensor(name)
                return lying
    except (safetensors.SafetensorError, OSError):
        pass  # damaged, as the hash of the whole will tell
    return None


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
