"""Run independent work on all cores, one thread on each.

Splitting one short tensor operation among threads costs more in synchronisation than it saves, above all if
other programs use the cores too. Threads that each run an operation of their own need no synchronisation.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from functools import cache, partial
from typing import TypeVar

import torch

Item = TypeVar("Item")
Result = TypeVar("Result")


@cache
def thread_pool(purpose: str, count: int) -> ThreadPoolExecutor:
    """Return the pool of ``count`` threads for a purpose; torch runs single-threaded on each.

    The threads live as long as the process. A new thread has a new, cold memory arena, which raised the time
    of six small steps of five sites from 7 to 13 ms.
    """
    return ThreadPoolExecutor(count, purpose, initializer=partial(torch.set_num_threads, 1))


def side_by_side(function: Callable[[Item], Result], items: Sequence[Item]) -> list[Result]:
    """Return ``function`` of each item, in order, computed on one thread per core.

    Fewer items than cores run one after another, each on all cores. Otherwise every item finishes before an
    exception is raised.
    """
    threads = torch.get_num_threads()
    if threads == 1 or len(items) < threads:
        return [function(item) for item in items]
    torch.set_num_threads(1)  # some libraries have one number for all threads
    try:
        futures = [thread_pool("core", threads).submit(function, item) for item in items]
        wait(futures)
        return [future.result() for future in futures]
    finally:
        torch.set_num_threads(threads)
