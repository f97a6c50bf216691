"""The cost of the journal: its fraction of a run's time, and what a run loses by it."""

from __future__ import annotations

import statistics
import time
from typing import Any
from unittest import mock

from benchmarks.simulation.jobs import JOBS
from benchmarks.simulation.sheaf_side import sheaf
from sheaf.core.stored_params import StoredParams
from sheaf.core.task import Task, Update
from sheaf.core.tensor_file import Blob
from sheaf.core.types import Params
from sheaf.experiments import execution
from sheaf.runtime.journal import Journal

PAIRS = 12
"""Repetitions of runs with and without the journal."""


def journaled() -> dict[str, Any]:
    """Return the row of the first job, run with the journal and with one that records nothing."""
    job, spent = next(iter(JOBS.values())), [0.0]

    class Forgetful(Journal):
        """Records neither answers nor merges."""

        def record(self, task: Task, update: Update, flaw: str | None = None) -> Update:
            return update

        def record_merged(self, call: int, number: int, of: str, params: Params) -> StoredParams:
            return StoredParams(Blob.of(params), params)

    class Timed(Journal):
        """Counts every thread's seconds, those too in which others train."""

        def record(self, task: Task, update: Update, flaw: str | None = None) -> Update:
            began = time.perf_counter()
            try:
                return super().record(task, update, flaw)
            finally:
                spent[0] += time.perf_counter() - began

        def record_merged(self, call: int, number: int, of: str, params: Params) -> StoredParams:
            began = time.perf_counter()
            try:
                return super().record_merged(call, number, of, params)
            finally:
                spent[0] += time.perf_counter() - began

        def settle(self, delete: bool = True) -> None:
            began = time.perf_counter()
            try:
                super().settle(delete)
            finally:
                spent[0] += time.perf_counter() - began

    fractions, seconds, without = [], [], []

    def timed() -> None:
        spent[0] = 0.0
        with mock.patch.object(execution, "Journal", Timed):
            seconds.append(sheaf(job, "cpu")["seconds"])
        fractions.append(spent[0] / seconds[-1])

    def forgetful() -> None:
        with mock.patch.object(execution, "Journal", Forgetful):
            without.append(sheaf(job, "cpu")["seconds"])

    for turn in range(PAIRS):
        for side in (timed, forgetful) if turn % 2 else (forgetful, timed):
            side()
    return {
        "job": "the journal's share of the first job",
        "share": statistics.median(fractions),
        "shares": fractions,
        "cost": statistics.median(own / other - 1 for own, other in zip(seconds, without, strict=True)),
        "seconds": seconds,
        "seconds_without": without,
    }
