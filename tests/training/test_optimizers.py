"""Optimizers and schedules of a recipe."""

from __future__ import annotations

import math

import pytest
from striped_digits import linear

from sheaf.core.recipe import Recipe
from sheaf.training.optimizers import make_optimizer, make_scheduler, rates_of_parts


def rates(schedule: str, steps: int) -> list[float]:
    recipe = Recipe(optimizer="sgd", lr=0.5, momentum=0.7, schedule=schedule)
    optimizer = make_optimizer(list(linear().parameters()), recipe)
    scheduler = make_scheduler(optimizer, recipe, steps)
    found = []
    for _ in range(steps):
        found.append(optimizer.param_groups[0]["lr"])
        assert optimizer.param_groups[0]["momentum"] == 0.7, "a schedule moves the learning rate alone"
        optimizer.step()
        if scheduler is not None:
            scheduler.step()
    return found


def test_schedules() -> None:
    assert rates("constant", 5) == [0.5] * 5
    cosine = [0.25 * (1 + math.cos(math.pi * step / 40)) for step in range(40)]
    assert rates("cosine", 40) == pytest.approx(cosine)
    one_cycle = rates("onecycle", 40)
    top = one_cycle.index(max(one_cycle))
    assert one_cycle[0] == pytest.approx(0.5 / 25)
    assert max(one_cycle) == pytest.approx(0.5)
    assert top == 11, "three tenths of the way"
    assert one_cycle == sorted(one_cycle[:top]) + sorted(one_cycle[top:], reverse=True)
    assert one_cycle[-1] < 1e-4


def test_rates_of_parts_are_those_of_the_schedule_in_their_middle() -> None:
    def of_parts(schedule: str, parts: int) -> list[float]:
        return rates_of_parts(Recipe(optimizer="sgd", lr=0.5, momentum=0.7, schedule=schedule), parts)

    assert of_parts("constant", 3) == [0.5] * 3
    assert of_parts("cosine", 2) == pytest.approx(
        [0.25 * (1 + math.cos(math.pi * at)) for at in (0.25, 0.75)]
    )
    whole = rates("onecycle", 400)
    assert of_parts("onecycle", 10) == pytest.approx(whole[20::40], abs=0.005)
