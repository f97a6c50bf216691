"""Confidence intervals of means over seeds."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from scipy.stats import t


def half_interval(values: Sequence[float]) -> float:
    """Return half the width of the mean's 95 % confidence interval (Student's t); 0 for one value."""
    n = len(values)
    return float(t.ppf(0.975, n - 1)) * statistics.stdev(values) / n**0.5 if n > 1 else 0.0


def format_mean_interval(values: Sequence[float]) -> str:
    """Return ``0.9868 ± 0.0040``; the value alone if there is one, ``-`` if there is none."""
    if not values:
        return "-"
    mean = statistics.mean(values)
    return f"{mean:.4f} ± {half_interval(values):.4f}" if len(values) > 1 else f"{mean:.4f}"
