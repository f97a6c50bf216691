"""Writes docs/measurements.md from the result files: ``python -m benchmarks.document``."""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks import pictures
from benchmarks.results import FOLDER
from sheaf.report.papers import known
from sheaf.report.tables import count, size, spread
from sheaf.types import CLOUD

DOCUMENT = Path(__file__).parents[1] / "docs" / "measurements.md"
Rows = Sequence[Mapping[str, Any]]

PAPER = {
    (device, setup): accuracy
    for experiment in known()
    if experiment["data"] == "mnist"
    for device, setup, accuracy, *_ in experiment["rows"]
}
"""Mih et al. 2023, experiment 3."""

INTRODUCTION = """# What was measured

Made from `benchmarks/results/` by `python -m benchmarks.document`; each section names the command that made
its result file, and the file holds every row with commit, settings, versions, hardware and data fingerprint.
"""


def ecavg(rows: Rows) -> str:
    """ECAvg beside its baselines, and experiment 3 beside the paper."""
    parts = ["## ECAvg beside its baselines"]
    for experiment in dict.fromkeys(row["experiment"] for row in rows):
        of = [row for row in rows if row["experiment"] == experiment]
        parts.append(f"### {experiment}\n\n{_methods(of)}")
        if experiment == "ecavg-mnist":
            parts.append(f"Beside the paper's experiment 3 (accuracy):\n\n{_beside_paper(of)}")
    return "\n\n".join(parts)


def averaging(rows: Rows) -> str:
    """What averaging does to each edge, and what helps."""
    parts = [
        "## When averaging hurts an edge\n\nAn edge's gain is what it ends with, less what ECAvg's edge has "
        "before the update at the same seed; accuracies are on the test images of an edge's own classes. "
        "`ended worse`: of all edges over all seeds, those that end below their own `before update` by more "
        "than the standard error of their test set (methods without an update have none). `average` is the "
        "cloud's accuracy before any fine-tuning step (after the refit where there is one)."
    ]
    for experiment in dict.fromkeys(row["experiment"] for row in rows):
        of = [row for row in rows if row["experiment"] == experiment]
        seeds = len({row["seed"] for row in of})
        lines = []
        for method in dict.fromkeys(row["method"] for row in of):
            runs = [row for row in of if row["method"] == method]
            edges = sum(len(row["gains"]) for row in runs)
            worse = [row["edges_worse"] for row in runs if row["edges_worse"] is not None]
            lines.append(
                (
                    _with_seeds(method, runs, seeds),
                    *(spread([row[key] for row in runs]) for key in ("mean_edge", "worst_edge")),
                    f"{statistics.mean(row['worst_edge_gain'] for row in runs):+.4f}",
                    f"{sum(worse)} of {edges}" if worse else "-",
                    *(
                        spread([row[key] for row in runs if row[key] is not None])
                        for key in ("average", "cloud_accuracy")
                    ),
                    size(runs[0]["bytes"]),
                    count(runs[0]["edge_macs"]),
                )
            )
        heading = (
            "method",
            "edges, mean",
            "worst edge",
            "least gain",
            "ended worse",
            "average",
            "cloud",
            "sent",
            "edges' work",
        )
        parts.append(
            f"### {experiment}\n\nMean ± standard deviation over {seeds} seed{'s' * (seeds > 1)}.\n\n"
            + _table(heading, lines)
        )
    at = _commits((row["method"], row["commit"]) for row in rows)
    parts.append(f"Each method at the last commit that it was run at: {at}.")
    parts.append(
        "### The gain of each edge\n\nA point for each edge of each seed.\n\n"
        "![Gains of every edge, by ECAvg and by ecavg_plus, a panel for each experiment](pictures/gains.svg)"
    )
    parts.append(
        "### Accuracy against bytes\n\n`ecavg_plus` with 1, 5, 20 and 100 % of each edge's images shared; "
        "bars are one standard deviation.\n\n"
        "![Accuracy of the edges and of the cloud against the megabytes sent](pictures/sharing.svg)"
    )
    return "\n\n".join(parts)


def drop(rows: Rows) -> str:
    """Where the paper's drop on MNIST is found."""
    stages = {
        "before update": "before update",
        "average": "average, cloud",
        "averaged weights": "fine-tuned, cloud",
        "initial weights": "from initial weights, cloud",
        "after update": "after update",
        "after retraining": "after retraining",
    }
    lines = [
        (name, *(spread([row[stage] for row in rows if row["finetune"] == name]) for stage in stages))
        for name in dict.fromkeys(row["finetune"] for row in rows)
    ]
    deepest = min(row["after update"] for row in rows)
    return (
        "## Looking for the paper's drop on MNIST\n\n"
        "The paper's edges fall from 0.972 and 0.957 to 0.754 and 0.547 after the update, and its cloud ends "
        "at 0.642 from averaged and 0.794 from initial weights. Here what changes is the fine-tune in the "
        "cloud, and whether the edges began with common weights or with weights of their own draw: the less "
        f"the cloud does, the deeper the edges fall, to {deepest:.3f} at the deepest. Means of both edges on "
        "their own classes, of the cloud on all.\n\n" + _table(("fine-tune", *stages.values()), lines)
    )


