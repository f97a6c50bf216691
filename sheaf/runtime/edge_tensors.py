"""Tensors of one edge, sent beside the parameters that all edges get, or in place of some of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from sheaf.core.lazy_blob import LazyBlob, TensorBlob, origin_of
from sheaf.core.tensor_file import Blob, encoded_size
from sheaf.core.types import Params

CONSTANT = "."
"""Begins the names of constants of the loss in a blob; no parameter's name begins with it."""


@dataclass(frozen=True)
class EdgeTensors:
    """Named tensors of one edge, computed when the task is sent.

    Those whose names begin with a dot are constants of the recipe's loss (``LossContext.constants``, without
    the dot) or the state of an optimizer. Others replace the parameters of these names.

    Attributes:
        key: identifies the content.
        shapes: tensors of the same names, shapes and types; meta tensors suffice.
        compute: returns the tensors.
    """

    key: str
    shapes: Params
    compute: Callable[[], Params]

    @classmethod
    def of(cls, tensors: Params) -> EdgeTensors:
        """Return tensors that are known already."""
        return cls(Blob.of(tensors).key, tensors, lambda: tensors)

    def beside(self, blob: Blob | None, parameters: Params) -> Blob:
        """Return a blob with these tensors and the content of ``blob``.

        Args:
            blob: parameters; None for none.
            parameters: of the shapes of ``blob``.
        """
        if blob is None:
            return LazyBlob(self._encoded, encoded_size(self.shapes), self.key, origin=self)

        def together() -> Blob:
            return TensorBlob({**blob.open(), **self.compute()})

        shapes = {**parameters, **self.shapes}
        key = f"{blob.key} {self.key}"
        together_blob = LazyBlob(together, encoded_size(shapes), key, origin=(origin_of(blob), self))
        vars(together_blob)["constants"] = split(shapes)[1]
        return together_blob

    def _encoded(self) -> Blob:
        return TensorBlob(self.compute())


def constants_of(blob: Blob) -> dict[str, Tensor]:
    """Return the constants of a blob from ``EdgeTensors.beside``, with their names there; only the shapes."""
    shapes: dict[str, Tensor] = vars(blob).get("constants", {})
    return {f"{CONSTANT}{name}": value for name, value in shapes.items()}


def split(content: Params) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Return the parameters and the constants in a decoded blob."""
    constants = {name: value for name, value in content.items() if name.startswith(CONSTANT)}
    parameters = {name: value for name, value in content.items() if name not in constants}
    return parameters, {name[len(CONSTANT) :]: value for name, value in constants.items()}
