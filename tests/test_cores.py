"""Work spread over the cores: all of it, in its order, and nothing left behind."""

from __future__ import annotations

import threading

import pytest
import torch

from sheaf.cores import side_by_side


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


def test_what_goes_wrong_is_raised_and_no_thread_stays() -> None:
    before = set(threading.enumerate())
    with pytest.raises(ZeroDivisionError):
        side_by_side(lambda item: 1 // item, [3, 2, 1, 0])
    assert set(threading.enumerate()) <= before
