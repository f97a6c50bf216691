"""Tensors for the loss of one edge, sent beside the parameters from which the edge trains."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from sheaf.core.lazy_blob import LazyBlob, TensorBlob, origin_of
from sheaf.core.tensor_file import Blob, encoded_size
from sheaf.core.types import Params

PREFIX = "."
"""Begins the names of these tensors in a blob; no parameter's name begins with it."""


@dataclass(frozen=True)
class LossConstants:
    """Named tensors for the recipe's loss (``LossContext.constants``), computed when the task is sent.

    Attributes:
        key: identifies the content.
        shapes: tensors of the same names, shapes and types; meta tensors suffice.
        compute: returns the tensors.
    """

    key: str
    shapes: Params
    compute: Callable[[], Params]

    @classmethod
    def of(cls, tensors: Params) -> LossConstants:
        """Return constants that are known already."""
        return cls(Blob.of(tensors).key, tensors, lambda: tensors)

    def beside(self, blob: Blob, parameters: Params) -> Blob:
        """Return a blob with the content of ``blob``, which has the shapes of ``parameters``, and these."""

        def together() -> Blob:
            return TensorBlob({**blob.open(), **_prefixed(self.compute())})

        size = encoded_size({**parameters, **_prefixed(self.shapes)})
        return LazyBlob(together, size, f"{blob.key} {self.key}", origin=(origin_of(blob), self))


def _prefixed(tensors: Params) -> dict[str, Tensor]:
    return {PREFIX + name: value for name, value in tensors.items()}


def split(content: Params) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Return the parameters and the constants in a decoded blob."""
    constants = {name: value for name, value in content.items() if name.startswith(PREFIX)}
    parameters = {name: value for name, value in content.items() if name not in constants}
    return parameters, {name[len(PREFIX) :]: value for name, value in constants.items()}
