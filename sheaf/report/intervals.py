"""The spread of a value over seeds."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from scipy.stats import t


def deviation(values: Sequence[float]) -> float:
    """Return the standard deviation; 0 for one value."""
    return statistics.stdev(values) if len(values) > 1 else 0.0


def deviation_bar(accuracies: Sequence[float]) -> list[list[float]]:
    """Return the error bar of the mean ± the standard deviation, cut at 0 and 1: [[below], [above]]."""
    mean, half = statistics.mean(accuracies), deviation(accuracies)
    return [[min(half, mean)], [min(half, 1 - mean)]]


def half_interval(values: Sequence[float]) -> float:
    """Return half the width of the mean's 95 % confidence interval (Student's t); 0 for one value."""
    n = len(values)
    return float(t.ppf(0.975, n - 1)) * statistics.stdev(values) / n**0.5 if n > 1 else 0.0
