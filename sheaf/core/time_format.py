"""Format a number of seconds for people."""

from __future__ import annotations


def format_seconds(seconds: float) -> str:
    """Return a duration: ``under 1 s``, ``12 s``, ``3 min`` or ``2.5 h``."""
    if seconds < 100:
        return f"{seconds:.0f} s" if seconds >= 1 else "under 1 s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"
