"""A mean over seeds, and how sure it is."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from scipy.stats import t


def half_interval(values: Sequence[float]) -> float:
    """Half the width of the mean's 95 % interval by Student's t; 0 where there is one value."""
    n = len(values)
    return float(t.ppf(0.975, n - 1)) * statistics.stdev(values) / n**0.5 if n > 1 else 0.0


def with_interval(values: Sequence[float]) -> str:
    """``0.9868 ± 0.0040``; the value alone where there is one, ``-`` where there is none."""
    if not values:
        return "-"
    mean = statistics.mean(values)
    return f"{mean:.4f} ± {half_interval(values):.4f}" if len(values) > 1 else f"{mean:.4f}"
