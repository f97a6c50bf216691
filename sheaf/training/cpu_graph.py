"""Record a function of tensors once and replay it in the memory it ran in: what CUDA graphs do, on a CPU.

A training step of a small network is some fifty short operations, and Python, autograd and vmap between them
take longer than the operations. Every step comes down to the same operations on tensors of the same shapes.
They are recorded as they reach the kernels; a replay runs only them, as one TorchScript function, each
writing into the tensor that it made before where its kernel has an ``out`` variant. Views stay as they are.
``update_by_site`` improves the order of a stack's operations.
Small networks trained 1.6x to 2.8x faster with it (three jobs of ``benchmarks/simulation``).

This file stands on private parts of torch: ``torch.utils._python_dispatch.TorchDispatchMode`` and
``torch.utils._pytree`` (recording), ``OpOverload._schema`` and
``torch._C._dispatch_has_kernel_for_dispatch_key`` (finding ``out`` variants), ``torch._C.Graph``,
``torch._C._create_function_from_graph`` and ``torch._C._set_graph_executor_optimize`` (replaying). Where one
is missing or refuses, the function is called as it is, and the log says so once.
tests/training/test_cpu_graph.py fails when they change.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor

from sheaf.training.update_by_site import update_by_site

try:
    from torch._ops import OpOverload
    from torch.utils._python_dispatch import TorchDispatchMode
    from torch.utils._pytree import tree_flatten, tree_leaves

    LIST_OF_TENSORS = torch._C.ListType(torch._C.TensorType.get())
    MISSING = ""
except (ImportError, AttributeError) as error:  # another torch
    TorchDispatchMode, MISSING = object, str(error)  # type: ignore[assignment, misc]

logger = logging.getLogger("sheaf")

LARGEST = 2**26
"""Bytes that the operations of a call may make: a larger call is limited by memory bandwidth."""

NO_TENSORS: list[Tensor] = []
"""An empty list of tensors: TorchScript cannot infer the type of an empty list."""

ATTEMPTS = 3
"""Calls that are recorded at most to find two equal ones."""

FACTORY = {"dtype", "layout", "device", "pin_memory"}
"""Arguments that describe a new tensor; an ``out`` variant lacks them."""

Result = tuple[Tensor, ...]
Function = Callable[..., Result]


class CpuGraphFunction:
    """``function``, replayed from its third call with inputs of the same shapes on; only on a CPU.

    Beyond its inputs the function may read and write tensors that stay at their address. Calls are recorded
    until two successive ones differ only in the values of tensors (the first may differ, as an optimizer
    allocates its moments there). If none of ``ATTEMPTS`` do, or if one reads a value (``item``), draws from
    the global generator or makes more than ``LARGEST`` bytes, the function is called as it is from then on.

    Args:
        function: tensors -> tensors. The next call overwrites its result.
    """

    def __init__(self, function: Function) -> None:
        self._function = function
        self._by_shapes: dict[tuple[tuple[int, ...], ...], _Recorder | Function] = {}

    def __call__(self, *inputs: Tensor) -> Result:
        """Return the function's result."""
        if MISSING:
            _log_once(f"training steps are not recorded: {MISSING}")
        if MISSING or inputs[0].device.type != "cpu":
            return self._function(*inputs)
        shapes = tuple(tuple(each.shape) for each in inputs)
        before = self._by_shapes.get(shapes)
        if callable(before):
            return before(*inputs)
        inputs = tuple(each.clone() for each in inputs)  # a replay overwrites them
        with _Recorder(1 if before is None else before.attempt + 1) as recorder:
            result = self._function(*inputs)
        self._by_shapes[shapes] = recorder
        if before is not None and before.outlines == recorder.outlines and recorder.repeatable:
            try:
                self._by_shapes[shapes] = _Replay(recorder.operations, inputs, result)
                return result
            except (RuntimeError, TypeError, KeyError, AttributeError) as error:
                _log_once(f"training steps are not recorded: {type(error).__name__}: {error}")
                self._by_shapes[shapes] = self._function
        if not recorder.repeatable or recorder.attempt == ATTEMPTS:
            self._by_shapes[shapes] = self._function
        return result


@cache
def _log_once(message: str) -> None:
    logger.info(message.partition("\n")[0])


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
        arguments = {_address(each) for each in _tensors((self.args, self.kwargs))}
        return not self.writes_into_arguments and all(
            _address(each) in arguments for each in _tensors(self.results)
        )

    @property
    def writes_into_arguments(self) -> bool:
        """Whether it changes a tensor that it is given."""
        return bool(self.operator._schema.is_mutable)

    def touches(self, tensor: Tensor) -> bool:
        """Return whether an argument or a result lies in the memory of ``tensor``."""
        leaves = _tensors((self.args, self.kwargs, self.results))
        return any(_address(each) == _address(tensor) for each in leaves)

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
        return makes_one and not _tensors((self.args, self.kwargs))

    @property
    def outline(self) -> tuple[Any, ...]:
        """All but the values of tensors."""
        leaves, structure = tree_flatten((self.args, self.kwargs))
        outlines = [
            (tuple(leaf.shape), leaf.stride(), leaf.dtype) if isinstance(leaf, Tensor) else leaf
            for leaf in leaves
        ]
        return self.operator, outlines, structure


