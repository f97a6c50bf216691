"""The rows of a job's result."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from typing import Any

from benchmarks.full_size.jobs import Job
from benchmarks.rivals import row as rival_row
from sheaf.core.settings import plain
from sheaf.core.types import CLOUD
from sheaf.experiments.compare import summarise
from sheaf.runtime.result import Result, Row

SITES_WITH_ROWS = 10
"""Most edges for which each has rows."""

SCORES = ("accuracy", "precision", "recall", "f1", "accuracy_all")


def rows_of(job: Job, result: Result, central: Result | None, common: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the rows of a job.

    Args:
        job: the job.
        result: its result.
        central: the result of central training, for a decoupled job; None: it has not finished.
        common: the columns that all rows have.
    """
    common = common | {
        "method": result.method,
        "model": job.experiment.model.name,
        "data": job.experiment.data.name,
        "images": sum(map(sum, result.split.values())),
    }
    if job.rival is not None:
        own = rival_row(*job.rival, job.experiment.seed, result)
        rows = [{key: value for key, value in own.items() if key not in ("seed", "commit")}]
    elif job.central:
        rows = list(_decoupled(result, central, job.experiment.method.train.epochs))
    elif len(result.split) > SITES_WITH_ROWS:
        rows = [_simulation(result, plain(job.experiment.method)["rounds"])]
    else:
        rows = list(_stages(result))
    return [common | row for row in rows]


def _stages(result: Result) -> Iterator[dict[str, Any]]:
    """Yield the last row of each site and stage; but for ECAvg's methods, only the last of each site."""
    every = result.method.startswith("ecavg")
    last: dict[tuple[str, str], Row] = {(row.site, row.stage if every else ""): row for row in result.rows}
    for row in last.values():
        yield {"site": row.site, "stage": row.stage} | {score: getattr(row, score) for score in SCORES}


def _decoupled(result: Result, central: Result | None, epochs: int) -> Iterator[dict[str, Any]]:
    """Yield a row of the bound model, and one after the classifier's refit.

    The sums compare with training the whole model on every device's images for as many epochs as ``central``.
    ``own_classes`` is the mean accuracy of the devices' sub-models on their own classes, before they are
    bound, and ``central_own_classes`` the mean accuracy of the central model on the same classes.
    """
    if central is not None:
        epochs = central.provenance["settings"]["method"]["train"]["epochs"]
    summary = summarise("decoupled", [result], epochs)
    reference = None if central is None else central.final(CLOUD)
    stages = {row.stage: row.accuracy for row in result.rows if row.site == CLOUD}
    for stage, accuracy in stages.items():
        yield {
            "step": stage,
            "accuracy": accuracy,
            "central": None if reference is None else reference.accuracy,
            "own_classes": _own_classes(result, "apart"),
            "central_own_classes": None if central is None else _own_classes(central, "after update"),
            "saved_weakest": max(summary.saved.values()),
            "saved_least": min(summary.saved.values()),
            "saved_sum": summary.saved_sum,
            "saved_sum_with_cloud": summary.saved_sum if stage == "bound" else summary.saved_sum_with_cloud,
        }


def _own_classes(result: Result, stage: str) -> float:
    """Return the mean accuracy of the edges on their own classes at a stage."""
    return statistics.fmean(row.accuracy for row in result.rows if row.stage == stage and row.site != CLOUD)


def _simulation(result: Result, rounds: int) -> dict[str, Any]:
    final = result.final(CLOUD)
    assert final is not None, "every round measures the cloud's model"
    return {"clients": len(result.split), "rounds": rounds, "accuracy": final.accuracy}
