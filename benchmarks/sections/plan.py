"""A plan, the clock's run and a throttled rehearsal; and what lower settings cost."""

from __future__ import annotations

from statistics import mean

from benchmarks.sections._tables import Rows, table
from sheaf.report.formatting import format_duration, format_percent


def plan(rows: Rows) -> str:
    """Return the section on predictions."""
    run, devices = rows[0], rows[1:]
    lines = [
        (
            row["site"],
            f"{row['fraction']:g} of a core" if row in devices else "",
            *(format_duration(row[name]) for name in ("own", "plan", "clock", "rehearsed")),
            f"{row['ratio']:.2f}",
            format_percent(row["waits_own"]) if row in devices else "",
            format_percent(row["waits_rehearsed"]) if row in devices else "",
        )
        for row in rows
    ]
    heading = (
        *("", "device", "own settings", "plan", "clock", "rehearsed", "rehearsed / plan"),
        *("waits, own settings", "waits, rehearsed"),
    )
    return (
        "## A plan against the clock and a rehearsal\n\n"
        "ECAvg on MNIST, three devices that get a fraction of a core each, planned by `sheaf plan` to end "
        f"within {format_duration(run['own'])} x 0.6. Seconds of the whole run, and those in which each "
        "device computes: predicted for the experiment's own settings and for the plan, then of the planned "
        "run with the virtual clock, and on a rehearsed fleet whose devices' processes are stopped for the "
        "rest of the time.\n\n"
        f"{table(heading, lines)}\n\n"
        f"The rehearsed run takes {run['ratio']:.2f} times as long as planned. The profile has the speed of "
        "the fastest of three times four steps of one process, which `sheaf profile` measures."
    )


def plan_prices(rows: Rows) -> str:
    """Return the section on the accuracy that lower settings cost."""
    whole = {(r["method"], r["setting"], r["seed"]): r["accuracy"] for r in rows if r["fraction"] == 1}
    fractions = sorted({row["fraction"] for row in rows} - {1.0}, reverse=True)
    lines = []
    for method, setting in dict.fromkeys((row["method"], row["setting"]) for row in rows):
        cells = []
        for fraction in fractions:
            of = [
                row["accuracy"] - whole[method, setting, row["seed"]]
                for row in rows
                if (row["method"], row["setting"], row["fraction"]) == (method, setting, fraction)
            ]
            cells.append(f"{100 * mean(of):+.1f} ({', '.join(f'{100 * each:+.1f}' for each in of)})")
        first = mean(value for key, value in whole.items() if key[:2] == (method, setting))
        lines.append((method, setting, f"{first:.3f}", *cells))
    return (
        "## The accuracy that lower settings cost\n\n"
        "Ten edges with two classes of MNIST each; four of them have a fraction of the work, the width or "
        "the sent samples. Points of accuracy of the cloud's model against the same run with the whole, mean "
        "and each seed. `sheaf plan` orders its options by these.\n\n"
        + table(("method", "setting", "whole", *(f"{fraction:g}" for fraction in fractions)), lines)
    )
