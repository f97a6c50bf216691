"""Blobs without bytes: tensors in memory, and tensors that are read or computed when they are needed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sheaf.core.tensor_file import Blob, Lease, encode, encode_pieces, encoded_size, write_together


class TensorBlob(Blob):
    """Tensors in memory, encoded only when their bytes are needed. Nothing may modify the tensors.

    Args:
        tensors: the named tensors, on the CPU.
        size: length of their encoding; computed by default.
        lease: see ``Blob``.
        origin: kept alive as long as this blob, such as the lease of the parameters that were trained.
        finite: whether all values are known to be finite.
    """

    def __init__(
        self,
        tensors: Mapping[str, Tensor],
        size: int | None = None,
        lease: Lease | None = None,
        origin: object = None,
        finite: bool = False,
    ) -> None:
        vars(self).update(
            tensors=tensors,
            size=encoded_size(tensors) if size is None else size,
            digest=None,
            lease=lease,
            origin=origin,
            finite=finite,
        )

    def leased(self, lease: Lease) -> TensorBlob:
        """Return the same tensors with another lease."""
        own = vars(self)
        return TensorBlob(own["tensors"], self.size, lease, own["origin"], own["finite"])

    @property
    def is_finite(self) -> bool:
        """Whether all values are known to be finite."""
        return bool(vars(self)["finite"])

    @property
    def source(self) -> bytes:
        """The encoded bytes."""
        return encode(vars(self)["tensors"])

    def rows(self, name: str, start: int, stop: int) -> Tensor:
        """Return rows ``start`` to ``stop`` of one tensor; a scalar whole."""
        value = self.open(lambda other: other == name)[name]
        return value[start:stop] if value.dim() else value

    def write(self, path: Path, named: bool = True, over: Path | None = None) -> Blob:
        """Write the encoded bytes to a file; see ``Blob.write``."""
        return Blob(self.source, None, self.size).write(path, named, over)

    def open(self, select: Callable[[str], bool] = lambda name: True) -> dict[str, Tensor]:
        """Return the tensors whose names ``select`` accepts; all by default. They must not be modified."""
        if self.lease is not None and (blob := self.lease.read(self)) is not self:
            return blob.open(select)
        tensors: Mapping[str, Tensor] = vars(self)["tensors"]
        return {name: value.contiguous() for name, value in tensors.items() if select(name)}

    def open_strided(self) -> dict[str, Tensor]:
        """Return all tensors as they are, with any strides. They must not be modified."""
        if self.lease is not None and (blob := self.lease.read(self)) is not self:
            return blob.open_strided()
        return dict(vars(self)["tensors"])

    def _hash(self, digest: Any) -> str:
        for piece in encode_pieces(vars(self)["tensors"]):
            digest.update(piece)
        return str(digest.hexdigest())


class LazyBlob(Blob):
    """A blob that a function finds when its tensors are needed.

    Args:
        find: returns the blob; called for every access.
        size: length of the encoding in bytes; None: that of the blob.
        key: see ``Blob``, or another string that identifies the content; None: the key of the blob.
        lease: see ``Blob``.
        origin: kept alive as long as this blob.
    """

    def __init__(
        self,
        find: Callable[[], Blob],
        size: int | None = None,
        key: str | None = None,
        lease: Lease | None = None,
        origin: object = None,
    ) -> None:
        known = {"size": size, "key": key}
        vars(self).update(find=find, digest=None, lease=lease, origin=origin)
        vars(self).update({name: value for name, value in known.items() if value is not None})

    @cached_property
    def size(self) -> int:
        """Length of the encoding in bytes."""
        return self.found().size

    @cached_property
    def source(self) -> bytes | Path:
        """The bytes, or the file that contains them."""
        return self.found().source

    @cached_property
    def sha256(self) -> str:
        """SHA-256 of the bytes, in hexadecimal."""
        return self.found().sha256

    @cached_property
    def key(self) -> str:
        """XXH3 of the bytes, in hexadecimal."""
        return self.found().key

    def found(self) -> Blob:
        """Return the blob."""
        blob: Blob = vars(self)["find"]()
        return blob

    def open(self, select: Callable[[str], bool] = lambda name: True) -> dict[str, Tensor]:
        """Decode the tensors whose names ``select`` accepts; all by default."""
        return self._read().open(select)

    def rows(self, name: str, start: int, stop: int) -> Tensor:
        """Return rows ``start`` to ``stop`` of one tensor; a scalar whole."""
        return self._read().rows(name, start, stop)

    def write(self, path: Path, named: bool = True, over: Path | None = None) -> Blob:
        """Write the bytes to a file; see ``Blob.write``."""
        return self.found().write(path, named, over)

    def _read(self) -> Blob:
        if self.lease is not None and (blob := self.lease.read(self)) is not self:
            return blob
        return self.found()


def origin_of(blob: Blob | None) -> object:
    """Return the object that must live as long as something can compute with the blob's tensors again."""
    return None if blob is None else blob.lease or vars(blob).get("origin")


def spill(path: Path, states: Mapping[str, Mapping[str, Tensor]]) -> dict[str, dict[str, Tensor]]:
    """Move tensors from memory to an unnamed file, which the operating system frees with the last tensor.

    Args:
        path: a new file, whose name is removed at once.
        states: name -> named tensors.

    Returns:
        The same tensors, memory-mapped.
    """
    blobs = write_together(path, states, synced=False)
    try:
        size = path.stat().st_size
        content = torch.from_file(str(path), size=size, dtype=torch.uint8)
        return {name: blob.decode_from(content) for name, blob in blobs.items()}
    finally:
        path.unlink()
