"""ECAvg compared with its baselines and with the paper's experiments."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping
from typing import Any

from benchmarks.sections._tables import Rows, table, with_seeds
from sheaf.core.types import CLOUD
from sheaf.report.formatting import format_bytes, format_count, format_mean
from sheaf.report.paper_results import paper_experiments

PAPER = {
    (experiment["data"], device, setup): accuracy
    for experiment in paper_experiments()
    if experiment["method"] == "ecavg"
    for device, setup, accuracy, *_ in experiment["rows"]
}
"""(data, device, setup) -> accuracy in Mih et al. 2023."""

COMPARED = {
    "ecavg-mnist": ("mnist", "experiment 3"),
    "ecavg-cifar10": (
        "cifar10",
        "experiment 1 (MobileNetV2 with ImageNet weights on 50,000 images; ours: from scratch on 10,000)",
    ),
    "ecavg-cifar10-lite0": (
        "cifar10",
        "experiment 1 (MobileNetV2 on 50,000 images; ours: EfficientNet-Lite0 on 10,000 at 64x64, both with "
        "ImageNet weights)",
    ),
    "ecavg-tiny100-lite0": (
        "cifar100",
        "experiment 2 (ResNet50 on CIFAR-100, 50,000 images; ours: EfficientNet-Lite0 on 10,000 images of a "
        "stand-in, 100 classes of Tiny ImageNet at 64x64; both with ImageNet weights)",
    ),
}
"""Experiment -> the paper's data, and the paper's experiment with the differences from ours."""


def ecavg(rows: Rows) -> str:
    """Return the section."""
    parts = ["## ECAvg and its baselines"]
    for experiment in dict.fromkeys(row["experiment"] for row in rows):
        of = [row for row in rows if row["experiment"] == experiment]
        parts.append(f"### {experiment}\n\n{_methods(of)}")
        if experiment in COMPARED and any(row["method"] == "ecavg" for row in of):
            data, described = COMPARED[experiment]
            parts.append(
                f"Comparison with the paper's {described}. *own* is the accuracy on the edge's own classes, "
                f"for the cloud on all; *all* on all classes.\n\n{_beside_paper(of, data)}"
            )
    return "\n\n".join(parts)


def _methods(rows: Rows) -> str:
    seeds = len({row["seed"] for row in rows})
    lines = []
    for method in dict.fromkeys(row["method"] for row in rows):
        by_seed: dict[int, list[Mapping[str, Any]]] = {}
        for row in rows:
            if row["method"] == method:
                by_seed.setdefault(row["seed"], []).append(row)
        runs = list(by_seed.values())
        edges = [list(_last(run, lambda site: site != CLOUD).values()) for run in runs]
        clouds = [_last(run, lambda site: site == CLOUD).get(CLOUD) for run in runs]
        lines.append(
            (
                with_seeds(method, runs, seeds),
                format_mean([statistics.mean(row["accuracy"] for row in run) for run in edges]),
                format_mean([min(row["accuracy"] for row in run) for run in edges]),
                format_mean([row["accuracy_all"] for row in clouds if row]),
                format_bytes(runs[0][0]["bytes"]),
                format_count(runs[0][0]["edge_macs"]),
                format_count(runs[0][0]["cloud_macs"]),
            )
        )
    heading = (
        "method",
        "edges, mean",
        "worst edge",
        "cloud, all classes",
        "sent",
        "edges' work",
        "cloud's work",
    )
    over = f"{seeds} seed{'s' * (seeds > 1)}"
    return f"Mean ± standard deviation over {over}; work in multiply-adds.\n\n{table(heading, lines)}"


def _last(run: Rows, wanted: Callable[[str], bool]) -> dict[str, Mapping[str, Any]]:
    """Return the last row of each selected site, without the paper's baseline."""
    return {row["site"]: row for row in run if wanted(row["site"]) and row["stage"] != "initial weights"}


def _beside_paper(rows: Rows, data: str) -> str:
    of = [row for row in rows if row["method"] == "ecavg"]
    lines = []
    for site, stage in dict.fromkeys((row["site"], row["stage"]) for row in of):
        ours = [row for row in of if (row["site"], row["stage"]) == (site, stage)]
        paper = PAPER.get((data, site, stage))
        lines.append(
            (
                site,
                stage,
                format_mean([row["accuracy"] for row in ours]),
                format_mean([row["accuracy_all"] for row in ours]),
                "-" if paper is None else f"{paper:.4f}",
            )
        )
    seeds = len({row["seed"] for row in of})
    return table(("device", "setup", f"own, {seeds} seed{'s' * (seeds > 1)}", "all", "paper"), lines)
