"""Limits of seconds, bytes and joules for a planned run."""

from __future__ import annotations

from dataclasses import dataclass, replace

from sheaf.core.types import CLOUD
from sheaf.runtime.costs import SiteCost
from sheaf.runtime.time_record import TimeRecord

MARGIN = 0.995
"""Factor by which limits are lowered beyond the excess."""


@dataclass(frozen=True)
class Limits:
    """Limits of a plan; None is no limit.

    Attributes:
        seconds: of the run, above 0.
        bytes: that each device may receive and send, above 0.
        joules: that each device may spend in the run, idle or not, above 0.
    """

    seconds: float | None = None
    bytes: float | None = None
    joules: float | None = None

    def lowered(self, time: TimeRecord, costs: dict[str, SiteCost]) -> Limits | None:
        """Return limits lowered by the excess of a prediction; None if it exceeds none."""
        factors = {name: limit / used for name, limit, used in self.used(time, costs) if used > limit}
        if not factors:
            return None
        return replace(self, **{name: getattr(self, name) * MARGIN * factors[name] for name in factors})

    def used(self, time: TimeRecord, costs: dict[str, SiteCost]) -> list[tuple[str, float, float]]:
        """Return (name, limit, the most that is used) for each limit."""
        edges = [site for site in costs if site != CLOUD]
        used = {
            "seconds": time.spent.seconds,
            "bytes": max(costs[site].bytes_sent + costs[site].bytes_received for site in edges),
            "joules": max(time.sites[site].joules or 0.0 for site in edges),
        }
        return [(name, limit, used[name]) for name, limit in vars(self).items() if limit is not None]
