"""What the cloud makes of one merged model, and the cost of a bound model's forward pass."""

from __future__ import annotations

from benchmarks.sections._tables import Rows, table
from sheaf.report.formatting import format_mean

MODELS = {"ecavg": "two edges, whole models, averaged", "decoupled": "five edges, sub-models, bound"}


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
                    f"{of[0]['images_sent']:,}",
                    f"{of[0]['cloud_macs'] / 1e9:.2f}",
                    f"{of[0]['edge_macs'] / 1e9:.2f}",
                    "-" if of[0]["lr"] is None else f"{of[0]['lr']:g}",
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
        "rates are the best of three on another seed. "
        f"{seeds} seeds.\n\n{table(heading, lines)}\n\n"
        "A device's forward pass of a bound model, by which it sends statistics, multiplies only by the "
        "blocks of the devices' channels (no common stem, ten classes):\n\n"
        f"{table(of_costs, costs)}"
    )
