"""Results of real runs, changed; evaluations and timelines."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from sheaf.core.task import Cost, Times, Update
from sheaf.runtime.result import Refusal, Result
from sheaf.runtime.timeline import TimedSite, Timeline

STRANGE = (
    "<script>alert(1)</script>",
    '" onerror="alert(2)',
    "$5^{x",
    "a\nb\t c",
    "班级 五",
    "&amp;",
    "x" * 300,
    "",
    "_",
    "'",
)
"""Names of ten classes, as they may come from anywhere."""

CONFUSION = [[3, 1, 0], [0, 2, 2], [1, 1, 6]]
"""Rows are true classes."""


def evaluated(site: str, counts: tuple[int, ...] = (5, 0, 7), **metrics: Any) -> Update:
    """Return the answer to an evaluation over three classes."""
    return Update(site, "evaluate", None, counts, {"confusion": CONFUSION, "loss": 0.5, **metrics}, Cost())


def rewritten(source: Path, target: Path, change: Callable[[Result], Result]) -> Path:
    """Writes a changed copy of a run's result to a folder of its own."""
    target.mkdir()
    change(Result.read(source)).write(target)
    return target


def strange(result: Result) -> Result:
    """The same with names that a page could trip over, and an answer that was refused."""
    edge = next(iter(result.split))
    why = "w has values that are not finite: <img src=x onerror=alert(3)>"
    return replace(
        result,
        classes=list(STRANGE),
        refused=[Refusal(call=result.curves[-2].call, site=edge, why=why)],
        provenance=result.provenance | {"settings": {"title": "</title><script>alert(4)</script>"}},
    )


def timeline_of(work: dict[str, float], calls: int = 1, measured: bool = False) -> Timeline:
    """Return the timeline of calls in which each site receives for 1 s and computes for ``work`` seconds."""
    timeline = Timeline({site: TimedSite("", 1.0) for site in work}, lambda: 3_000_000, measured=measured)
    for call in range(1, calls + 1):
        start = timeline.now
        timeline.add(
            call,
            "train",
            {
                site: Update(site, "train", None, (), {}, Cost(), Times(start, 1.0, seconds, 0.0, seconds))
                for site, seconds in work.items()
            },
        )
    return timeline
