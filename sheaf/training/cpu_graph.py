"""A function of tensors that is called again and again: recorded, then replayed in the memory it ran in.

A small network's step is some fifty short operations, and Python, autograd and vmap between them take longer
than they do. All of it comes down to the same operations on tensors of the same shapes at each step. So these
are written down as they reach the kernels; a replay runs just them, each into the tensor that it made before
if its kernel can be told where. Views of what stays in its place stay as they are. What CUDA graphs do for a
GPU.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Sequence
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

NO_TENSORS: list[Tensor] = []
"""An empty list of tensors: of an empty list alone TorchScript cannot tell of what."""

WATCHED = 3
"""Calls that are watched at most."""

FACTORY = {"dtype", "layout", "device", "pin_memory"}
"""What an operation says of a new tensor, and not where that is given."""

Answer = tuple[Tensor, ...]
Function = Callable[..., Answer]


class CpuGraphFunction:
    """``function``, faster from its third call with inputs of the same shapes on; only on a CPU.

    Beyond its inputs it may read and write tensors that stay in their place. Calls are watched until two that
    follow one another differ in nothing but the values of tensors. If none of three do (the first may differ,
    as an optimizer makes its moments there), or if one looks at a value (``item``), draws from the global
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
        with _Recorder(1 if known is None else known.attempt + 1) as recorder:
            answer = self._function(*inputs)
        self._known[shapes] = recorder
        if known is not None and known.seen == recorder.seen and recorder.repeatable:
            # A kind of operation that TorchScript lacks leaves the function as it is.
            with contextlib.suppress(RuntimeError, TypeError, KeyError, AttributeError):
                self._known[shapes] = _Replay(recorder.calls, inputs, answer)
                return answer
        if not recorder.repeatable or recorder.attempt == WATCHED:
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
    def is_constant(self) -> bool:
        """Whether it makes a number for others to read: that is there already."""
        return self.operation is torch.ops.aten.scalar_tensor.default

    @property
    def outline(self) -> tuple[Any, ...]:
        """All but the values of tensors."""
        leaves, structure = tree_flatten((self.args, self.kwargs))
        seen = [
            (tuple(leaf.shape), leaf.stride(), leaf.dtype) if isinstance(leaf, Tensor) else leaf
            for leaf in leaves
        ]
        return self.operation, seen, structure