def overhead(rows: Rows) -> str:
    """sheaf's loop against a bare one."""
    table = _table(
        ("job", "sheaf / bare", "middle half of the pairs", "bare, s", "sheaf, s", "pairs"),
        (
            (
                row["name"],
                f"{row['ratio']:.3f}",
                f"{row['ratio_low']:.3f} to {row['ratio_high']:.3f}",
                f"{row['bare_s']:.2f}",
                f"{row['sheaf_s']:.2f}",
                row["pairs"],
            )
            for row in rows
        ),
    )
    title = "## What the loop costs beyond a bare one"
    return f"{title}\n\nRatio of the medians; both end with the same bits.\n\n{table}"


def decoupled(rows: Rows) -> str:
    """Each step of decoupled training beside its honest rivals."""
    parts = ["## Decoupled training, step by step"]
    for name in dict.fromkeys(row["name"] for row in rows):
        of = [row for row in rows if row["name"] == name]
        seeds = len({row["seed"] for row in of})
        lines = []
        for step in dict.fromkeys(row["step"] for row in of):
            runs = [row for row in of if row["step"] == step]
            first = runs[0]
            lines.append(
                (
                    _with_seeds(step, runs, seeds),
                    spread([row["accuracy"] for row in runs]),
                    f"{100 * first['cloud_share']:.1f} %",
                    _times(first["saved_least"]),
                    _times(first["saved_weakest"]),
                    _times(first["saved_sum"]),
                    _times(first["saved_sum_with_cloud"]),
                    size(first["bytes"]),
                )
            )
        heading = (
            "step",
            "accuracy",
            "cloud's work",
            "saved, strongest",
            "weakest",
            "sum",
            "sum with cloud",
            "sent",
        )
        parts.append(
            f"### {name}\n\nMean ± standard deviation over {seeds} seed{'s' * (seeds > 1)}. The cloud's work "
            "is over that of `central`; `saved` is multiply-adds an image of the whole model over those of "
            "the device's part, and for sums all training over that of the whole model on every device.\n\n"
            + _table(heading, lines)
        )
    at = _commits((row["step"], row["commit"]) for row in rows)
    parts.append(f"Each step at the last commit that it was run at: {at}.")
    return "\n\n".join(parts)


def tracing(rows: Rows) -> str:
    """How long a shipped model takes to trace and to cut."""
    lines = [
        (
            row["name"],
            _range(row["traced"], row["all_traced"]),
            _range(row["cut"], row["all_cut"]),
            size(row["memory"]),
        )
        for row in rows
    ]
    return (
        "## What tracing a model takes\n\nOnce for each model, and once for each cut, however many devices "
        "have it. At the width and image size of the paper or of the variant, each repeat in a process of "
        "its own; seconds are the median (least to most), memory is the peak beyond the model itself.\n\n"
        + _table(("model", "trace, s", "a quarter's cut, s", "memory"), lines)
    )


