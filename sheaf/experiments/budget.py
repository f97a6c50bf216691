"""Methods under the same budget of seconds, bytes or joules: how many rounds fit, and the accuracy there."""

from __future__ import annotations

import math
import statistics
from dataclasses import fields, replace
from pathlib import Path
from typing import Literal

from sheaf.core.errors import SettingError
from sheaf.core.types import CLOUD
from sheaf.experiments.config import Experiment
from sheaf.experiments.dry_run import dry_run
from sheaf.experiments.setup import prepare
from sheaf.runtime.result import Result, Row
from sheaf.runtime.timeline import Budget

Per = Literal["seconds", "bytes", "joules"]
"""A cost of which every method gets the same budget."""

SPARE = 1.25
"""Rounds of a method, as a multiple of those that its dry run predicts within the budget."""

MAX_ROUNDS = 10_000
"""Most rounds of a method under a budget."""


def predict(experiment: Experiment, data: Path | None = None) -> dict[Per, float]:
    """Return what a run will spend, by a dry run. Without ``fleet.devices``, only its bytes."""
    ledger, timeline = dry_run(prepare(experiment, data))
    of_cloud = ledger.sites[CLOUD]
    spent: dict[Per, float] = {"bytes": of_cloud.bytes_sent + of_cloud.bytes_received}
    if timeline is not None:
        now = timeline.spent()
        spent["seconds"] = now.seconds
        if now.joules is not None:
            spent["joules"] = now.joules
    return spent


def check_cost(experiment: Experiment, per: Per) -> None:
    """Check that runs of an experiment record a cost.

    Raises:
        SettingError: they do not.
    """
    if per != "bytes" and experiment.fleet.devices is None:
        raise SettingError(
            f"--per {per} needs devices with a virtual clock: set fleet.devices, as in "
            "--set 'fleet.devices.mix={\"raspberry-pi-4+lte\" = 1}'; --per bytes needs none"
        )


def with_budget(experiment: Experiment, per: Per, budget: float, data: Path | None = None) -> Experiment:
    """Return the experiment with a limit of one cost, and with enough rounds to spend it.

    Args:
        experiment: its settings.
        per: the cost.
        budget: the limit, above 0.
        data: the directory in which named datasets are looked for first.

    Raises:
        SettingError: the experiment's runs do not record this cost.
    """
    check_cost(experiment, per)
    limited = replace(experiment, fleet=replace(experiment.fleet, stop_at=Budget(**{per: budget})))
    method = experiment.method
    if not any(each.name == "rounds" for each in fields(method)):
        return limited
    unlimited = replace(experiment, fleet=replace(experiment.fleet, stop_at=None))
    predicted = predict(unlimited, data)
    if per not in predicted:
        raise SettingError(f"--per {per}: the power of an edge is unknown; set watts_idle and watts_busy")
    rounds = math.ceil(SPARE * method.rounds * budget / max(predicted[per], 1e-9)) + 1
    try:
        return replace(limited, method=replace(method, rounds=min(MAX_ROUNDS, max(1, rounds))))
    except ValueError:  # the method allows only one round with its other settings
        return limited


def accuracy_within(result: Result, per: Per, budget: float) -> float | None:
    """Return the last accuracy that a run measured within a budget, or None.

    It is that of the cloud's model on all classes; without one, the edges' mean on their own classes.
    """
    assert result.time is not None, "a run with a budget records its time"
    stages: dict[tuple[str, int], list[Row]] = {}
    for row, spent in zip(result.rows, result.time.measured, strict=False):
        cost = getattr(spent, per)
        if not row.reference and cost is not None and cost <= budget:
            stages.setdefault((row.stage, row.round), []).append(row)
    of_cloud = [row.accuracy_all for rows in stages.values() for row in rows if row.site == CLOUD]
    if of_cloud:
        return of_cloud[-1]
    of_edges = [rows for rows in stages.values() if rows[0].site != CLOUD]
    return statistics.mean(row.accuracy for row in of_edges[-1]) if of_edges else None
