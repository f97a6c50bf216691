"""The verdict on a run, from results whose figures are made up."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from sheaf.core.types import CLOUD
from sheaf.report.verdict import Verdict, verdict
from sheaf.runtime.costs import SiteCost
from sheaf.runtime.result import Curve, Result, Row, WholeModel

EDGES = ("a", "b", "c")


def rows(stage: str, values: Mapping[str, float], on_all: float | None = 0.5, **fields: Any) -> list[Row]:
    """Return a row of 100 test images for each site."""
    return [
        Row(
            site=site,
            stage=stage,
            **{"round": 1, "reference": False, **fields},
            accuracy=value,
            **dict.fromkeys(("precision", "recall", "f1", "macro_f1"), value),
            accuracy_all=value if site == CLOUD else on_all,
            held_out=None,
            loss=1.0,
            examples=100,
            confusion=[[1]],
        )
        for site, value in values.items()
    ]


def edges(*values: float) -> dict[str, float]:
    return dict(zip(EDGES, values, strict=True))


def result(method: str, *measured: list[Row], samples: int | None = 5, **changes: Any) -> Result:
    cost = {
        site: SiteCost(90, 1000, 3000, 2000, 4000, 1.5, 7, samples_sent=samples if site != CLOUD else 0)
        for site in (*EDGES, CLOUD)
    }
    fields: dict[str, Any] = {
        "method": method,
        "classes": ["x"],
        "split": {edge: [10] for edge in EDGES},
        "rows": [row for group in measured for row in group],
        "whole": WholeModel(macs_per_example=90, train_macs_per_example=270, parameters=1000),
        "cost": cost,
        "refused": [],
        "weights": {},
        "provenance": {},
    }
    return Result(**(fields | changes))


def ecavg(last: Mapping[str, float], *more: list[Row], on_all: float | None = 0.5, **changes: Any) -> Result:
    """Return a result of ECAvg whose edges had 0.6 before the first merge, and end with ``last``."""
    before, cloud = rows("before update", edges(0.6, 0.6, 0.6)), rows("averaged weights", {CLOUD: 0.8})
    return result("ecavg", before, cloud, rows("after retraining", last, on_all), *more, **changes)


def alone(*values: float) -> list[Row]:
    return rows("alone", edges(*values), reference=True)


def text(found: Verdict) -> str:
    return "\n".join(f"{finding.topic}: {finding.text}" for finding in found.findings).replace("\u00a0", " ")


def test_a_run_that_pays() -> None:
    central = rows("central", {CLOUD: 0.9}, reference=True)
    pool = rows("initial weights", {CLOUD: 0.75}, reference=True)
    found = verdict(ecavg(edges(0.9, 0.8, 0.75), pool, alone(0.7, 0.7, 0.7), central, on_all=0.8))
    assert (found.outcome, found.short) == ("pays", "pays: +11.7 points, worst +5.0")
    assert found.gains == pytest.approx(edges(0.2, 0.1, 0.05))
    assert found.as_long
    assert text(found).splitlines() == [
        "edges: Taking part pays: on average an edge gains 11.7 points on its own classes (alone 70.0 %, now "
        "81.7 %); the least change is +5.0 (c). On all classes the mean change is +30.0 points.",
        "cloud: The cloud's model reaches 80.0 % on all classes: 10.0 points below central training on all "
        "images (90.0 %), 5.0 points above the same training without the edges' models (75.0 %), 30.0 points "
        "above an edge alone (50.0 %).",
        "left the devices: 15 of 30 images (50.0 %); models and messages: 6.0 kB up, 12.0 kB down.",
        "cost: Training took the edges 9.0k multiply-adds, at most 1.5 s each; the cloud 3.0k, 1.5 s.",
    ]


def test_a_run_that_does_not_pay() -> None:
    found = verdict(ecavg(edges(0.7, 0.6, 0.65), alone(0.7, 0.7, 0.7)))
    assert (found.outcome, found.short) == ("does not pay", "does not pay: −5.0 points, worst −10.0")
    assert text(found).startswith(
        "edges: Taking part does not pay: on average an edge loses 5.0 points on its own classes (alone "
        "70.0 %, now 65.0 %); the least change is −10.0 (b)."
    )


def test_a_loss_of_some_edges_is_told_beside_a_mean_gain() -> None:
    found = verdict(ecavg(edges(0.9, 0.9, 0.6), alone(0.7, 0.7, 0.7)))
    assert found.outcome == "pays"
    assert "the least change is −10.0 (c). 1 of 3 edges loses." in text(found)


def test_a_gain_on_all_classes_does_not_hide_a_loss_on_own_ones() -> None:
    found = verdict(ecavg(edges(0.6, 0.6, 0.6), alone(0.7, 0.7, 0.7), on_all=0.8))
    assert found.outcome == "mixed"
    assert "costs accuracy on own classes and brings it on all" in text(found)


def test_less_than_one_test_image_is_no_difference() -> None:
    found = verdict(ecavg(edges(0.705, 0.7, 0.7), alone(0.7, 0.7, 0.7)))
    assert found.outcome == "no difference"
    assert "neither gains nor loses" in text(found)


def test_without_a_baseline_the_first_measurement_is_compared_and_named_so() -> None:
    def curve(call: int, epochs: int) -> Curve:
        losses: dict[str, list[float | None]] = {"a": [1.0] * epochs}
        return Curve(call=call, stage="s", round=1, reference=False, sites=1, losses=losses, spread=[])

    found = verdict(ecavg(edges(0.9, 0.8, 0.7), curves=[curve(1, 20), curve(5, 10)]))
    assert (found.outcome, found.as_long) == ("better", False)
    assert "had trained 20 of 30 epochs. Training alone for as long was not measured" in text(found)
    assert verdict(ecavg(edges(0.5, 0.5, 0.5))).outcome == "does not pay"


@pytest.mark.parametrize("method", ["fedavg", "heterofl", "fedrolex"])
def test_methods_that_measure_edges_only_at_the_end_need_a_baseline(method: str) -> None:
    own = rows("average", {CLOUD: 0.8}), rows("after update", edges(0.8, 0.8, 0.8), 0.8)
    found = verdict(result(method, *own, samples=0))
    assert found.outcome == "unknown"
    assert "has no comparison with training alone" in text(found)
    assert "No image; models and messages: 6.0 kB up" in text(found)
    assert verdict(result(method, *own, alone(0.7, 0.7, 0.7))).outcome == "pays"


def test_edges_that_keep_their_models_are_compared_with_the_clouds() -> None:
    apart = rows("apart", edges(0.9, 0.9, 0.9), 0.3)
    good, bad = (result("decoupled", apart, rows("bound", {CLOUD: value})) for value in (0.8, 0.2))
    assert verdict(good).short == "pays: merged model +50.0 points on all classes"
    assert verdict(bad).short == "does not pay: merged model −10.0 points on all classes"
    assert "The edges keep the models that they trained separately" in text(verdict(bad))


def test_images_that_the_cloud_sends_on_are_counted() -> None:
    lent = result("decoupled", rows("apart", edges(0.9, 0.9, 0.9)), rows("bound", {CLOUD: 0.8}))
    lent.cost[CLOUD].samples_sent = 7
    assert "The cloud sent 7 copies of images on to other devices." in text(verdict(lent))


def test_training_alone_and_central_training() -> None:
    local = verdict(result("local", rows("alone", edges(0.7, 0.8, 0.6)), samples=0))
    assert (local.outcome, local.short) == ("alone", "alone: 70.0\u00a0%, worst 60.0\u00a0%")
    assert "No image; messages without a model" in text(local)
    own = rows("central", {CLOUD: 0.9}), rows("after update", edges(0.9, 0.9, 0.9), 0.9)
    central = verdict(result("central", *own, alone(0.7, 0.7, 0.7), samples=10))
    assert central.outcome == "pays"
    assert "30 of 30 images (100.0 %); messages with the images" in text(central)


def test_what_was_not_recorded_or_measured_is_not_made_up() -> None:
    old = verdict(ecavg(edges(0.9, 0.9, 0.9), alone(0.7, 0.7, 0.7), samples=None))
    assert old.images is None
    assert "The number of images was not recorded" in text(old)
    assert verdict(result("ecavg", rows("average", {CLOUD: 0.5}))).outcome == "unknown"