class _Recorder(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Writes down what reaches the kernels of this thread.

    Holds every tensor: what autograd does goes by who holds one.

    Args:
        attempt: which call with inputs of these shapes this is.
    """

    def __init__(self, attempt: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.attempt = attempt
        self.calls: list[_Call] = []
        self.seen: list[tuple[Any, ...]] = []
        self.repeatable = True
        self._bytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Runs one operation."""
        if func.namespace == "profiler":  # an optimizer names its steps
            return func(*args, **(kwargs or {}))
        call = _Call(func, args, kwargs or {}, func(*args, **(kwargs or {})))
        self.seen.append(call.outline)
        self._bytes += sum(each.nbytes for each in _tensors(call.made)) * (not call.is_view)
        self.repeatable &= call.is_repeatable and self._bytes <= LARGEST
        if self.repeatable:
            self.calls.append(call)
        else:
            self.calls.clear()
        return call.made


class _AsItIs:
    """TorchScript runs what it is given as it is: what it would improve in two runs takes longer than ten.

    The setting is the process's: it is off while any thread is in here, and then what it was.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0
        self._was = True

    def __enter__(self) -> None:
        with self._lock:
            if self._inside == 0:
                self._was = torch._C._get_graph_executor_optimize()
                torch._C._set_graph_executor_optimize(False)
            self._inside += 1

    def __exit__(self, *error: object) -> None:
        with self._lock:
            self._inside -= 1
            if self._inside == 0:
                torch._C._set_graph_executor_optimize(self._was)


AS_IT_IS = _AsItIs()


class _Replay:
    """The recorded operations that have to run again, as one TorchScript function.

    That runs them without taking Python's lock in between, for which threads would wait longer than compute.
    """

    def __init__(self, calls: Sequence[_Call], inputs: Answer, answer: Answer) -> None:
        self._calls = calls  # holds what they made
        self._inputs = inputs
        self._answer = answer
        self._graph = _Graph(_looked_at_twice(calls, (*inputs, *answer)))
        for call in calls:
            if not call.is_view and not call.is_constant:
                self._graph.add(call)
        self._run = self._graph.function()

    def __call__(self, *inputs: Tensor) -> Answer:
        for mine, theirs in zip(self._inputs, inputs, strict=True):
            mine.copy_(theirs)
        with torch.no_grad(), AS_IT_IS:
            self._run(*self._graph.tensors)
        return self._answer


def _looked_at_twice(calls: Sequence[_Call], kept: Sequence[Tensor]) -> set[int]:
    """The places of what stays, and of what more than one tensor looks at."""
    looks: dict[int, set[int]] = {}
    for call in calls:
        for tensor in _tensors((call.args, call.kwargs, call.made)):
            looks.setdefault(_place(tensor), set()).add(id(tensor))
    return {_place(each) for each in kept} | {place for place, by in looks.items() if len(by) > 1}


class _Graph:
    """Operations on tensors that stay in their place.

    Args:
        staying: the places that have to; what else an operation makes may lie anywhere.
    """

    def __init__(self, staying: set[int]) -> None:
        self._staying = staying
        self.tensors: list[Tensor] = []
        self._graph = torch._C.Graph()
        self._todo: list[tuple[OpOverload, list[Any], list[Tensor | None]]] = []
        self._values: dict[int, Any] = {}
        self._lists: list[Any] = []

    def add(self, call: _Call) -> None:
        """One more operation, into the tensors that it made."""
        operation, into = call.operation, {}
        made: list[Tensor | None] = []
        if not operation._schema.is_mutable:
            made = list(call.made) if isinstance(call.made, tuple | list) else [call.made]
            there, names = _into(operation)
            if there is not None and len(names) == len(made) and all(each is not None for each in made):
                operation, into, made = there, dict(zip(names, made, strict=True)), []
        given = call.kwargs | into
        arguments = [
            call.args[at] if at < len(call.args) else given.get(argument.name, argument.default_value)
            for at, argument in enumerate(operation._schema.arguments)
        ]
        for at, argument in enumerate(operation._schema.arguments):
            if arguments[at] in ((), []) and str(argument.type) == "List[Tensor]":
                arguments[at] = NO_TENSORS
        self._todo.append((operation, arguments, made))

    def function(self) -> Callable[..., Any]:
        """Runs them, given ``tensors``.

        Raises:
            RuntimeError, TypeError, KeyError, AttributeError: TorchScript cannot run one of them.
        """
        for _, arguments, made in self._todo:  # a graph's inputs come before its nodes
            for tensor in _tensors((arguments, made)):
                if id(tensor) not in self._values:
                    self._values[id(tensor)] = self._graph.addInput()
                    self.tensors.append(tensor)
        for operation, arguments, made in self._todo:
            outputs = self._node(
                operation._schema.name, [self._value(each) for each in arguments], operation._schema.returns
            )
            for kept, new in zip(made, outputs, strict=False):  # it could not be told where to write
                if kept is not None and _place(kept) not in self._staying:
                    self._values[id(kept)] = new
                elif kept is not None:
                    copied = [self._value(kept), new, self._value(False)]
                    self._node("aten::copy_", copied, torch.ops.aten.copy_.default._schema.returns)
        # What returns nothing and writes to tensors in lists would be left out as of no use, but for this.
        node = self._graph.create("prim::ListConstruct", self._lists, 1)
        self._graph.insertNode(node).output().setType(torch._C.ListType(LIST_OF_TENSORS))
        self._graph.registerOutput(node.output())
        return torch._C._create_function_from_graph("recorded", self._graph)

    def _node(self, name: str, inputs: Sequence[Any], returns: Sequence[Any]) -> list[Any]:
        node = self._graph.insertNode(self._graph.create(name, list(inputs), len(returns)))
        outputs = list(node.outputs())
        for output, returned in zip(outputs, returns, strict=True):
            output.setType(returned.type)
        return outputs

    def _value(self, given: Any) -> Any:
        if isinstance(given, Tensor):
            return self._values[id(given)]
        listed = isinstance(given, tuple | list) and any(isinstance(each, Tensor) for each in given)
        if listed or given is NO_TENSORS:
            node = self._graph.create("prim::ListConstruct", [self._value(each) for each in given], 1)
            self._graph.insertNode(node).output().setType(LIST_OF_TENSORS)
            self._lists.append(node.output())
            return node.output()
        if isinstance(given, torch.dtype | torch.memory_format | torch.layout):
            given = NUMBERS[given]
        constant = list(given) if isinstance(given, tuple) else given
        return self._graph.insertConstant(constant)  # type: ignore[attr-defined]  # the stub lacks it


LIST_OF_TENSORS = torch._C.ListType(torch._C.TensorType.get())

NUMBERS: dict[Any, int] = {
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
"""What TorchScript calls types and the like."""


@cache
def _into(operation: OpOverload) -> tuple[OpOverload | None, tuple[str, ...]]:
    """The same operation into tensors that it is given, and what these are called.

    Not where that would only copy what the operation made.
    """
    own = [(argument.name, str(argument.type)) for argument in operation._schema.arguments]
    for name in operation.overloadpacket.overloads():
        other = getattr(operation.overloadpacket, name)
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


def _place(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()
