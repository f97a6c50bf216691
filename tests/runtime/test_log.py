"""The log of a run: rows of measurements, and curves of losses."""

from __future__ import annotations

import math
from dataclasses import replace

from made_up import CONFUSION, evaluated

from sheaf.core.task import Cost, Update
from sheaf.core.types import CLOUD
from sheaf.runtime.log import Log
from sheaf.runtime.result import Row


def test_a_row_has_the_scores_of_the_sites_own_classes() -> None:
    log = Log()
    log("before", [evaluated("edge-1", held_out=0.25), evaluated("edge-2", (0, 3, 0))])
    log("after", [evaluated("edge-1", loss=math.nan)], round=2)
    log("cloud", [evaluated(CLOUD)])
    first, second, later, cloud = log.rows
    assert (first.site, first.stage, first.round, first.examples) == ("edge-1", "before", 1, 12)
    assert first.accuracy == first.recall == 9 / 12, "of its own classes"
    assert first.accuracy_all == second.accuracy_all == cloud.accuracy == cloud.accuracy_all == 11 / 16
    assert (second.accuracy, second.examples) == (2 / 4, 4)
    assert cloud.examples == 16, "all classes are the cloud's own"
    assert (first.held_out, second.held_out) == (0.25, None)
    assert (first.loss, later.loss, later.round) == (0.5, None, 2)


def test_a_device_without_test_examples_of_other_classes_has_no_accuracy_on_all() -> None:
    """A device of a real fleet has test examples of its own; in one process, sites share the test set."""
    log = Log()
    update = evaluated("edge-1")
    of_own = [line if k != 1 else [0, 0, 0] for k, line in enumerate(CONFUSION)]
    log("before", [update, replace(update, metrics=update.metrics | {"confusion": of_own})])
    log("before", [evaluated("edge-3", (1, 1, 1))])
    assert [row.accuracy_all is None for row in log.rows] == [False, True, False]


def test_a_log_reports_each_row() -> None:
    reported: list[Row] = []
    log = Log(reported.append)
    log("before", [evaluated("edge-1"), evaluated("edge-2")])
    assert reported == log.rows
    assert [row.site for row in reported] == ["edge-1", "edge-2"]


def trained(site: str, losses: list[float]) -> Update:
    return Update(site, "train", None, (1,), {"losses": losses}, Cost())


def test_a_curve_has_the_stage_of_the_next_measurement() -> None:
    log = Log()
    log.trained(2, [trained("edge-1", [1.23456, 0.5]), trained("edge-2", [math.nan, math.inf])])
    assert log.curves[0].stage == ""
    log("before", [evaluated("edge-1")])
    log("and again", [evaluated("edge-1")])
    log.trained(5, [trained(CLOUD, [0.25])])
    log.trained(6, [trained(CLOUD, [0.125])])
    log("start weights", [evaluated(CLOUD)], round=3, reference=True)
    log.trained(9, [trained("edge-1", [0.1])])
    named = [(curve.call, curve.stage, curve.round, curve.reference) for curve in log.curves]
    assert named == [
        (2, "before", 1, False),
        (5, "start weights", 3, True),
        (6, "start weights", 3, True),
        (9, "", 0, False),
    ]
    assert log.curves[0].losses == {"edge-1": [1.235, 0.5], "edge-2": [None, None]}, "four digits"
    assert log.curves[0].spread == []


def test_a_curve_of_many_sites_has_their_spread() -> None:
    log = Log()
    log.trained(1, [trained(f"edge-{n}", [float(n), math.nan] + [9.0] * (n == 3)) for n in range(21)])
    (curve,) = log.curves
    assert (curve.sites, curve.losses) == (21, {})
    assert curve.spread == [(0, 10, 20), (None, None, None), (9, 9, 9)]
