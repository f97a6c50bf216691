"""Replay of recorded operations in the memory that they ran in.

Stands on private parts of torch; see ``cpu_graph``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import copy
from functools import cache
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from sheaf.training.fused_update import fuse_updates
from sheaf.training.operation import Operation, address, tensors_in
from sheaf.training.update_by_site import update_by_site

if TYPE_CHECKING:
    from torch._ops import OpOverload

NO_TENSORS: list[Tensor] = []
"""An empty list of tensors: TorchScript cannot infer the type of an empty list."""

COPY_RETURNS = torch.ops.aten.copy_.default._schema.returns
SELECT_RETURNS = torch.ops.aten.select.int._schema.returns

FACTORY = {"dtype", "layout", "device", "pin_memory"}
"""Arguments that describe a new tensor; an ``out`` variant lacks them."""


@contextmanager
def _unoptimized() -> Iterator[None]:
    """Turn off TorchScript's optimizer, whose two profiling runs take longer than ten replays.

    The setting is the thread's.
    """
    before = torch._C._get_graph_executor_optimize()
    torch._C._set_graph_executor_optimize(False)
    try:
        yield
    finally:
        torch._C._set_graph_executor_optimize(before)


class Replay:
    """The recorded operations that have to run again, as one TorchScript function.

    It runs without taking Python's global lock in between, on which threads would block longer than they
    compute. For the same reason successive calls are one loop of TorchScript: with two threads, each of which
    trains a small CNN, 20 steps in one call took a quarter less time than 20 calls.

    Args:
        operations: all that were recorded.
        inputs: the tensors that a replay copies its inputs into.
        result: the tensors that the operations wrote the result into.
        exact: keep the bits of the operations; see ``fused_update``.

    Raises:
        RuntimeError, TypeError, KeyError, AttributeError: TorchScript cannot run an operation.
    """

    def __init__(
        self,
        operations: Sequence[Operation],
        inputs: tuple[Tensor, ...],
        result: tuple[Tensor, ...],
        *,
        exact: bool = True,
    ) -> None:
        if not exact:
            operations = fuse_updates(operations, (*inputs, *result))
        operations = update_by_site(operations, (*inputs, *result))
        self._operations = operations  # keeps their results alive
        self._inputs = inputs
        self._result = result
        self._graph = _Graph(_fixed_addresses(operations, (*inputs, *result)))
        for operation in operations:
            if not operation.is_view and not operation.is_constant:
                self._graph.add(operation)
        self._run = self._graph.function(inputs, result)
        self._tensors = self._graph.tensors

    def on(self, memory: Mapping[int, Tensor]) -> Replay:
        """Return the same replay on other memory, without building its function again.

        Args:
            memory: address of memory of this replay (``operation.address``) -> a tensor on the other memory,
                of the same size. All other memory is copied.
        """
        storages = {at: tensor.untyped_storage() for at, tensor in memory.items()}

        def moved(tensor: Tensor) -> Tensor:
            at = address(tensor)
            if at not in storages:
                storages[at] = tensor.untyped_storage().clone()  # type: ignore[no-untyped-call]
            new: Tensor = torch.empty(0, dtype=tensor.dtype)
            return new.set_(storages[at], tensor.storage_offset(), tensor.shape, tensor.stride())

        other = copy(self)
        other._inputs, other._result = tuple(map(moved, self._inputs)), tuple(map(moved, self._result))
        other._tensors = [moved(tensor) for tensor in self._tensors]
        return other

    def __call__(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Return the result for these inputs; the next call overwrites it."""
        self._loop([each[None] for each in inputs], [each[None] for each in self._result])
        return self._result

    def successive(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Return the results (T, ...) of T successive calls with the inputs (T, ...)."""
        results = [each.new_empty(len(inputs[0]), *each.shape) for each in self._result]
        self._loop(inputs, results)
        return tuple(results)

    def _loop(self, inputs: Sequence[Tensor], results: Sequence[Tensor]) -> None:
        """Write the results of T successive calls into ``results``, (T, ...) each."""
        with torch.no_grad(), _unoptimized():
            self._run(len(inputs[0]), *inputs, *results, *self._tensors)


def _fixed_addresses(operations: Sequence[Operation], fixed: Sequence[Tensor]) -> set[int]:
    """Return the addresses of the fixed tensors, and of memory that is viewed in more than one way."""
    viewers: dict[int, set[View]] = {}
    for operation in operations:
        for tensor in tensors_in((operation.args, operation.kwargs, operation.results)):
            viewers.setdefault(address(tensor), set()).add(_view(tensor))
    return {address(each) for each in fixed} | {at for at, tensors in viewers.items() if len(tensors) > 1}


View = tuple[int, int | torch.SymInt, tuple[int, ...], tuple[int, ...], torch.dtype]


def _view(tensor: Tensor) -> View:
    """Return a key that is the same for two tensors with the same content, such as one and its ``detach``."""
    return address(tensor), tensor.storage_offset(), tuple(tensor.shape), tensor.stride(), tensor.dtype


class _Graph:
    """A TorchScript graph of operations on tensors that stay at their address.

    Args:
        fixed: addresses that results must be written to; other results may lie anywhere.
    """

    def __init__(self, fixed: set[int]) -> None:
        self._fixed = fixed
        self.tensors: list[Tensor] = []
        self._graph = torch._C.Graph()
        self._pending: list[tuple[OpOverload, list[Any], list[Tensor | None]]] = []
        self._values: dict[View, Any] = {}

    def add(self, operation: Operation) -> None:
        """Add an operation that writes into the tensors that it made when it was recorded."""
        operator, out = operation.operator, {}
        results: list[Tensor | None] = []
        if not operation.writes_into_arguments:
            made = operation.results
            results = list(made) if isinstance(made, tuple | list) else [made]
            variant, names = _out_variant(operator)
            if variant is not None and len(names) == len(results) and all(r is not None for r in results):
                operator, out, results = variant, dict(zip(names, results, strict=True)), []
        keywords = operation.kwargs | out
        arguments = [
            operation.args[at]
            if at < len(operation.args)
            else keywords.get(argument.name, argument.default_value)
            for at, argument in enumerate(operator._schema.arguments)
        ]
        for at, argument in enumerate(operator._schema.arguments):
            if arguments[at] in ((), []) and str(argument.type) == "List[Tensor]":
                arguments[at] = NO_TENSORS
        self._pending.append((operator, arguments, results))

    def function(self, inputs: Sequence[Tensor], result: Sequence[Tensor]) -> Callable[..., Any]:
        """Return a function that runs the operations T times.

        Its arguments are T, a tensor (T, ...) of each input, a tensor (T, ...) for each result, ``tensors``.

        Args:
            inputs: the tensors that the operations read the inputs from.
            result: the tensors that the operations write the result into.

        Raises:
            RuntimeError, TypeError, KeyError, AttributeError: TorchScript cannot run an operation.
        """
        times = self._graph.addInput()
        times.setType(torch._C.IntType.get())
        given = [self._graph.addInput() for _ in inputs]
        wanted = [self._graph.addInput() for _ in result]
        pending = [*inputs, *result, [each[1:] for each in self._pending]]
        for tensor in tensors_in(pending):  # a graph's inputs come before its nodes
            if _view(tensor) not in self._values:
                self._values[_view(tensor)] = self._graph.addInput()
                self.tensors.append(tensor)
        go_on = self._graph.insertConstant(True)  # type: ignore[attr-defined]  # the stub lacks it
        loop = self._graph.insertNode(self._graph.create("prim::Loop", [times, go_on], 0))
        body = loop.addBlock()
        number = body.addInputToBlock()  # type: ignore[attr-defined]  # the stub lacks it
        number.setType(torch._C.IntType.get())
        with self._graph.insert_point_guard(body):
            for own, of_all in zip(inputs, given, strict=True):
                self._copy(self._value(own), self._select(of_all, number))
            self._operations()
            for of_all, own in zip(wanted, result, strict=True):
                self._copy(self._select(of_all, number), self._value(own))
        body.registerOutput(go_on)
        self._graph.registerOutput(go_on)
        return torch._C._create_function_from_graph("recorded", self._graph)

    def _operations(self) -> None:
        """Append all operations."""
        for operator, arguments, results in self._pending:
            outputs = self._node(
                operator._schema.name,
                [self._value(each) for each in arguments],
                operator._schema.returns,
                any(each.is_out for each in operator._schema.arguments),
            )
            for recorded, new in zip(results, outputs, strict=False):  # it has no ``out`` variant
                if recorded is not None and address(recorded) not in self._fixed:
                    self._values[_view(recorded)] = new
                elif recorded is not None:
                    self._copy(self._value(recorded), new)

    def _copy(self, target: Any, source: Any) -> None:
        """Append a copy of a value into another one."""
        self._node("aten::copy_", [target, source, self._value(False)], COPY_RETURNS)

    def _select(self, of_all: Any, number: Any) -> Any:
        """Append the selection of one entry of a tensor (T, ...), and return its value."""
        (entry,) = self._node("aten::select", [of_all, self._value(0), number], SELECT_RETURNS)
        return entry

    def _node(
        self, name: str, inputs: Sequence[Any], returns: Sequence[Any], into_given: bool = False
    ) -> list[Any]:
        """Append a node and return its outputs.

        TorchScript chooses the overload by the arguments: it takes ``max`` of a tensor, with a tensor for its
        result, for the element-wise maximum of two tensors.

        Args:
            into_given: whether the overload must write into one of its arguments.

        Raises:
            RuntimeError: TorchScript has no such overload, or chooses another one.
        """
        node = self._graph.insertNode(self._graph.create(name, list(inputs), len(returns)))
        outputs = list(node.outputs())
        for output, returned in zip(outputs, returns, strict=True):
            output.setType(returned.type)
        if node.schema() == "(no schema)":
            raise RuntimeError(f"TorchScript has no {name} for these arguments")
        if into_given and "!)" not in node.schema():
            raise RuntimeError(f"TorchScript takes {node.schema()} for {name} with an out argument")
        return outputs

    def _value(self, given: Any) -> Any:
        if isinstance(given, Tensor):
            return self._values[_view(given)]
        has_tensors = isinstance(given, tuple | list) and any(isinstance(each, Tensor) for each in given)
        if has_tensors or given is NO_TENSORS:
            node = self._graph.create("prim::ListConstruct", [self._value(each) for each in given], 1)
            self._graph.insertNode(node).output().setType(_list_of_tensors())
            return node.output()
        if isinstance(given, torch.dtype | torch.memory_format | torch.layout):
            given = ENUM_VALUES[given]
        constant = list(given) if isinstance(given, tuple) else given
        return self._graph.insertConstant(constant)  # type: ignore[attr-defined]  # the stub lacks it


ENUM_VALUES: dict[Any, int] = {
    torch.uint8: 0,
    torch.int32: 3,
    torch.int64: 4,
    torch.float16: 5,
    torch.float32: 6,
    torch.float64: 7,
    torch.bool: 11,
    torch.bfloat16: 15,
    torch.contiguous_format: 0,
    torch.preserve_format: 1,
    torch.channels_last: 2,
    torch.strided: 0,
}
"""The integers by which TorchScript names types, memory formats and layouts."""


@cache
def _list_of_tensors() -> Any:
    """Return TorchScript's type of a list of tensors."""
    return torch._C.ListType(torch._C.TensorType.get())


@cache
def _out_variant(operator: OpOverload) -> tuple[OpOverload | None, tuple[str, ...]]:
    """Return the variant of an operator that writes into given tensors, and the names of these arguments.

    Only a variant with a kernel of its own: the others compute as usual and copy the result.
    """
    own = [(argument.name, str(argument.type)) for argument in operator._schema.arguments]
    for name in operator.overloadpacket.overloads():
        other = getattr(operator.overloadpacket, name)
        arguments = other._schema.arguments
        rest = [(argument.name, str(argument.type)) for argument in arguments if not argument.is_out]
        needed = [each for each in own if each in rest or each[0] not in FACTORY]
        if len(rest) == len(arguments) or rest != needed:
            continue
        if torch._C._dispatch_has_kernel_for_dispatch_key(f"{other._schema.name}.{name}", "CPU"):
            return other, tuple(argument.name for argument in arguments if argument.is_out)
    return None, ()
