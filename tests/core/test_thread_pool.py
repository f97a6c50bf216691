"""Work on all cores: every item once, in order, on threads that are reused."""

from __future__ import annotations

import threading
import time

import pytest
import torch

from sheaf.core.thread_pool import side_by_side, thread_pool


@pytest.mark.parametrize("count", [0, 1, 2, 9])
@pytest.mark.parametrize("threads", [1, 2, 4])
def test_each_item_once_and_in_order(count: int, threads: int) -> None:
    usual, seen = torch.get_num_threads(), []

    def square(item: int) -> int:
        seen.append(torch.get_num_threads())
        return item * item

    torch.set_num_threads(threads)
    try:
        assert side_by_side(square, range(count)) == [item * item for item in range(count)]
        assert torch.get_num_threads() == threads
        assert seen == [1 if count >= threads else threads] * count
    finally:
        torch.set_num_threads(usual)


def test_an_error_is_raised_after_every_item_has_ended() -> None:
    usual, ended = torch.get_num_threads(), []

    def slow(item: int) -> float:
        time.sleep(item / 10)
        ended.append(item)
        return 1 / item

    torch.set_num_threads(2)
    try:
        with pytest.raises(ZeroDivisionError):
            side_by_side(slow, [0, 1, 2])
        assert ended == [0, 1, 2]
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(usual)


def test_threads_are_reused_and_torch_is_single_threaded_on_them() -> None:
    def who() -> tuple[threading.Thread, int]:
        return threading.current_thread(), torch.get_num_threads()

    found = {thread_pool("test", 1).submit(who).result() for _ in range(3)}
    assert len(found) == 1
    assert [number for _, number in found] == [1]
