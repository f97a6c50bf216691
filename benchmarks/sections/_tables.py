"""What sections share: tables, ranges, and where rows come from."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

Rows = Sequence[Mapping[str, Any]]


def table(heading: Sequence[str], lines: Iterable[Sequence[Any]]) -> str:
    """A Markdown table."""
    rows = [heading, ["---"] * len(heading), *lines]
    return "\n".join(f"| {' | '.join(map(str, row))} |" for row in rows)


def with_range(median: float, seconds: Sequence[float]) -> str:
    """A median of seconds with the least and the most."""
    return f"{median:.2f} ({min(seconds):.2f} to {max(seconds):.2f})"


def times(saved: float | None) -> str:
    """How many times less; a dash where there is no such figure."""
    return "-" if saved is None else f"{saved:.1f}x"


def commits(named: Iterable[tuple[str, str]]) -> str:
    """At which commit each was run, from (name, commit)."""
    at: dict[str, dict[str, None]] = {}
    for name, commit in named:
        at.setdefault(commit[:12], {})[name] = None
    return ", ".join(f"{commit} ({'; '.join(names)})" for commit, names in at.items())


def with_seeds(name: str, runs: Rows, seeds: int) -> str:
    """The name, and how many seeds it was run with where that is not all of them."""
    return name if len(runs) == seeds else f"{name} ({len(runs)} seed{'s' * (len(runs) > 1)})"
