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
    """

    source: bytes | Path
    sha256: str
    size: int

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
        return cls(path, digest, path.stat().st_size)

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

    def write(self, path: Path) -> Blob:
        """Puts the bytes into a file, wholly or not at all, and returns the blob that lies there."""
        encoded = self.source.read_bytes() if isinstance(self.source, Path) else self.source
        write_durably(path, encoded)
        return Blob(path, self.sha256, self.size)


def write_durably(path: Path, content: bytes) -> None:
    """Writes a file that, after a crash at any moment, is there whole or not there at all."""
    half = path.with_name(path.name + ".part")
    with half.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    half.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
