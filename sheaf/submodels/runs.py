"""Convert between indices and half-open runs: 0, 1, 2, 5 is ((0, 3), (5, 6))."""

from __future__ import annotations

from collections.abc import Iterable

from sheaf.core.cut import Runs


def runs_of(indices: Iterable[int]) -> Runs:
    """Return the runs of sorted indices."""
    runs: list[tuple[int, int]] = []
    for index in indices:
        if runs and runs[-1][1] == index:
            runs[-1] = (runs[-1][0], index + 1)
        else:
            runs.append((index, index + 1))
    return tuple(runs)


def indices_of(runs: Runs) -> tuple[int, ...]:
    """Return the indices in ``runs``."""
    return tuple(index for start, stop in runs for index in range(start, stop))


def length_of(runs: Runs) -> int:
    """Return the number of indices in ``runs``."""
    return sum(stop - start for start, stop in runs)
