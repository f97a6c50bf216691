"""Parameters of which a run's journal has a copy, decoded when something reads them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from torch import Tensor

from sheaf.core.tensor_file import Blob
from sheaf.core.types import Params


class StoredParams(Mapping[str, Tensor]):
    """The parameters in a blob, decoded at the first access: a read-only mapping, otherwise like a dict.

    Args:
        blob: the encoded parameters, with their lease.
        tensors: the same parameters decoded, if they are in memory already.
    """

    def __init__(self, blob: Blob, tensors: Mapping[str, Tensor] | None = None) -> None:
        self.blob = blob
        self._tensors = tensors

    def __getitem__(self, name: str) -> Tensor:
        return self._read()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._read())

    def __len__(self) -> int:
        return len(self._read())

    def __or__(self, other: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {**self._read(), **other}

    def __ror__(self, other: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {**other, **self._read()}

    def __repr__(self) -> str:
        return repr(dict(self._read()))

    def copy(self) -> dict[str, Tensor]:
        """Return a dict of the same tensors."""
        return dict(self._read())

    def _read(self) -> Mapping[str, Tensor]:
        if self._tensors is None:
            self._tensors = self.blob.open()
        elif (lease := self.blob.lease) is not None:
            lease.read(self.blob)
        return self._tensors


def blob_of(params: Params) -> Blob:
    """Return the encoded parameters; those of ``StoredParams`` are not encoded again."""
    return params.blob if isinstance(params, StoredParams) else Blob.of(params)
