"""One operation of torch's dispatcher, as ``cpu_graph`` records it.

Stands on private parts of torch; see ``cpu_graph``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

try:
    from torch._ops import OpOverload
    from torch.utils._pytree import tree_flatten, tree_leaves

    MISSING = ""
except ImportError as error:  # another torch
    MISSING = str(error)


@dataclass(frozen=True, eq=False)
class Operation:
    """One recorded operation.

    Attributes:
        operator: of torch's dispatcher.
        args, kwargs: its arguments, tensors among them.
        results: a tensor, or a structure of tensors.
    """

    operator: OpOverload
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    results: Any

    @property
    def is_view(self) -> bool:
        """Whether its results are only views of its arguments."""
        arguments = {address(each) for each in tensors_in((self.args, self.kwargs))}
        return not self.writes_into_arguments and all(
            address(each) in arguments for each in tensors_in(self.results)
        )

    @property
    def writes_into_arguments(self) -> bool:
        """Whether it changes a tensor that it is given."""
        return bool(self.operator._schema.is_mutable)

    def touches(self, tensor: Tensor) -> bool:
        """Return whether an argument or a result lies in the memory of ``tensor``."""
        leaves = tensors_in((self.args, self.kwargs, self.results))
        return any(address(each) == address(tensor) for each in leaves)

    @property
    def is_repeatable(self) -> bool:
        """Whether the shapes of its results depend on shapes alone, and it draws no random numbers."""
        unrepeatable = {
            torch.Tag.data_dependent_output,
            torch.Tag.dynamic_output_shape,
            torch.Tag.nondeterministic_seeded,
        }
        return not unrepeatable & set(self.operator.tags) and all(
            each is None or isinstance(each, Tensor) for each in tree_leaves(self.results)
        )

    @property
    def is_constant(self) -> bool:
        """Whether it makes a tensor of a Python number, which the tensor holds already."""
        makes_one = self.operator in (torch.ops.aten.scalar_tensor.default, torch.ops.aten._to_copy.default)
        return makes_one and not tensors_in((self.args, self.kwargs))

    @property
    def outline(self) -> tuple[Any, ...]:
        """All but the values of tensors."""
        leaves, structure = tree_flatten((self.args, self.kwargs))
        outlines = [
            (tuple(leaf.shape), leaf.stride(), leaf.dtype) if isinstance(leaf, Tensor) else leaf
            for leaf in leaves
        ]
        return self.operator, outlines, structure


def tensors_in(tree: Any) -> list[Tensor]:
    """Return the tensors in nested tuples, lists and dicts, in order."""
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]


def address(tensor: Tensor) -> int:
    """Return the address of a tensor's memory, which its views share."""
    return tensor.untyped_storage().data_ptr()
