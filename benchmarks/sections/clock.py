"""Seconds, bytes and joules of methods until they reach an accuracy, on ten unequal devices."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import mean

from benchmarks.sections._tables import Rows, table

REFERENCE = "fedavg"
HEADING = ("method", "reached by", "seconds", "sooner than FedAvg", "MB", "joules", "best", "idle")


def clock(rows: Rows) -> str:
    """Return the section."""
    reference = {
        row["seed"]: row["seconds"]
        for row in rows
        if row["method"] == REFERENCE and row["seconds"] is not None
    }
    lines = []
    for method in dict.fromkeys(row["method"] for row in rows):
        of = [row for row in rows if row["method"] == method]
        reached = [row for row in of if row["seconds"] is not None]
        compared = [row for row in reached if row["seed"] in reference]
        sooner = [reference[row["seed"]] / row["seconds"] for row in compared]
        lines.append(
            (
                method,
                f"{len(reached)} of {len(of)} seeds",
                _mean_and_range([row["seconds"] for row in reached], ".1f"),
                "" if method == REFERENCE else _mean_and_range(sooner, ".1f", "x"),
                _mean_and_range([row["bytes"] / 1e6 for row in reached], ".0f"),
                _mean_and_range([row["joules"] for row in reached], ".0f"),
                f"{mean(row['best'] for row in of):.3f}",
                f"{mean(row['idle'] for row in of):.0%}",
            )
        )
    return (
        "## Seconds, bytes and joules on unequal devices\n\n"
        "Ten devices (three Raspberry Pi 4 and two Jetson Nano on LTE; two Raspberry Pi 5, a Jetson Xavier "
        "NX and a laptop on Wi-Fi; a Jetson Orin Nano on Ethernet) have two classes and 1,000 MNIST images "
        "each. The virtual clock runs until the cloud's model has an accuracy of "
        f"{rows[0]['target']:.2f} on all classes: mean, minimum and maximum of the seeds. *best* is the best "
        "accuracy of the whole run, *idle* the mean fraction of it in which a device waits. FedAvg trains "
        "whole models, one epoch a round; ECAvg sends whole models and 10 % of the images; decoupled and "
        "HeteroFL train sub-models of a quarter of the width, half of it, or all. All use SGD with learning "
        "rate of 0.05, which was not tuned. HeteroFL has 200 rounds; its accuracy stays where it is from "
        "about the hundredth on.\n\n"
        f"{table(HEADING, lines)}\n\n"
        "![Timelines of decoupled, ECAvg and FedAvg on the ten devices](pictures/timelines.svg)\n\n"
        "Links take most of the time: in each round the cloud waits for the five devices that send whole "
        "models over LTE. Decoupled sends small models once. ECAvg needs fewer rounds than FedAvg, because "
        "its cloud trains on images of all classes; further epochs there take almost no time."
    )


def _mean_and_range(values: Sequence[float], form: str, unit: str = "") -> str:
    """Return mean, minimum and maximum; a dash for no values."""
    if not values:
        return "-"
    return f"{mean(values):{form}}{unit} ({min(values):{form}} to {max(values):{form}})"
