"""The main result on the time of a run in a sentence, and the sites that its tables list.

Without matplotlib: the terminal imports it on devices.
"""

from __future__ import annotations

from collections.abc import Mapping

from sheaf.core.types import CLOUD
from sheaf.report.formatting import MAX_LISTED, format_bytes, format_count, format_duration, format_percent
from sheaf.runtime.time_record import SiteTime, TimeRecord


def time_finding(record: TimeRecord) -> str:
    """Return the main result on the time of a run in one or two sentences."""
    edges = {site: time for site, time in record.sites.items() if site != CLOUD}
    waits: dict[str, float] = {}
    for call in record.calls:
        waits[call.last] = waits.get(call.last, 0.0) + call.end - call.start
    slowest = max(waits, key=lambda site: waits[site])
    idle = sum(time.idle for time in edges.values()) / max(1, len(edges))
    spent = record.spent
    energy = "" if spent.joules is None else f" and the edges {format_count(spent.joules)} joules"
    at_slowest = format_percent(waits[slowest] / max(spent.seconds, 1e-12))
    return (
        f"The run takes {format_duration(spent.seconds)}{' of virtual time' * record.virtual}, "
        f"{format_bytes(spent.bytes)} of messages{energy}. The edges wait for {format_percent(idle)} of it "
        f"on average; {at_slowest} of it passes until the answers of {slowest}."
    )


def listed_times(record: TimeRecord) -> Mapping[str, SiteTime]:
    """Return the sites of a table: all, or those whose tasks are recorded one by one."""
    if len(record.sites) <= MAX_LISTED + 1:
        return record.sites
    recorded = {task.site for task in record.tasks}
    return {site: time for site, time in record.sites.items() if site in recorded}
