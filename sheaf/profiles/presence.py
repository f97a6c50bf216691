"""When a simulated device is connected: always, by a seeded on/off trace, or by a file of one."""

from __future__ import annotations

import bisect
import csv
import math
import random
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from sheaf.core.errors import SettingError
from sheaf.core.seeds import seed_for

HEADER = ("device", "seconds", "state")
"""Columns of a trace file."""


class Presence:
    """The times at which devices leave and return, in seconds since the start of the run.

    A device begins connected and changes its state at each time.

    Args:
        changes: device -> its times in order; a device without an entry follows ``on`` and ``off``.
        on: mean seconds that a device stays connected; 0: it never leaves.
        off: mean seconds that it stays away.
        seed: of the durations, which are exponentially distributed.
    """

    def __init__(
        self, changes: Mapping[str, Sequence[float]], on: float = 0.0, off: float = 0.0, seed: int = 0
    ) -> None:
        self._changes = {site: list(times) for site, times in changes.items()}
        self._drawn: dict[str, random.Random] = {}
        self._on, self._off, self._seed = on, off, seed

    @property
    def always(self) -> bool:
        """Whether no device ever disconnects."""
        return not self._changes and not self._on

    def back_at(self, site: str, time: float) -> float:
        """Return ``time`` if the device is connected then, or else when it returns; infinity if never."""
        if self.always:
            return time
        times = self._until(site, time)
        count = bisect.bisect_right(times, time)
        return time if count % 2 == 0 else self._at(site, count)

    def leaves_at(self, site: str, time: float, longer: float) -> float:
        """Return when the device leaves next, at or after ``time``, for ``longer`` seconds or more."""
        if self.always:
            return math.inf
        count = bisect.bisect_right(self._until(site, time), time)
        count += count % 2  # a leave has an even index
        while True:
            left = self._at(site, count)
            if left == math.inf or self._at(site, count + 1) - left >= longer:
                return left
            count += 2

    def away(self, site: str, until: float) -> list[tuple[float, float]]:
        """Return the intervals until ``until`` in which the device is away."""
        if self.always:
            return []
        times = [time for time in self._until(site, until) if time < until]
        ends = [*times[1::2], until]
        return [(left, ends[number]) for number, left in enumerate(times[::2])]

    def _at(self, site: str, index: int) -> float:
        """Return the time of a change; infinity if there is no such change."""
        times = self._changes.get(site, [])
        while index >= len(times) and self._draws(site):
            times = self._until(site, times[-1] if times else 0.0)
        return times[index] if index < len(times) else math.inf

    def _draws(self, site: str) -> bool:
        return self._on > 0 and (site in self._drawn or site not in self._changes)

    def _until(self, site: str, time: float) -> list[float]:
        """Return the device's changes, of which at least one is after ``time`` if they are drawn."""
        if not self._draws(site):
            return self._changes.get(site, [])
        if site not in self._drawn:
            self._drawn[site] = draws = random.Random(seed_for(self._seed, "presence", site))
            away = draws.random() < self._off / (self._on + self._off)
            self._changes[site] = [0.0] if away else []
        draws, times = self._drawn[site], self._changes[site]
        while not times or times[-1] <= time:
            mean = self._off if len(times) % 2 else self._on
            times.append((times[-1] if times else 0.0) + draws.expovariate(1 / mean))
        return times


def read_trace(path: Path, sites: Collection[str]) -> dict[str, list[float]]:
    """Read a trace: a CSV file with the columns device, seconds and state (``on`` or ``off``).

    A device begins connected, unless its first row is ``off`` at 0 seconds, and keeps its last state.

    Args:
        path: the file.
        sites: names of the devices.

    Returns:
        Device -> the times at which it leaves and returns.

    Raises:
        SettingError: the file cannot be read, or a row is wrong.
    """
    changes: dict[str, list[float]] = {site: [] for site in sites}
    latest: dict[str, float] = {}
    try:
        with path.open(encoding="utf-8", newline="") as file:
            for number, row in enumerate(csv.reader(file), start=1):
                cells = [cell.strip() for cell in row]
                if not cells or (number == 1 and tuple(cells) == HEADER):
                    continue
                if problem := _add_row(cells, changes, latest):
                    raise SettingError(f"fleet.devices.trace = {str(path)!r}, row {number}: {problem}")
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise SettingError(f"fleet.devices.trace = {str(path)!r} cannot be read: {error}") from error
    return changes


def _add_row(cells: list[str], changes: dict[str, list[float]], latest: dict[str, float]) -> str:
    """Add a row of a trace to its device's changes and latest time; return what is wrong with it, or ""."""
    if len(cells) != len(HEADER):
        return f"{len(cells)} columns, expected device, seconds and on or off"
    site, text, state = cells
    if site not in changes:
        return f"no edge is named {site!r}; edges: {', '.join(changes)}"
    if state not in ("on", "off"):
        return f"state {state!r}; allowed: on, off"
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 <= seconds < math.inf:
        return f"seconds {text!r}; allowed: a number of at least 0"
    if seconds < latest.get(site, 0.0):
        return f"{seconds:g} s comes before an earlier row of {site}; sort the rows by time"
    latest[site] = seconds
    is_on = len(changes[site]) % 2 == 0
    if is_on != (state == "on"):
        changes[site].append(seconds)
    return ""
