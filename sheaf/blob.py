"""Tensors as bytes: one safetensors file's content, in memory or on disk."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import safetensors
import safetensors.torch
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
        encoded = safetensors.torch.save({name: tensor.contiguous() for name, tensor in tensors.items()})
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

    def write(self, path: Path, named: bool = True) -> Blob:
        """Puts the bytes into a file, wholly or not at all, and returns the blob that lies there.

        Args:
            named: the file is durable on return. If not, its bytes are, and its name is after ``sync``.
        """
        if self.lies_at is None or not _link(self.lies_at, path):
            _write(path, self.source.read_bytes() if isinstance(self.source, Path) else self.source)
        if named:
            sync(path.parent)
        return Blob(path, self.sha256, self.size, path)


def write_durably(path: Path, content: bytes) -> None:
    """Writes a file that, after a crash at any moment, is there whole or not there at all."""
    _write(path, content)
    sync(path.parent)


def sync(folder: Path) -> None:
    """Makes the names of a folder's files durable."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _write(path: Path, content: bytes) -> None:
    half = path.with_name(path.name + ".part")
    with half.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    half.replace(path)


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
