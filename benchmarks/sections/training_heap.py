"""The memory of a device's training steps, reused or returned to the system."""

from __future__ import annotations

from statistics import median

from benchmarks.sections._tables import Rows, table


def training_heap(rows: Rows) -> str:
    """Return the section."""
    lines = []
    for name, reuses in (("returned to the system", False), ("reused", True)):
        of = [row for row in rows if row["reuses"] is reuses]
        lines.append(
            (
                name,
                f"{median(row['speed'] for row in of) / 1e9:.1f} G",
                f"{median(row['faults'] for row in of):,.0f}",
                f"{median(row['peak'] for row in of) / 1e6:.0f} MB",
            )
        )
    speeds = {(row["pair"], row["reuses"]): row["speed"] for row in rows}
    ratios = sorted(speeds[pair, True] / speeds[pair, False] for pair, reuses in speeds if reuses)
    heading = ("freed memory", "multiply-adds in a processor second", "page faults", "peak memory")
    return (
        "## A device's heap\n\n"
        "A process with the environment of a fleet's device trains kws_cnn, mini-batches of 32, with one "
        f"thread for ten seconds; medians of {len(ratios)} alternating pairs. Reuse makes it "
        f"{median(ratios):.2f} times as fast ({ratios[0]:.2f} to {ratios[-1]:.2f}).\n\n"
        f"{table(heading, lines)}"
    )
