"""A function of tensors that is called again and again: recorded, then replayed in the memory it ran in.

A small network's step is some fifty short operations, and Python, autograd and vmap between them take longer
than they do. All of it comes down to the same operations on tensors of the same shapes at each step. So these
are written down as they reach the kernels; a replay runs just them, each into the tensor that it made before.
Views of what stays in its place stay as they are, and nothing is allocated. What CUDA graphs do for a GPU.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch._ops import OpOverload
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_leaves

LARGEST = 2**26
"""Bytes that a call may make. Above, memory that is used again pays, and a replay uses none again."""

FACTORY = {"dtype", "layout", "device", "pin_memory"}
"""What an operation says of a new tensor, and not where that is given."""

Answer = tuple[Tensor, ...]
Function = Callable[..., Answer]


class Repeated:
    """``function``, faster from its third call with inputs of the same shapes on; only on a CPU.

    Beyond its inputs it may read and write tensors that stay in their place. Two calls are watched: if they
    differ in anything but the values of tensors, if one looks at a value (``item``), draws from the global
    generator or makes too much, the function is called as it is from then on.

    Args:
        function: tensors -> tensors. What it returns is overwritten by the next call.
    """

    def __init__(self, function: Function) -> None:
        self._function = function
        self._known: dict[tuple[tuple[int, ...], ...], _Recorder | Function] = {}

    def __call__(self, *inputs: Tensor) -> Answer:
        """What the function returns."""
        if inputs[0].device.type != "cpu":
            return self._function(*inputs)
        shapes = tuple(tuple(each.shape) for each in inputs)
        known = self._known.get(shapes)
        if callable(known):
            return known(*inputs)
        inputs = tuple(each.clone() for each in inputs)  # a replay writes over them
        with _Recorder(keeps=known is not None) as recorder:
            answer = self._function(*inputs)
        if known is None:
            self._known[shapes] = recorder if recorder.repeatable else self._function
        elif known.seen == recorder.seen:
            self._known[shapes] = _Replay(recorder.calls, inputs, answer)
        else:
            self._known[shapes] = self._function
        return answer


@dataclass(frozen=True)
class _Call:
    """One operation, with what it was given and what it made."""

    operation: OpOverload
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    made: Any

    @property
    def is_view(self) -> bool:
        """Whether it made nothing but another look at what it was given."""
        given = {_place(each) for each in _tensors((self.args, self.kwargs))}
        return not self.operation._schema.is_mutable and all(
            _place(each) in given for each in _tensors(self.made)
        )

    @property
    def is_repeatable(self) -> bool:
        """Whether it comes to tensors whose shapes depend on shapes alone, and draws nothing."""
        not_so = {
            torch.Tag.data_dependent_output,
            torch.Tag.dynamic_output_shape,
            torch.Tag.nondeterministic_seeded,
        }
        return not not_so & set(self.operation.tags) and all(
            each is None or isinstance(each, Tensor) for each in tree_leaves(self.made)
        )

    @property
    def outline(self) -> tuple[Any, ...]:
        """All but the values of tensors."""
        leaves, structure = tree_flatten((self.args, self.kwargs))
        seen = [
            (tuple(leaf.shape), leaf.stride(), leaf.dtype) if isinstance(leaf, Tensor) else leaf
            for leaf in leaves
        ]
        return self.operation, seen, structure


class _Recorder(TorchDispatchMode):
    """Writes down what reaches the kernels of this thread.

    Args:
        keeps: the tensors too, not their outlines alone.
    """

    def __init__(self, keeps: bool) -> None:
        super().__init__()
        self.calls: list[_Call] = []
        self.seen: list[tuple[Any, ...]] = []
        self.repeatable = True
        self._keeps = keeps
        self._bytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Runs one operation."""
        call = _Call(func, args, kwargs or {}, func(*args, **(kwargs or {})))
        self.seen.append(call.outline)
        if self._keeps:
            self.calls.append(call)
        else:
            self._bytes += sum(each.nbytes for each in _tensors(call.made)) * (not call.is_view)
            self.repeatable &= call.is_repeatable and self._bytes <= LARGEST
        return call.made


class _Replay:
    """The recorded operations that have to run again."""

    def __init__(self, calls: Sequence[_Call], inputs: Answer, answer: Answer) -> None:
        self._calls = calls  # holds what they made
        self._inputs = inputs
        self._answer = answer
        self._todo = list(_to_run(calls))

    def __call__(self, *inputs: Tensor) -> Answer:
        for mine, theirs in zip(self._inputs, inputs, strict=True):
            mine.copy_(theirs)
        with torch.no_grad():
            for operation, args, kwargs in self._todo:
                operation(*args, **kwargs)
        return self._answer


def _to_run(calls: Sequence[_Call]) -> Iterator[tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]]]:
    for call in calls:
        if call.is_view:
            continue
        if call.operation._schema.is_mutable:
            yield call.operation, call.args, call.kwargs
            continue
        made = list(call.made) if isinstance(call.made, tuple | list) else [call.made]
        there, names = _into(call.operation)
        if there is None or len(names) != len(made) or any(each is None for each in made):
            yield _copied, (call.operation, call.args, call.kwargs, made), {}
        else:
            known = {argument.name for argument in there._schema.arguments}
            kwargs = {key: value for key, value in call.kwargs.items() if key in known}
            yield there, call.args, kwargs | dict(zip(names, made, strict=True))


def _copied(operation: OpOverload, args: Any, kwargs: Any, made: Sequence[Tensor | None]) -> None:
    """Where an operation cannot be told where to write."""
    anew = operation(*args, **kwargs)
    for kept, new in zip(made, anew if isinstance(anew, tuple | list) else [anew], strict=True):
        if kept is not None:
            kept.copy_(new)


@cache
def _into(operation: OpOverload) -> tuple[OpOverload | None, tuple[str, ...]]:
    """The same operation into tensors that it is given, and what these are called."""
    own = [(argument.name, str(argument.type)) for argument in operation._schema.arguments]
    for name in operation.overloadpacket.overloads():
        other = getattr(operation.overloadpacket, name)
        arguments = other._schema.arguments
        rest = [(argument.name, str(argument.type)) for argument in arguments if not argument.is_out]
        needed = [each for each in own if each in rest or each[0] not in FACTORY]
        if len(rest) < len(arguments) and rest == needed:
            return other, tuple(argument.name for argument in arguments if argument.is_out)
    return None, ()


def _tensors(tree: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]


def _place(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()
