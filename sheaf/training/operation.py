"""One operation of torch's dispatcher, as ``cpu_graph`` records it.

Stands on private parts of torch; see ``cpu_graph``.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

try:
    from torch._ops import OpOverload

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

    @cached_property
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
        return not unrepeatable & set(self.operator.tags) and _has_only_tensors(self.results)

    @property
    def is_constant(self) -> bool:
        """Whether it makes a tensor of a Python number, which the tensor holds already."""
        makes_one = self.operator in (torch.ops.aten.scalar_tensor.default, torch.ops.aten._to_copy.default)
        return makes_one and not tensors_in((self.args, self.kwargs))

    @property
    def outline(self) -> tuple[Any, ...]:
        """All but the values of tensors."""
        return self.operator, _outline(self.args), _outline(self.kwargs)


def tensors_in(tree: Any) -> list[Tensor]:
    """Return the tensors in nested tuples, lists and dicts, in order."""
    tensors: list[Tensor] = []
    _collect(tree, tensors)
    return tensors


def _collect(tree: Any, tensors: list[Tensor]) -> None:
    """Append the tensors; torch's own functions on nested structures take four times as long."""
    if isinstance(tree, Tensor):
        tensors.append(tree)
    elif isinstance(tree, (tuple, list)):
        for each in tree:
            _collect(each, tensors)
    elif isinstance(tree, dict):
        for each in tree.values():
            _collect(each, tensors)


def _has_only_tensors(tree: Any) -> bool:
    """Return whether nested tuples and lists contain tensors and None only."""
    if isinstance(tree, (tuple, list)):
        return all(map(_has_only_tensors, tree))
    return tree is None or isinstance(tree, Tensor)


def _outline(tree: Any) -> Any:
    """Return nested tuples, lists and dicts with shape, stride and type in place of each tensor."""
    if isinstance(tree, Tensor):
        return tuple(tree.shape), tree.stride(), tree.dtype
    if isinstance(tree, (tuple, list)):
        return [_outline(each) for each in tree]
    if isinstance(tree, dict):
        return {name: _outline(value) for name, value in tree.items()}
    return tree


def address(tensor: Tensor) -> int:
    """Return the address of a tensor's memory, which its views share."""
    return tensor.untyped_storage().data_ptr()
