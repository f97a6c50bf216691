"""Figures and lists as words."""

from __future__ import annotations

from collections.abc import Sequence


def points(difference: float) -> str:
    """A difference of two accuracies, 0 to 1, in percentage points: ``+1.3``, ``−0.4``, ``±0``."""
    rounded = round(100 * difference, 1)
    if rounded == 0:
        return "±0" if difference == 0 else ("+<0.1" if difference > 0 else "−<0.1")
    return f"{rounded:+.1f}".replace("-", "−")


def percent(share: float) -> str:
    """A share as a percentage, with a decimal where it says something: ``97.3 %``."""
    return f"{100 * share:.1f}\u00a0%"


def some(number: int, thing: str) -> str:
    """``1 edge``, ``3 edges``, ``2 classes``."""
    plural = thing + ("es" if thing.endswith("s") else "s")
    return f"{number:,} {thing if number == 1 else plural}"


def listed(names: Sequence[str], most: int = 4) -> str:
    """``a, b and c``; beyond ``most``, how many more there are."""
    if len(names) > most:
        return f"{', '.join(names[:most])} and {len(names) - most} more"
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]])) if names else "none"


def times(ratio: float) -> str:
    """``11.8x``; ``154x`` where decimals say nothing."""
    return f"{ratio:.0f}x" if ratio >= 100 else f"{ratio:.1f}x"
