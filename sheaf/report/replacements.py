"""Lines on whether a run's model became the current one of each real device."""

from __future__ import annotations

from collections.abc import Mapping

from sheaf.core.errors import one_line
from sheaf.report.formatting import MAX_LISTED
from sheaf.runtime.result import Replacement


def replacement_lines(replacements: Mapping[str, Replacement], every: bool = False) -> list[str]:
    """Return a line on all devices, and one for each that keeps its model or could not compare the two.

    Args:
        replacements: device -> its decision; empty for a run in one process.
        every: list them all, however many there are.
    """
    if not replacements:
        return []
    replaced = sum(each.replaced for each in replacements.values())
    lines = [f"the run's model is current on {replaced:,} of {len(replacements):,} devices"]
    notable = {site: each for site, each in replacements.items() if each.why}
    shown = list(notable)[: len(notable) if every else MAX_LISTED]
    for site in shown:
        each = notable[site]
        action = "has the run's model" if each.replaced else "keeps its model"
        lines.append(f"{site} {action}: {one_line(each.why)}")
    if len(shown) < len(notable):
        lines.append(f"and {len(notable) - len(shown):,} more; --all lists them")
    return lines
