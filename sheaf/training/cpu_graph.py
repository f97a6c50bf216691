"""Record a function of tensors once and replay it in the memory it ran in: what CUDA graphs do, on a CPU.

A training step of a small network is some fifty short operations, and Python, autograd and vmap between them
take longer than the operations. Every step comes down to the same operations on tensors of the same shapes.
They are recorded as they reach the kernels; a replay runs only them, as one TorchScript function, each
writing into the tensor that it made before where its kernel has an ``out`` variant. Views stay as they are.
``fused_update`` and ``update_by_site`` improve the operations of a stack's step.
Small networks trained 1.6x to 2.8x faster with it (three jobs of ``benchmarks/simulation``).

This file, ``operation`` and ``replay`` stand on private parts of torch:
``torch.utils._python_dispatch.TorchDispatchMode`` (recording), ``OpOverload._schema`` and
``torch._C._dispatch_has_kernel_for_dispatch_key`` (finding ``out`` variants),
``torch._C.Graph``, ``torch._C._create_function_from_graph`` and ``torch._C._set_graph_executor_optimize``
(replaying). Where one is missing or refuses, the function is called as it is, and the log says so once.
tests/training/test_cpu_graph.py fails when they change.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor

from sheaf.training import operation
from sheaf.training.operation import Operation, address, tensors_in
from sheaf.training.replay import Replay

try:
    from torch.utils._python_dispatch import TorchDispatchMode

    MISSING = operation.MISSING
except ImportError as error:  # another torch
    TorchDispatchMode, MISSING = object, str(error)  # type: ignore[assignment, misc]

logger = logging.getLogger("sheaf")

LARGEST = 2**26
"""Bytes that the operations of a call may make: a larger call is limited by memory bandwidth."""

ATTEMPTS = 3
"""Recordings at most to find two equal ones."""

Shapes = tuple[tuple[int, ...], ...]
Result = tuple[Tensor, ...]
Function = Callable[..., Result]


class Recordings:
    """The recordings of functions that do the same on memory of their own: one of them records for all."""

    def __init__(self) -> None:
        self.lock = threading.Lock()  # held while one function records
        self.by_shapes: dict[Shapes, tuple[Replay, list[Tensor]]] = {}


class CpuGraphFunction:
    """``function``, recorded at its first call with inputs of new shapes and replayed from then on; on a CPU.

    The function is recorded until two successive recordings differ only in the values of tensors (the first
    may differ, as an optimizer allocates its moments there). The tensors that it changed get their values
    back, so that every call has the bits of a replay. If none of ``ATTEMPTS`` recordings agree, or if one
    reads a value (``item``), draws from the global generator or makes more than ``LARGEST`` bytes, the
    function is always called as it is.

    Args:
        function: tensors -> tensors. The next call overwrites its result. Beyond its inputs it may read and
            change tensors that stay at their address.
        memory: returns these tensors, in the same order. Those that the first call adds are 0 before it.
        exact: replays have the bits of the function; otherwise sums may be rounded otherwise
            (``fused_update``).
        recordings: shared with other functions that differ in their memory only.
    """

    def __init__(
        self,
        function: Function,
        memory: Callable[[], Sequence[Tensor]] = tuple,
        *,
        exact: bool = True,
        recordings: Recordings | None = None,
    ) -> None:
        self._function = function
        self._memory = memory
        self._exact = exact
        self._recordings = recordings or Recordings()
        self._by_shapes: dict[Shapes, Function] = {}

    def __call__(self, *inputs: Tensor) -> Result:
        """Return the function's result."""
        return self._for(inputs)(*inputs)

    def successive(self, *inputs: Tensor) -> Result:
        """Return the results (T, ...) of T successive calls with the inputs (T, ...)."""
        function = self._for(tuple(each[0] for each in inputs))
        if isinstance(function, Replay):
            return function.successive(*inputs)
        results = [
            tuple(each.clone() for each in function(*own)) for own in zip(*inputs, strict=True)
        ]  # the next call overwrites them
        return tuple(map(torch.stack, zip(*results, strict=True)))

    def _for(self, inputs: Result) -> Function:
        """Return the replay for inputs of these shapes, or the function."""
        if MISSING:
            _log_once(f"training steps are not recorded: {MISSING}")
        if MISSING or inputs[0].device.type != "cpu":
            return self._function
        shapes = tuple(tuple(each.shape) for each in inputs)
        if shapes not in self._by_shapes:
            with self._recordings.lock:
                replay = self._of_another(shapes) or self._recorded(inputs)
                if replay is not None:
                    self._recordings.by_shapes.setdefault(shapes, (replay, list(self._memory())))
            self._by_shapes[shapes] = replay or self._function
        return self._by_shapes[shapes]

    def _of_another(self, shapes: Shapes) -> Replay | None:
        """Return the replay of another function on the memory of this one, if both have the same memory."""
        if shapes not in self._recordings.by_shapes:
            return None
        replay, memory = self._recordings.by_shapes[shapes]
        own = self._memory()
        if [(each.shape, each.dtype) for each in memory] != [(each.shape, each.dtype) for each in own]:
            return None  # an optimizer has not allocated its moments yet
        return replay.on({address(each): new for each, new in zip(memory, own, strict=True)})

    def _recorded(self, inputs: Result) -> Replay | None:
        """Record a step and return its replay; None if the step cannot be recorded."""
        inputs = tuple(each.clone() for each in inputs)  # a replay overwrites them
        before = {id(each): each.clone() for each in self._memory()}
        outlines: list[tuple[Any, ...]] | None = None
        for _ in range(ATTEMPTS):
            with torch.random.fork_rng(devices=[]), _Recorder() as recorder:
                result = self._function(*inputs)
            with torch.no_grad():
                for each in self._memory():
                    each.copy_(before[id(each)]) if id(each) in before else each.zero_()
            if not recorder.repeatable:
                return None
            if outlines == recorder.outlines:
                try:
                    return Replay(recorder.operations, inputs, result, exact=self._exact)
                except (RuntimeError, TypeError, KeyError, AttributeError) as error:
                    _log_once(f"training steps are not recorded: {type(error).__name__}: {error}")
                    return None
            outlines = recorder.outlines
        return None


@cache
def _log_once(message: str) -> None:
    logger.info(message.partition("\n")[0])


class _Recorder(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Records the operations that reach the kernels of this thread.

    Keeps references to every tensor: autograd's in-place decisions depend on reference counts, and the
    replay's first call must take the same ones.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
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
        self._bytes += sum(each.nbytes for each in tensors_in(operation.results)) * (not operation.is_view)
        self.repeatable &= operation.is_repeatable and self._bytes <= LARGEST
        if self.repeatable:
            self.operations.append(operation)
        else:
            self.operations.clear()
        return operation.results
