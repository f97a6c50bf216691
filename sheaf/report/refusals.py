"""The devices that were left out, absent or refused: one line for each and its reason, however many calls."""

from __future__ import annotations

from collections.abc import Sequence

from sheaf.core.errors import one_line
from sheaf.runtime.result import Refusal


def refusal_lines(refusals: Sequence[Refusal]) -> list[str]:
    """Return a line for each site and reason, in the order of their first calls."""
    calls: dict[tuple[str, str, bool], list[int]] = {}
    for refusal in refusals:
        calls.setdefault((refusal.site, refusal.why, refusal.call > 0), []).append(refusal.call)
    lines = []
    for (site, why, has_started), numbers in calls.items():
        when = f"refused in call {numbers[0]}" if len(numbers) == 1 else f"refused in {len(numbers)} calls"
        lines.append(f"{when if has_started else 'left out of the run'}: {site}: {one_line(why)}")
    return lines
