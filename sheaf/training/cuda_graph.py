"""A function of tensors on a GPU that is called again and again: captured once, then launched whole.

To launch a network's kernels one by one takes a processor longer than a GPU takes to run them, unless the
network is large. What ``recorded`` does on a CPU.
"""

from __future__ import annotations

import torch
from torch import Tensor

from sheaf.training.cpu_graph import Answer, Function

WARM_UPS = 3
"""Calls that run as they are, in which libraries choose their kernels and take their memory."""


class CudaGraphFunction:
    """``function``, launched whole from its fourth call with inputs of the same shapes on.

    Beyond its inputs it may read and write tensors that stay in their place, and draw from the GPU's
    generator. One that waits for the GPU (``item``) cannot be captured and is called as it is.

    Args:
        function: tensors on one GPU -> tensors there. What it returns is overwritten by the next call.
    """

    def __init__(self, function: Function) -> None:
        self._function = function
        self._met: dict[tuple[torch.Size, ...], int] = {}
        self._known: dict[tuple[torch.Size, ...], Function] = {}

    def __call__(self, *inputs: Tensor) -> Answer:
        """What the function returns."""
        shapes = tuple(each.shape for each in inputs)
        if shapes not in self._known:
            self._met[shapes] = self._met.get(shapes, 0) + 1
            if self._met[shapes] <= WARM_UPS:
                return _on_a_stream_of_its_own(self._function, inputs)
            try:
                self._known[shapes] = _Launch(self._function, inputs)
            except RuntimeError:
                self._known[shapes] = self._function
        return self._known[shapes](*inputs)


def _on_a_stream_of_its_own(function: Function, inputs: tuple[Tensor, ...]) -> Answer:
    """As in a capture: what autograd remembers of the usual stream would not be captured."""
    usual, own = torch.cuda.current_stream(), torch.cuda.Stream()  # type: ignore[no-untyped-call]
    own.wait_stream(usual)
    with torch.cuda.stream(own):
        answer = function(*inputs)
    usual.wait_stream(own)
    return answer


class _Launch:
    """One capture: it reads its inputs from, and leaves its answer in, the same memory each time."""

    def __init__(self, function: Function, inputs: tuple[Tensor, ...]) -> None:
        self._inputs = tuple(each.clone() for each in inputs)
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph, capture_error_mode="thread_local"):
            self._answer = function(*self._inputs)

    def __call__(self, *inputs: Tensor) -> Answer:
        for mine, theirs in zip(self._inputs, inputs, strict=True):
            mine.copy_(theirs)
        self._graph.replay()
        return self._answer
