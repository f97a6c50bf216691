"""The heap of the C library while a device computes."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager

SETTINGS = {"MALLOC_ARENA_MAX": "1", "MALLOC_MMAP_THRESHOLD_": str(1 << 19)}
"""Environment of a fleet's processes: messages of megabytes on many threads fragment one heap less than many.

Blocks of half a megabyte and more are returned to the system at once and leave no holes.
"""

REUSED = 1 << 25
"""Bytes of a block up to which computing reuses it, the largest value that glibc accepts."""

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3


@contextmanager
def reused_blocks() -> Iterator[None]:
    """Let freed blocks be reused inside the ``with`` block, and return them to the system after it.

    With ``SETTINGS`` each training step would map the memory of its activations anew; ``python -m
    benchmarks.training_heap`` measures the gain. Does nothing in a process without ``SETTINGS``, or with
    another C library than glibc.
    """
    usual = os.environ.get("MALLOC_MMAP_THRESHOLD_")
    if usual is None:
        yield
        return
    reuse_blocks()
    try:
        yield
    finally:
        _set(M_MMAP_THRESHOLD, int(usual))
        _set(M_TRIM_THRESHOLD, int(usual))
        if hasattr(library := ctypes.CDLL(None), "malloc_trim"):
            library.malloc_trim(0)


def reuse_blocks() -> None:
    """Let freed blocks be reused for the rest of the process; see ``reused_blocks``."""
    _set(M_MMAP_THRESHOLD, REUSED)
    _set(M_TRIM_THRESHOLD, 2 * REUSED)


def _set(parameter: int, value: int) -> None:
    if hasattr(library := ctypes.CDLL(None), "mallopt"):
        library.mallopt(parameter, value)
