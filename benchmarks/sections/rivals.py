"""ECAvg and decoupled training beside their rivals, by protocol."""

from __future__ import annotations

import statistics
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
SUBMODELS = ("heterofl", "fedrolex", "fjord", "fiarse")
ALL = "edges_mean", "worst_edge", "cloud"
EQUAL = [*(("ecavg, no images", column) for column in ALL), ("ecavg, no images, int8", "cloud")]
IN_CLOUD = [
    ("decoupled, no images", "cloud"),
    ("decoupled, no images, int8", "cloud"),
    ("decoupled, a tenth", "cloud"),
]
PRE_TRAINED = [
    *(("ecavg_plus, no images, in rounds", column) for column in ALL),
    *(("ecavg_plus, no images, once", column) for column in ALL),
]
CLAIMS = {"A": EQUAL, "B-iid": IN_CLOUD, "B-dirichlet": IN_CLOUD, "C": PRE_TRAINED}
"""Protocol -> our methods and the columns in which they are compared with the rivals."""

MOST_BYTES = 10e6
"""The end of the curves of accuracy against bytes."""

POOLED = "ecavg_plus, all images"
NAMES = {"edges_mean": "the edges' mean", "worst_edge": "the worst edge", "cloud": "the cloud's accuracy"}


def rivals(rows: Rows) -> str:
    """Return the section."""
    parts = [
        "## ECAvg and decoupled training beside their rivals\n\n"
        "CIFAR-10. A and B: 3,000 training images, 20 epochs on each edge, a convolutional network with "
        "batch norm; C: 10,000 images of 64x64, 6 epochs, EfficientNet-Lite0. Every method trains each edge "
        "for as many epochs, but for `decoupled, no images`, whose forward passes take a fifth of them. The "
        "learning rates of A and B were found on another seed (`benchmarks/rival_methods.py`). C's are "
        "not swept: the shipped experiment's, but 0.05 for SCAFFOLD, which needs plain SGD. `once` trains in "
        "one schedule and merges at its end; `in rounds` merges 54 times in one training, and does not "
        "retrain: an edge answers only with its own classes, as the edges of other "
        "methods could. The other variants of `ecavg_plus` train before and after one merge. Both were found "
        "with up to 10,000 images of the same dataset, tested on its test images, and `in rounds` was last "
        "changed after a look at all three seeds. Methods `in rounds` have mini-batches of 32 images, "
        "not 64. "
        "`saved` is the multiply-adds per image of the whole model over those of the weakest edge's model. "
        "It leaves out the forward passes of the whole model for statistics, which the edge work includes. "
        "Parameters are sent as float32, or by the codec `int8` where a method's name says so. "
        "The rivals are those of [compare.md](compare.md#the-rivals-as-published)."
    ]
    for protocol, text in PROTOCOLS.items():
        own = [row for row in rows if row["protocol"] == protocol]
        if own:
            seeds = len({row["seed"] for row in own})
            title = f"### Protocol {protocol}: {text}, {seeds} seed{'s' * (seeds > 1)}"
            verdict = " ".join(_verdicts(protocol, own))
            parts.append(f"{title}\n\n{table(HEADING, _lines(own, seeds))}\n\n{verdict}")
    parts.append(
        "![Accuracy against bytes](pictures/rivals.svg)\n\n"
        "The best accuracy of the cloud's model so far, against the bytes of all messages; the mean over the "
        "seeds."
    )
    parts.append(f"Commits: {commits((row['method'], row['commit']) for row in rows)}.")
    return "\n\n".join(parts)


def _lines(rows: Rows, seeds: int) -> Iterator[tuple[Any, ...]]:
    for method in dict.fromkeys(row["method"] for row in rows):
        runs = [row for row in rows if row["method"] == method]
        clouds = [row["cloud"] for row in runs if row["cloud"] is not None]
        means = {
            key: statistics.mean(row[key] for row in runs)
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


def _verdicts(protocol: str, rows: Rows) -> Iterator[str]:
    """Yield a sentence for each claim of a protocol: by how much our method is ahead or behind."""
    for method, column in CLAIMS[protocol]:
        ahead = {name: _ahead(rows, method, name, column) for name in _rivals_of(protocol, rows)}
        known = {name: value for name, value in ahead.items() if value is not None}
        if known:
            best = min(known, key=lambda name: known[name])
            yield _sentence(f"`{method}`", f"the best rival, `{best}`", column, known[best])
            if column == "cloud" and "no images" in method:
                yield _by_bytes(method, rows, list(known))
        pooled = _ahead(rows, method, POOLED, column) if protocol == "C" else None
        if pooled is not None:
            yield _sentence(f"`{method}`", f"`{POOLED}`", column, pooled)


def _ahead(rows: Rows, ours: str, other: str, column: str) -> float | None:
    """Return by how much our method is ahead, the mean over the seeds that both have; None without any."""
    by_seed: dict[str, dict[int, float]] = {ours: {}, other: {}}
    for row in rows:
        if row["method"] in by_seed and row[column] is not None:
            by_seed[row["method"]][row["seed"]] = row[column]
    both = by_seed[ours].keys() & by_seed[other].keys()
    return statistics.mean(by_seed[ours][seed] - by_seed[other][seed] for seed in both) if both else None


def _sentence(ours: str, other: str, column: str, difference: float) -> str:
    points = 100 * difference
    if abs(points) < 0.05:
        return f"In {NAMES[column]}, {ours} equals {other}."
    side = "ahead of" if points > 0 else "behind"
    return f"In {NAMES[column]}, {ours} is {abs(points):.1f} points {side} {other}."


def _rivals_of(protocol: str, rows: Rows) -> list[str]:
    """Return the rivals of our methods: in B those with sub-models, else those that send no images."""
    names = dict.fromkeys(row["method"] for row in rows)
    if protocol.startswith("B"):
        return [name for name in names if name in SUBMODELS]
    sending = {row["method"] for row in rows if row["images_sent"]}
    return [name for name in names if name not in sending and not name.startswith(("ecavg", "decoupled"))]


def _by_bytes(method: str, rows: Rows, names: list[str]) -> str:
    """Return a sentence on the amounts of bytes at which our curve lies above those of all rivals."""
    amounts, ours = best_by_bytes([row for row in rows if row["method"] == method])
    if not amounts:
        return f"Its first model in the cloud comes after more than {MOST_BYTES / 1e6:.0f} MB."
    last = 0.0
    for name in names:
        best = dict(zip(*best_by_bytes([row for row in rows if row["method"] == name]), strict=True))
        better = [at for at, value in zip(amounts, ours, strict=True) if best.get(at, 0) > value]
        last = max([last, *better])
    if last == amounts[-1]:
        return "At 10 MB sent, a rival has had a better model."
    return f"From {(last or amounts[0]) / 1e6:.2f} to 10 MB sent, no rival has had a better model."


def best_by_bytes(rows: Rows, points: int = 200) -> tuple[list[float], list[float]]:
    """Return amounts of bytes up to ``MOST_BYTES``, and the mean over the seeds of the best accuracy by then.

    The curve begins when every seed has a measurement.
    """
    amounts = [MOST_BYTES * n / points for n in range(points + 1)]
    begin = max(row["curve_bytes"][0] for row in rows)
    sent = [amount for amount in amounts if amount >= begin]
    best = [
        statistics.mean(
            max(value for value, at in zip(row["curve"], row["curve_bytes"], strict=True) if at <= amount)
            for row in rows
        )
        for amount in sent
    ]
    return sent, best