def simulation(rows: Rows) -> str:
    """Many edges on one machine, against others that simulate the same."""
    sides = {
        "sheaf": "sheaf",
        "one_by_one": "sheaf, one by one",
        "bare_1": "bare loop, 1 thread",
        "bare_2": "bare loop, 2 threads",
        "flower": "Flower",
    }
    jobs = [row for row in rows if "vs_bare" in row]
    lines = [
        (
            row["job"],
            *(_seconds(row["sides"].get(side)) for side in sides),
            _times(row["vs_flower"]),
            f"{row['vs_bare']:.2f}x",
        )
        for row in jobs
    ]
    accuracies = [
        (
            row["job"],
            *(f"{row['sides'][side]['accuracy']:.4f}" if side in row["sides"] else "-" for side in sides),
        )
        for row in jobs
    ]
    sizes = sorted((row for row in rows if "edges" in row), key=lambda row: int(row["edges"]))
    growth = [
        (
            row["edges"],
            f"{row['median_s']:.2f}",
            f"{row['ms_an_edge_and_round']:.2f}",
            "-" if smaller is None else f"{_further(smaller, row):.2f}",
            size(row["memory_bytes"]),
        )
        for smaller, row in zip([None, *sizes], sizes, strict=False)
    ]
    others = [(row["job"], *(_others(row["sides"].get(side)) for side in sides)) for row in jobs]
    merges = [
        (
            row["job"],
            *(
                f"{1000 * row['sides'][side]['median_s']:.1f}"
                for side in ("copy_1", "copy_2", "merge", "merge_files")
            ),
            f"{row['vs_copy']:.2f}x",
        )
        for row in rows
        if "vs_copy" in row
    ]
    shares = [
        (
            row["job"],
            f"{100 * row['share']:.1f} %",
            f"{100 * min(row['shares']):.1f} to {100 * max(row['shares']):.1f} %",
        )
        for row in rows
        if "share" in row
    ]
    return (
        "## Many edges on one machine\n\nSeconds of FedAvg over all edges, median (least to most) of the "
        "repeats, and how many times faster sheaf is than Flower's simulation (its rounds alone, without its "
        "start) and than the best of the bare loops. sheaf's seconds are of a whole run with its journal "
        "and files.\n\n"
        + _table(("job", *sides.values(), "over Flower", "over bare"), lines)
        + "\n\nAccuracy of the last average:\n\n"
        + _table(("job", *sides.values()), accuracies)
        + "\n\nOne hidden layer on MNIST, 60 images an edge, 5 rounds of all edges. To "
        "measure the average takes as long however many edges there are; what should not grow is the time of "
        "each further edge:\n\n"
        + _table(("edges", "s", "ms an edge and round", "of each further edge", "peak memory"), growth)
        + "\n\nCores that processes beside the benchmark's own used meanwhile, Flower's among them, median "
        "(least to most):\n\n"
        + _table(("job", *sides.values()), others)
        + "\n\nA merge in float64 against a plain copy of the same bytes, ms; from memory, and from files "
        "that are opened and read for it:\n\n"
        + _table(
            ("job", "copy, 1 thread", "copy, 2 threads", "merge", "merge from files", "of a copy's speed"),
            merges,
        )
        + "\n\nSeconds of journaling, those too in which others train, as a share of a run:\n\n"
        + _table(("job", "median", "least to most"), shares)
    )


def fleet(rows: Rows) -> str:
    """What a real fleet costs beyond its engine."""
    of = {part: [row for row in rows if row["part"] == part] for part in ("rounds", "memory", "idle")}
    rounds = [
        (
            row["name"],
            _range(row["round_s"], row["all_round_s"][1:]),
            _range(row["floor_s"], row["all_floor_s"][1:]),
            f"{row['ratio']:.2f}x",
            row["rounds"],
        )
        for row in of["rounds"]
    ]
    memory = [
        (row["name"], *(f"{row[key]:.0f} MB" for key in ("run_mb", "server_mb", "job_mb")))
        for row in of["memory"]
        if row in (of["memory"][0], *of["memory"][2::6], of["memory"][-1])
    ]
    parts = [
        "## What a real fleet costs\n\nA cloud and three devices on loopback. A round of sheaf's is a train "
        "task of no epochs on all three at once: weights go down, into the network, onto the device's disk, "
        "come up, are checked and lie on the cloud's disk. The floor is NVIDIA FLARE's own call with as many "
        "bytes as tensors, sent back as they came, kept nowhere. Seconds are the median (least to most) "
        "without the first round.",
        _table(("weights each way", "sheaf, s", "floor, s", "ratio", "rounds"), rounds),
        "Memory of the cloud after rounds of 100 MB (proportional set size): the run's process, which "
        "merges; FLARE's server; FLARE's job.",
        _table(("after", "run", "server", "job"), memory),
        f"All three together: {_sums(of['memory'][2:20])} in rounds 3 to 20, {_sums(of['memory'][20:])} in "
        "rounds 21 to 40 (mean ± standard deviation: what is on its way when a round ends, and what the "
        "allocator keeps, differs by round).",
    ]
    parts += [
        f"A device that waits takes {row['idle_mb']:.0f} MB, all its processes together (the most of "
        f"{row['devices']})."
        for row in of["idle"]
    ]
    return "\n\n".join(parts)


def _sums(rows: Rows) -> str:
    """Megabytes of the cloud's processes together."""
    sums = [sum(row[key] for key in ("run_mb", "server_mb", "job_mb")) for row in rows]
    return f"{statistics.mean(sums):.0f} ± {statistics.stdev(sums):.0f} MB"


