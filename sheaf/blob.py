"""Tensors as bytes: one safetensors file's content, in memory or on disk."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping
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
    """

    source: bytes | Path
    sha256: str
    size: int
    lies_at: Path | None = None

    @classmethod
    def of(cls, tensors: Mapping[str, Tensor]) -> Blob:
        """Encodes CPU tensors; strides are not kept, values are."""
        encoded = encode(tensors)
        return cls(encoded, hashlib.sha256(encoded).hexdigest(), len(encoded))

    @classmethod
    def at(cls, path: Path) -> Blob:
        """The blob that lies in a file."""
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        return cls(path, digest, path.stat().st_size, path)

    def open(self, which: Callable[[str], bool] = lambda name: True) -> dict[str, Tensor]:
        """The tensors of these names, decoded anew."""
        if isinstance(self.source, Path):
            with safetensors.safe_open(self.source, framework="pt") as file:
                return {name: file.get_tensor(name) for name in file.offset_keys() if which(name)}
        return {name: value for name, value in safetensors.torch.load(self.source).items() if which(name)}

    def rows(self, name: str, start: int, stop: int) -> Tensor:
        """Rows ``start`` to ``stop`` of one tensor, or all of it if it has no dimensions.

        No more than that is read where the bytes lie in a file.
        """
        if isinstance(self.source, Path):
            with safetensors.safe_open(self.source, framework="pt") as file:
                lying = file.get_slice(name)
                value: Tensor = lying[start:stop] if lying.get_shape() else file.get_tensor(name)
                return value
        value = safetensors.torch.load(self.source)[name]
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
        if there is None or not _link(there, path):
            content = self.source.read_bytes() if isinstance(self.source, Path) else self.source
            _write(path, content, over)
        if named:
            sync(path.parent)
        return Blob(path, self.sha256, self.size, path)


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


def encode(tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> bytes:
    """What ``safetensors.torch.save`` gives, byte for byte, with each tensor copied once, not four times.

    With ``metadata``, the header has its keys sorted: safetensors writes these in an order of chance.
    """
    if any(tensor.dtype not in _PLACES for tensor in tensors.values()):
        apart = {
            name: tensor.clone(memory_format=torch.contiguous_format) for name, tensor in tensors.items()
        }
        return safetensors.torch.save(apart, None if metadata is None else dict(metadata))
    header: dict[str, Any] = {}
    parts, at = [], 0
    for name in sorted(tensors, key=lambda name: (_PLACES[tensors[name].dtype], name)):
        flat = tensors[name].detach().contiguous().reshape(-1).view(torch.uint8)
        parts.append(flat.numpy().data)
        stop = at + len(flat)
        shape = list(tensors[name].shape)
        header[name] = {"dtype": _NAMES[tensors[name].dtype], "shape": shape, "data_offsets": [at, stop]}
        at = stop
    if metadata is None:
        text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    else:
        header["__metadata__"] = dict(metadata)
        text = json.dumps(header, separators=(",", ":"), sort_keys=True).encode()
    text += b" " * (-len(text) % 8)
    return b"".join([len(text).to_bytes(8, "little"), text, *parts])
