"""Helpers of the sections: tables, ranges, commits."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

Rows = Sequence[Mapping[str, Any]]


def table(heading: Sequence[str], lines: Iterable[Sequence[Any]]) -> str:
    """Return a Markdown table."""
    rows = [heading, ["---"] * len(heading), *lines]
    return "\n".join(f"| {' | '.join(map(str, row))} |" for row in rows)


def with_range(median: float, seconds: Sequence[float]) -> str:
    """Return a median with minimum and maximum, in seconds."""
    return f"{median:.2f} ({min(seconds):.2f} to {max(seconds):.2f})"


def times(saved: float | None) -> str:
    """Return a factor such as ``2.0x``, or a dash for None."""
    return "-" if saved is None else f"{saved:.1f}x"


def commits(named: Iterable[tuple[str, str]]) -> str:
    """Group names by commit, from pairs (name, commit)."""
    at: dict[str, dict[str, None]] = {}
    for name, commit in named:
        at.setdefault(commit[:12], {})[name] = None
    return ", ".join(f"{commit} ({'; '.join(names)})" for commit, names in at.items())


def with_seeds(name: str, runs: Sequence[object], seeds: int) -> str:
    """Return the name, with the number of seeds if it is not ``seeds``."""
    return name if len(runs) == seeds else f"{name} ({len(runs)} seed{'s' * (len(runs) > 1)})"
