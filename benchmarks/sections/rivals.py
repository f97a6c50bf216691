"""ECAvg and decoupled training beside their rivals, by protocol."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from benchmarks.sections._tables import Rows, commits, table, times, with_seeds
from sheaf.report.formatting import format_bytes, format_mean

PROTOCOLS = {
    "A": "label skew, ten equal edges with two shards each",
    "B-iid": "eight edges with 1 to 1/64 of the parameters, iid",
    "B-dirichlet": "eight edges with 1 to 1/64 of the parameters, Dirichlet 0.3",
    "C": "two edges of five classes, ImageNet weights",
}
HEADING = (
    "method",
    "edges, mean",
    "worst edge",
    "cloud",
    "sent",
    "images",
    "edge work",
    "cloud work",
    "saved",
)


def rivals(rows: Rows) -> str:
    """Return the section."""
    parts = [
        "## ECAvg and decoupled training beside their rivals\n\n"
        "CIFAR-10, 10,000 training images. Every method trains each edge for as many epochs; `saved` is the "
        "multiply-adds per image of the whole model over those of the weakest edge's model. The rivals are "
        "those of [compare.md](compare.md#the-rivals-as-published)."
    ]
    for protocol, text in PROTOCOLS.items():
        own = [row for row in rows if row["protocol"] == protocol]
        if own:
            seeds = len({row["seed"] for row in own})
            title = f"### Protocol {protocol}: {text}, {seeds} seeds"
            parts.append(f"{title}\n\n{table(HEADING, _lines(own, seeds))}")
    parts.append(f"Commits: {commits((row['method'], row['commit']) for row in rows)}.")
    return "\n\n".join(parts)


def _lines(rows: Rows, seeds: int) -> Iterator[tuple[Any, ...]]:
    for method in dict.fromkeys(row["method"] for row in rows):
        runs = [row for row in rows if row["method"] == method]
        clouds = [row["cloud"] for row in runs if row["cloud"] is not None]
        means = {
            key: sum(row[key] for row in runs) / len(runs)
            for key in ("bytes", "images_sent", "edge_macs", "cloud_macs")
        }
        yield (
            with_seeds(method, runs, seeds),
            format_mean([row["edges_mean"] for row in runs]),
            format_mean([row["worst_edge"] for row in runs]),
            format_mean(clouds) if clouds else "-",
            format_bytes(means["bytes"]),
            f"{means['images_sent']:.0f}",
            f"{means['edge_macs']:.3g}",
            f"{means['cloud_macs']:.3g}",
            times(runs[0]["saved_weakest"]),
        )
