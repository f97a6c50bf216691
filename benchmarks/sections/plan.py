"""A plan, the clock's run and a throttled rehearsal; and what lower settings cost."""

from __future__ import annotations

from statistics import mean, median

from benchmarks.sections._tables import Rows, table
from sheaf.report.formatting import format_duration, format_percent


def plan(rows: Rows) -> str:
    """Return the section on predictions."""
    repetitions = len({row["repetition"] for row in rows})
    lines = [_line([row for row in rows if row["site"] == site]) for site in _sites(rows)]
    heading = (
        *("", "device", "own settings", "plan", "clock", "rehearsed", "rehearsed / plan"),
        *("waits, own settings", "waits, rehearsed"),
    )
    runs = [row for row in rows if row["site"] == "run"]
    drift = sorted(row["plan_later"] / row["plan"] for row in runs)
    return (
        "## A plan against the clock and a rehearsal\n\n"
        "ECAvg on MNIST, devices that get a fraction of a core each: their processes are stopped "
        "for the rest of the time. `sheaf profile` measures each device, and `sheaf plan` plans to end "
        "within 0.6 times the seconds of the experiment's own settings. Seconds of the whole run, and "
        "those in which each device computes: predicted for the experiment's own settings and for the "
        "plan, then of the planned run with the virtual clock, and on a rehearsed fleet; means of "
        f"{repetitions} repetitions, each with profiles, plan and rehearsal of its own, and medians of the "
        "ratios.\n\n"
        f"{table(heading, lines)}\n\n"
        f"The rehearsed run takes {_times(runs, 'ratio')} times as long as planned. The machine's own speed "
        "varies: profiles measured after a rehearsal predict "
        f"{drift[0]:.2f} to {drift[-1]:.2f} times the seconds that were planned before. Against the mean of "
        f"both predictions it takes {_times(runs, 'ratio_to_both')} times as long."
    )


def _times(rows: Rows, name: str) -> str:
    """Return the median of a ratio, and its values in the order of the repetitions."""
    values = [row[name] for row in rows]
    return f"{median(values):.2f} ({', '.join(f'{value:.2f}' for value in values)})"


def _sites(rows: Rows) -> list[str]:
    return list(dict.fromkeys(row["site"] for row in rows))


def _line(of_site: Rows) -> tuple[str, ...]:
    first = of_site[0]
    device = "fraction" in first
    means = {name: mean(row[name] for row in of_site) for name in ("own", "plan", "clock", "rehearsed")}
    ratios = sorted(row["ratio"] for row in of_site)
    waits = ("waits_own", "waits_rehearsed") if device else ()
    return (
        first["site"],
        f"{first['fraction']:g} of a core" if device else "",
        *map(format_duration, means.values()),
        f"{median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})",
        *(format_percent(mean(row[name] for row in of_site)) for name in waits),
        *([] if device else ["", ""]),
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
