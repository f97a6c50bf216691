"""The section on the cloud's steps from one merged model, and on the forward pass of a bound model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from benchmarks.sections._tables import Rows, table
from sheaf.report.formatting import format_mean

MODELS = {"ecavg": "two edges, whole models, averaged", "decoupled": "five edges, sub-models, bound"}


def _spent(row: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the cells of images sent, work in the cloud and on the edges, and the learning rate."""
    if "cloud_macs" not in row:  # the teachers, which are no step
        return ("-",) * 4
    rate = "-" if row["lr"] is None else f"{row['lr']:g}"
    work = (f"{row[key] / 1e9:.2f}" for key in ("cloud_macs", "edge_macs"))
    return f"{row['images_sent']:,}", *work, rate


def statistics_head(rows: Rows) -> str:
    """Return the section."""
    measured = [row for row in rows if "step" in row]
    lines = []
    for method, models in MODELS.items():
        of_method = [row for row in measured if row["method"] == method]
        for step in dict.fromkeys(row["step"] for row in of_method):
            of = [row for row in of_method if row["step"] == step]
            lines.append(
                (
                    models,
                    step,
                    format_mean([row["cloud"] for row in of]),
                    *_spent(of[0]),
                )
            )
    costs = [
        (
            row["network"],
            row["groups"],
            f"{row['dense_macs'] / 1e6:.2f}",
            f"{row['block_macs'] / 1e6:.2f}",
            f"{row['dense_macs'] / row['block_macs']:.2f}x",
            f"{row['dense_bytes'] / 1e6:.2f}",
            f"{row['block_bytes'] / 1e6:.2f}",
            f"{row['dense_bytes'] / row['block_bytes']:.2f}x",
        )
        for row in rows
        if "network" in row
    ]
    seeds = len({row["seed"] for row in measured})
    heading = ("models", "step", "cloud", "images sent", "cloud GMAC", "edges GMAC", "learning rate")
    of_costs = ("network", "devices", "dense MMAC", "blocks", "fewer", "dense MB", "blocks", "fewer")
    return (
        "## The cloud's steps from one merged model\n\n"
        "MNIST, 6,000 images, a small CNN; the edges have different classes and train for five epochs. From "
        "the same merged model the cloud takes each step alone. The steps that train have equal work in the "
        "cloud, the teachers' forward passes included; the pool is a quarter of the images, and the cloud's "
        "own images are as many, unlabelled: MNIST images that no edge has, or CIFAR-10 in grey. Learning "
        "rates are the best of four on another seed. *teachers* is the mean of the edges' logits, an "
        "ensemble and no model. "
        f"{seeds} seeds.\n\n{table(heading, lines)}\n\n"
        "A device's forward pass of a bound model, by which it sends statistics, multiplies only by the "
        "blocks of the devices' channels (no common stem, ten classes):\n\n"
        f"{table(of_costs, costs)}"
    )
