"""The x-axis of a run's curves: training steps and measurements, counted over all calls of the run."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

INTERVAL = 1.0
"""Seconds between two points of a site's training. The last step always gets a point."""


class Axis:
    """Counters of each site's training steps and measurements.

    Args:
        steps: in a resumed run, site -> number of training steps that the tracker already has.
        rows: in a resumed run, site -> number of measurements that the tracker already has.
    """

    def __init__(self, steps: Mapping[str, int] | None = None, rows: Mapping[str, int] | None = None) -> None:
        self._steps_before = dict(steps or {})  # of earlier calls
        self._steps_in_call: dict[str, int] = {}
        self._rows_before = dict(rows or {})
        self._rows: dict[str, int] = {}
        self._last_point: dict[str, float] = {}

    def began(self, sites: Sequence[str]) -> None:
        """Start a call: the sites' next steps follow those of earlier calls."""
        for site in sites:
            self._steps_before[site] = self._steps_before.get(site, 0) + self._steps_in_call.pop(site, 0)

    def step(self, site: str, done: int, steps: int) -> int | None:
        """Return the x-coordinate of a training step; None within ``INTERVAL`` of the last point."""
        self._steps_in_call[site] = done
        now = time.monotonic()
        if done < steps and now - self._last_point.get(site, -INTERVAL) < INTERVAL:
            return None
        self._last_point[site] = now
        return self._steps_before.get(site, 0) + done

    def row(self, site: str) -> int | None:
        """Return the number of the site's next measurement; None if the tracker already has it."""
        self._rows[site] = self._rows.get(site, 0) + 1
        return self._rows[site] if self._rows[site] > self._rows_before.get(site, 0) else None