def faults(rows: Rows) -> str:
    """What a run does when something fails."""
    lines = [
        (
            row["case"].replace("_", " "),
            row["what"],
            row["ended"],
            "-" if not row["weights"] else "yes" if row["equal"] else "no",
            f"{row['lost_s']:.0f}" if row["weights"] else "-",
            row["left_out"] or "-",
        )
        for row in rows
    ]
    at = _commits((row["case"].replace("_", " "), row["commit"]) for row in rows)
    heading = ("case", "what happens", "how it ended", "same weights", "seconds lost", "left out")
    return (
        "## When something fails\n\nA rehearsed fleet of three devices, quorum 0.5. `same weights`: whether "
        "they are those of the undisturbed run, bit for bit; they cannot be where a device was left out of "
        "training. Seconds lost are over the undisturbed run, and include starting again. "
        + f"Each case at the last commit that it was run at: {at}.\n\n"
        + _table(heading, lines)
    )


def _with_seeds(name: str, runs: Rows, seeds: int) -> str:
    """The name, and how many seeds it was run with where that is not all of them."""
    return name if len(runs) == seeds else f"{name} ({len(runs)} seed{'s' * (len(runs) > 1)})"


def _commits(named: Iterable[tuple[str, str]]) -> str:
    """At which commit each was run, from (name, commit)."""
    at: dict[str, dict[str, None]] = {}
    for name, commit in named:
        at.setdefault(commit[:12], {})[name] = None
    return ", ".join(f"{commit} ({'; '.join(names)})" for commit, names in at.items())


SECTIONS: dict[str, Callable[[Rows], str]] = {
    "ecavg": ecavg,
    "averaging": averaging,
    "drop": drop,
    "decoupled": decoupled,
    "tracing": tracing,
    "overhead": overhead,
    "simulation": simulation,
    "fleet": fleet,
    "faults": faults,
}


def document() -> str:
    """The whole page, from the result files that are there."""
    parts = [INTRODUCTION.rstrip()]
    for name, section in SECTIONS.items():
        file = FOLDER / f"{name}.json"
        if file.exists():
            content = json.loads(file.read_text())
            parts += [section(content["rows"]), _provenance(name, content["provenance"])]
    return "\n\n".join(parts) + "\n"


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
                spread([statistics.mean(row["accuracy"] for row in run) for run in edges]),
                spread([min(row["accuracy"] for row in run) for run in edges]),
                spread([row["accuracy_all"] for row in clouds if row]),
                size(runs[0][0]["bytes"]),
                count(runs[0][0]["edge_macs"]),
                count(runs[0][0]["cloud_macs"]),
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
    return f"Mean ± standard deviation over {seeds} seeds; work in multiply-adds.\n\n{_table(heading, lines)}"


def _last(run: Rows, wanted: Callable[[str], bool]) -> dict[str, Mapping[str, Any]]:
    """Each wanted site's last row, the paper's comparison left aside."""
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
        lines.append((site, stage, spread(ours), "-" if paper is None else f"{paper:.4f}"))
    return _table(("device", "setup", "ours", "paper"), lines)


def _table(heading: Sequence[str], lines: Iterable[Sequence[Any]]) -> str:
    rows = [heading, ["---"] * len(heading), *lines]
    return "\n".join(f"| {' | '.join(map(str, row))} |" for row in rows)


def _seconds(side: Mapping[str, Any] | None) -> str:
    if side is None:
        return "-"
    return _range(side["median_s"], side["seconds"])


def _further(smaller: Mapping[str, Any], row: Mapping[str, Any]) -> float:
    """Milliseconds a round of each edge that a larger fleet has more."""
    more = (row["edges"] - smaller["edges"]) * row["settings"]["rounds"]
    return float(1000 * (row["median_s"] - smaller["median_s"]) / more)


def _others(side: Mapping[str, Any] | None) -> str:
    return "-" if side is None else _range(statistics.median(side["others"]), side["others"])


def _range(median: float, seconds: Sequence[float]) -> str:
    return f"{median:.2f} ({min(seconds):.2f} to {max(seconds):.2f})"


def _times(saved: float | None) -> str:
    return "-" if saved is None else f"{saved:.1f}x"


def _provenance(name: str, provenance: Mapping[str, Any]) -> str:
    hardware = provenance["hardware"]
    return (
        f"`python -m benchmarks.{name}`, commit {str(provenance['commit'])[:12]}"
        f"{', with changes' if provenance['dirty'] else ''}, torch {provenance['versions']['torch']}, "
        f"{hardware['cpu']}, {hardware['threads']} threads, {provenance['finished'][:10]}."
    )


if __name__ == "__main__":
    DOCUMENT.write_text(document(), encoding="utf-8")
    measured = json.loads((FOLDER / "averaging.json").read_text())["rows"]
    pictures.gains(measured)
    pictures.sharing(measured)
