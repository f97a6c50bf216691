"""Format numbers and lists for tables, pictures and sentences."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

MAX_LISTED = 20
"""Most sites or classes that a table or a picture lists one by one. Above that, it shows a summary."""


def format_count(number: float) -> str:
    """Return a number with one decimal and a unit prefix from k to P: ``313.7M``."""
    for factor, unit in ((1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= factor:
            return f"{number / factor:.1f}{unit}"
    return f"{number:.0f}"


def format_bytes(number: float) -> str:
    """Return a number of bytes in powers of 1000: ``1.2 MB``."""
    short = format_count(number)
    return f"{short[:-1]} {short[-1]}B" if short[-1].isalpha() else f"{short} B"


def format_duration(seconds: float) -> str:
    """Return a duration with one decimal: ``3.2 ms``, ``12.5 s``, ``4.1 min``, ``2.5 h`` or ``3.0 d``."""
    for limit, size, unit in ((1, 1e-3, "ms"), (100, 1, "s"), (6000, 60, "min"), (172800, 3600, "h")):
        if seconds < limit:
            return f"{seconds / size:.1f} {unit}" if seconds else "0 s"
    return f"{seconds / 86400:.1f} d"


def format_points(difference: float) -> str:
    """Return a difference of accuracies (-1 to 1) in percentage points: ``+1.3``, ``−0.4``, ``0``."""
    rounded = round(100 * difference, 1)
    if rounded == 0:
        return "0" if difference == 0 else ("+<0.1" if difference > 0 else "−<0.1")
    return f"{rounded:+.1f}".replace("-", "−")


def format_percent(fraction: float) -> str:
    """Return a fraction (0 to 1) as a percentage with one decimal: ``97.3 %``."""
    return f"{100 * fraction:.1f}\u00a0%"


def format_fraction(count: int, total: int) -> str:
    """Return a count of a total, and a percentage if the total supports it: ``3 of 9``, ``31 of 240 (13 %)``.

    Below 100 there is no percentage; below 1,000 it has no decimals.
    """
    text = f"{count:,} of {total:,}"
    if total < 100:
        return text
    return f"{text} ({100 * count / total:.{int(total >= 1000)}f}\u00a0%)"


def format_ratio(ratio: float) -> str:
    """Return a ratio with one decimal below 100 and none above: ``11.8x``, ``154x``."""
    return f"{ratio:.0f}x" if ratio >= 100 else f"{ratio:.1f}x"


def format_mean(values: Sequence[float]) -> str:
    """Return mean ± standard deviation; the value alone if there is one, ``-`` if there is none."""
    if len(values) < 2:
        return f"{values[0]:.4f}" if values else "-"
    return f"{statistics.mean(values):.4f} ± {statistics.stdev(values):.4f}"


def format_number_of(number: int, noun: str) -> str:
    """Return a number with its noun in singular or plural: ``1 edge``, ``3 edges``, ``2 classes``."""
    plural = noun + ("es" if noun.endswith("s") else "s")
    return f"{number:,} {noun if number == 1 else plural}"


def join_names(names: Sequence[str], most: int = 4) -> str:
    """Return ``a, b and c``; above ``most`` names, the first ones and the number of the others."""
    if len(names) > most:
        return f"{', '.join(names[:most])} and {len(names) - most} more"
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]])) if names else "none"
