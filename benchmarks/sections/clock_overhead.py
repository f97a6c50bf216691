"""The cost of the virtual clock in a simulation of a thousand devices."""

from __future__ import annotations

from statistics import median

from benchmarks.sections._tables import Rows, table


def clock_overhead(rows: Rows) -> str:
    """Return the section."""
    lines = []
    for name, plain, clock, ratio in (
        ("seconds", "plain_s", "clock_s", "ratio"),
        ("processor seconds", "plain_cpu_s", "clock_cpu_s", "cpu_ratio"),
    ):
        ratios = sorted(row[ratio] for row in rows)
        lines.append(
            (
                name,
                f"{median(row[plain] for row in rows):.2f}",
                f"{median(row[clock] for row in rows):.2f}",
                f"{median(ratios):.3f} ({ratios[0]:.3f} to {ratios[-1]:.3f})",
            )
        )
    return (
        "### The clock's own cost\n\n"
        "FedAvg with a thousand devices and a trace, all of them in each of four rounds, against the same "
        f"run without a clock; medians of {len(rows)} pairs, the ratio with minimum and maximum. Both end "
        f"with the same bits.\n\n{table(('', 'without clock', 'with clock', 'ratio'), lines)}"
    )
