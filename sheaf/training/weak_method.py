"""A method without a reference to its object."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from weakref import WeakMethod


def weak_method(method: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function that calls a bound method as long as its object exists.

    An object that stores its own method is a reference cycle. A training state in a cycle keeps its tensors
    until the garbage collector runs, which it rarely does between runs in one process.
    """
    reference = WeakMethod(method)

    def call(*args: Any) -> Any:
        bound = reference()
        assert bound is not None, "its object is gone"
        return bound(*args)

    return call