class _Recorder(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Records the operations that reach the kernels of this thread.

    Keeps references to every tensor: autograd's in-place decisions depend on reference counts, and the
    replay's first call must take the same ones.

    Args:
        attempt: the number of this call with inputs of these shapes, from 1.
    """

    def __init__(self, attempt: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.attempt = attempt
        self.operations: list[Operation] = []
        self.outlines: list[tuple[Any, ...]] = []
        self.repeatable = True
        self._bytes = 0

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Return False: torch would import its compiler to exclude the next method from it."""
        return False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run and record one operation."""
        if func.namespace == "profiler":  # an optimizer labels its steps for the profiler
            return func(*args, **(kwargs or {}))
        operation = Operation(func, args, kwargs or {}, func(*args, **(kwargs or {})))
        self.outlines.append(operation.outline)
        self._bytes += sum(each.nbytes for each in _tensors(operation.results)) * (not operation.is_view)
        self.repeatable &= operation.is_repeatable and self._bytes <= LARGEST
        if self.repeatable:
            self.operations.append(operation)
        else:
            self.operations.clear()
        return operation.results


class _Unoptimized:
    """Turns off TorchScript's optimizer, whose two profiling runs take longer than ten replays.

    The setting is the process's: it is off while any thread is inside, and then what it was.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0
        self._before = True

    def __enter__(self) -> None:
        with self._lock:
            if self._inside == 0:
                self._before = torch._C._get_graph_executor_optimize()
                torch._C._set_graph_executor_optimize(False)
            self._inside += 1

    def __exit__(self, *error: object) -> None:
        with self._lock:
            self._inside -= 1
            if self._inside == 0:
                torch._C._set_graph_executor_optimize(self._before)


UNOPTIMIZED = _Unoptimized()


class _Replay:
    """The recorded operations that have to run again, as one TorchScript function.

    It runs without taking Python's global lock in between, on which threads would block longer than they
    compute.
    """

    def __init__(self, operations: Sequence[Operation], inputs: Result, result: Result) -> None:
        operations = update_by_site(operations, (*inputs, *result))
        self._operations = operations  # keeps their results alive
        self._inputs = inputs
        self._result = result
        self._graph = _Graph(_fixed_addresses(operations, (*inputs, *result)))
        for operation in operations:
            if not operation.is_view and not operation.is_constant:
                self._graph.add(operation)
        self._run = self._graph.function()

    def __call__(self, *inputs: Tensor) -> Result:
        for own, given in zip(self._inputs, inputs, strict=True):
            own.copy_(given)
        with torch.no_grad(), UNOPTIMIZED:
            self._run(*self._graph.tensors)
        return self._result


def _fixed_addresses(operations: Sequence[Operation], fixed: Sequence[Tensor]) -> set[int]:
    """Return the addresses of the fixed tensors, and of memory that more than one tensor views."""
    viewers: dict[int, set[int]] = {}
    for operation in operations:
        for tensor in _tensors((operation.args, operation.kwargs, operation.results)):
            viewers.setdefault(_address(tensor), set()).add(id(tensor))
    return {_address(each) for each in fixed} | {at for at, tensors in viewers.items() if len(tensors) > 1}


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
        self._values: dict[int, Any] = {}
        self._lists: list[Any] = []

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

    def function(self) -> Callable[..., Any]:
        """Return the graph as a function of ``tensors``.

        Raises:
            RuntimeError, TypeError, KeyError, AttributeError: TorchScript cannot run an operation.
        """
        for _, arguments, results in self._pending:  # a graph's inputs come before its nodes
            for tensor in _tensors((arguments, results)):
                if id(tensor) not in self._values:
                    self._values[id(tensor)] = self._graph.addInput()
                    self.tensors.append(tensor)
        for operator, arguments, results in self._pending:
            outputs = self._node(
                operator._schema.name,
                [self._value(each) for each in arguments],
                operator._schema.returns,
                any(each.is_out for each in operator._schema.arguments),
            )
            for recorded, new in zip(results, outputs, strict=False):  # it has no ``out`` variant
                if recorded is not None and _address(recorded) not in self._fixed:
                    self._values[id(recorded)] = new
                elif recorded is not None:
                    copied = [self._value(recorded), new, self._value(False)]
                    self._node("aten::copy_", copied, torch.ops.aten.copy_.default._schema.returns)
        # Without an output, operations that only write to tensors in lists would be removed as dead code.
        node = self._graph.create("prim::ListConstruct", self._lists, 1)
        self._graph.insertNode(node).output().setType(torch._C.ListType(LIST_OF_TENSORS))
        self._graph.registerOutput(node.output())
        return torch._C._create_function_from_graph("recorded", self._graph)

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
            return self._values[id(given)]
        has_tensors = isinstance(given, tuple | list) and any(isinstance(each, Tensor) for each in given)
        if has_tensors or given is NO_TENSORS:
            node = self._graph.create("prim::ListConstruct", [self._value(each) for each in given], 1)
            self._graph.insertNode(node).output().setType(LIST_OF_TENSORS)
            self._lists.append(node.output())
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


def _tensors(tree: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]


def _address(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()
