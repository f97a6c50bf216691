"""The profile of the simulation benchmark names functions that exist, and counts them."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def _benchmarks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(Path(__file__).parents[2])


def test_every_part_names_functions_of_sheaf() -> None:
    from benchmarks.simulation.profiling import PARTS, SIDE_BY_SIDE, resolve

    for name in [*(name for names in PARTS.values() for name in names), SIDE_BY_SIDE]:
        owner, attribute = resolve(name)
        assert callable(getattr(owner, attribute)), name


def test_a_part_counts_its_own_time_without_that_of_parts_inside() -> None:
    from benchmarks.simulation.profiling import ProcessorTime

    spent = ProcessorTime()

    def compute(seconds: float) -> None:
        began = time.thread_time()
        while time.thread_time() - began < seconds:
            pass

    def produce() -> Iterator[int]:
        for item in range(2):
            compute(0.01)
            yield item

    def consume() -> None:
        for _ in spent.counted("producer", produce)():
            compute(0.02)

    spent.counted("consumer", consume)()
    assert 0.02 <= spent.seconds["producer"] < 0.035
    assert 0.04 <= spent.seconds["consumer"] < 0.055
