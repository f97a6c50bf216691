"""Where on the x-axis a point belongs: a run's steps and measurements, counted over all of its calls."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

EVERY = 1.0
"""A site's training gets one point in so many seconds, and one at its end."""


class Axis:
    """Counts each site's training steps and measurements.

    Args:
        steps: site -> the step at which it was left, in a run that goes on.
        rows: site -> how many of its measurements are kept already.
    """

    def __init__(self, steps: Mapping[str, int] | None = None, rows: Mapping[str, int] | None = None) -> None:
        self._before = dict(steps or {})
        self._now: dict[str, int] = {}
        self._kept = dict(rows or {})
        self._rows: dict[str, int] = {}
        self._last: dict[str, float] = {}

    def began(self, sites: Sequence[str]) -> None:
        """What these sites do next comes after what they did."""
        for site in sites:
            self._before[site] = self._before.get(site, 0) + self._now.pop(site, 0)

    def step(self, site: str, done: int, steps: int) -> int | None:
        """The point of a training step; None where the one before it is fresh enough."""
        self._now[site] = done
        now = time.monotonic()
        if done < steps and now - self._last.get(site, -EVERY) < EVERY:
            return None
        self._last[site] = now
        return self._before.get(site, 0) + done

    def row(self, site: str) -> int | None:
        """The number of the site's next measurement; None where it is kept already."""
        self._rows[site] = self._rows.get(site, 0) + 1
        return self._rows[site] if self._rows[site] > self._kept.get(site, 0) else None
