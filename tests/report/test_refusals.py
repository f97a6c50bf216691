"""A device that is absent for a whole run has one line, not one for each call."""

from __future__ import annotations

from sheaf.report.refusals import refusal_lines
from sheaf.runtime.result import Refusal


def test_one_line_for_each_device_and_reason() -> None:
    absent = [Refusal(call=call, site="shop-3", why="not connected") for call in (1, 3, 5)]
    refusals = [
        Refusal(call=0, site="shop-1", why="its memory"),
        absent[0],
        Refusal(call=1, site="shop-2", why="not finite"),
        *absent[1:],
    ]
    assert refusal_lines(refusals) == [
        "left out of the run: shop-1: its memory",
        "refused in 3 calls: shop-3: not connected",
        "refused in call 1: shop-2: not finite",
    ]
    assert refusal_lines([]) == []
