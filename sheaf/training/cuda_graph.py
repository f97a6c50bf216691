"""Capture a function of tensors on a GPU as a CUDA graph and launch it whole.

To launch a small network's kernels one by one takes the processor longer than the GPU takes to run them. The
counterpart on a CPU is ``cpu_graph``.
"""

from __future__ import annotations

import torch
from torch import Tensor

from sheaf.training.cpu_graph import Function, Result

WARM_UPS = 3
"""Calls that run as they are, in which libraries choose their kernels and allocate memory."""


class CudaGraphFunction:
    """``function``, launched as a graph from its fourth call with inputs of the same shapes on.

    Beyond its inputs the function may read and write tensors that stay at their address, and draw from the
    GPU's generator. One that synchronizes with the GPU (``item``) cannot be captured and is called as it is.

    Args:
        function: tensors on one GPU -> tensors there. The next call overwrites its result.
    """

    def __init__(self, function: Function) -> None:
        self._function = function
        self._calls: dict[tuple[torch.Size, ...], int] = {}
        self._captured: dict[tuple[torch.Size, ...], Function] = {}

    def __call__(self, *inputs: Tensor) -> Result:
        """Return the function's result."""
        shapes = tuple(each.shape for each in inputs)
        if shapes not in self._captured:
            self._calls[shapes] = self._calls.get(shapes, 0) + 1
            if self._calls[shapes] <= WARM_UPS:
                return _on_side_stream(self._function, inputs)
            try:
                self._captured[shapes] = _Graph(self._function, inputs)
            except RuntimeError:
                self._captured[shapes] = self._function
        return self._captured[shapes](*inputs)


def _on_side_stream(function: Function, inputs: tuple[Tensor, ...]) -> Result:
    """Run as a capture does: work that autograd ties to the default stream would not be captured."""
    usual, side = torch.cuda.current_stream(), torch.cuda.Stream()  # type: ignore[no-untyped-call]
    side.wait_stream(usual)
    with torch.cuda.stream(side):
        result = function(*inputs)
    usual.wait_stream(side)
    return result


class _Graph:
    """One capture. It reads its inputs from, and leaves its result in, the same memory each time."""

    def __init__(self, function: Function, inputs: tuple[Tensor, ...]) -> None:
        self._inputs = tuple(each.clone() for each in inputs)
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph, capture_error_mode="thread_local"):
            self._result = function(*self._inputs)

    def __call__(self, *inputs: Tensor) -> Result:
        for own, given in zip(self._inputs, inputs, strict=True):
            own.copy_(given)
        self._graph.replay()
        return self._result
