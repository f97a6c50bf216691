"""ECAvg compared with its baselines and, for experiment 3, with the paper."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping
from typing import Any

from benchmarks.sections._tables import Rows, table
from sheaf.core.types import CLOUD
from sheaf.report.formatting import format_bytes, format_count, format_mean
from sheaf.report.paper_results import paper_experiments

PAPER = {
    (device, setup): accuracy
    for experiment in paper_experiments()
    if experiment["data"] == "mnist"
    for device, setup, accuracy, *_ in experiment["rows"]
}
"""(device, setup) -> accuracy in Mih et al. 2023, experiment 3."""


def ecavg(rows: Rows) -> str:
    """Return the section."""
    parts = ["## ECAvg and its baselines"]
    for experiment in dict.fromkeys(row["experiment"] for row in rows):
        of = [row for row in rows if row["experiment"] == experiment]
        parts.append(f"### {experiment}\n\n{_methods(of)}")
        if experiment == "ecavg-mnist":
            parts.append(f"Comparison with the paper's experiment 3 (accuracy):\n\n{_beside_paper(of)}")
    return "\n\n".join(parts)


def _methods(rows: Rows) -> str:
    lines = []
    for method in dict.fromkeys(row["method"] for row in rows):
        runs = [
            [row for row in rows if row["method"] == method and row["seed"] == seed]
            for seed in sorted({row["seed"] for row in rows})
        ]
        edges = [list(_last(run, lambda site: site != CLOUD).values()) for run in runs]
        clouds = [_last(run, lambda site: site == CLOUD).get(CLOUD) for run in runs]
        lines.append(
            (
                method,
                format_mean([statistics.mean(row["accuracy"] for row in run) for run in edges]),
                format_mean([min(row["accuracy"] for row in run) for run in edges]),
                format_mean([row["accuracy_all"] for row in clouds if row]),
                format_bytes(runs[0][0]["bytes"]),
                format_count(runs[0][0]["edge_macs"]),
                format_count(runs[0][0]["cloud_macs"]),
            )
        )
    seeds = len({row["seed"] for row in rows})
    heading = (
        "method",
        "edges, mean",
        "worst edge",
        "cloud, all classes",
        "sent",
        "edges' work",
        "cloud's work",
    )
    return f"Mean ± standard deviation over {seeds} seeds; work in multiply-adds.\n\n{table(heading, lines)}"


def _last(run: Rows, wanted: Callable[[str], bool]) -> dict[str, Mapping[str, Any]]:
    """Return the last row of each selected site, without the paper's baseline."""
    return {row["site"]: row for row in run if wanted(row["site"]) and row["stage"] != "initial weights"}


def _beside_paper(rows: Rows) -> str:
    stages = [(row["site"], row["stage"]) for row in rows if row["method"] == "ecavg"]
    lines = []
    for site, stage in dict.fromkeys(stages):
        ours = [
            row["accuracy"]
            for row in rows
            if (row["method"], row["site"], row["stage"]) == ("ecavg", site, stage)
        ]
        paper = PAPER.get((site, stage))
        lines.append((site, stage, format_mean(ours), "-" if paper is None else f"{paper:.4f}"))
    return table(("device", "setup", "ours", "paper"), lines)
