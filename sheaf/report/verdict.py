"""The verdict on a run: what taking part brought an edge, what left the devices, and what it cost.

Everything is computed from ``result.json``. An edge's gain is its final accuracy minus that of its baseline:
``baselines = ["local"]`` (the edge trains alone for as long), or else its first measurement, if that came
before the first merge.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from sheaf.core.types import CLOUD
from sheaf.report.formatting import (
    format_bytes,
    format_count,
    format_number_of,
    format_percent,
    format_points,
    format_ratio,
)
from sheaf.runtime.result import Result, Row

Outcome = Literal["pays", "mixed", "no difference", "does not pay", "better", "unknown", "alone"]
"""``better`` than before the first merge, but not compared with as much training alone; ``mixed``: a gain on
all classes and a loss on own classes; ``unknown``: nothing to compare with; ``alone``: no collaboration."""

BASELINES = 'add --set \'baselines=["local", "central"]\''
"""The option that adds the missing comparisons to a run."""


@dataclass(frozen=True)
class Finding:
    """One line of a verdict.

    Attributes:
        topic: a short label, such as ``edges``.
        text: one or two sentences.
    """

    topic: str
    text: str


@dataclass(frozen=True)
class Verdict:
    """The verdict on a run. Accuracies are from 0 to 1.

    Attributes:
        outcome: whether taking part paid for the edges; see ``Outcome``.
        short: the outcome in a few words, such as ``pays: +17.9 points, worst +7.0``.
        findings: the sentences, in order of importance.
        edges: edge -> final accuracy on own classes.
        alone: edge -> accuracy of its baseline on own classes; empty without one.
        gains: edge -> ``edges`` minus ``alone``, -1 to 1.
        gains_all: likewise on all classes; only for edges that measured it.
        as_long: the baseline trained for as long as the edge; False: it is the edge's first measurement.
        cloud: final accuracy of the cloud's model on all classes; None without one.
        central: accuracy of central training on all classes; None if it was not run.
        images: training images that left the devices; None if not recorded.
        all_images: training images of all devices.
        bytes_up, bytes_down: bytes that the edges sent and received.
    """

    outcome: Outcome
    short: str
    findings: tuple[Finding, ...]
    edges: Mapping[str, float] = field(default_factory=dict)
    alone: Mapping[str, float] = field(default_factory=dict)
    gains: Mapping[str, float] = field(default_factory=dict)
    gains_all: Mapping[str, float] = field(default_factory=dict)
    as_long: bool = False
    cloud: float | None = None
    central: float | None = None
    images: int | None = None
    all_images: int = 0
    bytes_up: int = 0
    bytes_down: int = 0


def verdict(result: Result) -> Verdict:
    """Return the verdict on a run."""
    final = {site: row for site in result.split if (row := result.final(site)) is not None}
    alone, as_long = _alone(result)
    gains = {site: final[site].accuracy - row.accuracy for site, row in alone.items() if site in final}
    gains_all = {
        site: after - before
        for site, row in alone.items()
        if site in final
        and (after := final[site].accuracy_all) is not None
        and (before := row.accuracy_all) is not None
    }
    cloud, central = result.final(CLOUD), _reference(result, CLOUD, "central")
    edge_costs = [result.cost[site] for site in result.split]
    counts = [cost.samples_sent for cost in edge_costs]
    images = None if None in counts else sum(count or 0 for count in counts)
    outcome, short, text = _edges(result, final, alone, gains, gains_all, as_long)
    return Verdict(
        outcome=outcome,
        short=short,
        findings=(
            Finding("edges", text),
            *_cloud(result, alone, as_long, cloud, central),
            Finding("left the devices", _left(result, images)),
            Finding("cost", _cost(result)),
        ),
        edges={site: row.accuracy for site, row in final.items()},
        alone={site: row.accuracy for site, row in alone.items()},
        gains=gains,
        gains_all=gains_all,
        as_long=as_long,
        cloud=None if cloud is None else cloud.accuracy_all,
        central=None if central is None else central.accuracy_all,
        images=images,
        all_images=sum(map(sum, result.split.values())),
        bytes_up=sum(cost.bytes_sent for cost in edge_costs),
        bytes_down=sum(cost.bytes_received for cost in edge_costs),
    )


def _reference(result: Result, site: str, stage: str) -> Row | None:
    rows = (row for row in result.rows if row.reference and row.site == site and row.stage == stage)
    return next(rows, None)


def _alone(result: Result) -> tuple[dict[str, Row], bool]:
    """Return edge -> its baseline, and whether that trained for as long as the edge."""
    baseline = {site: row for site in result.split if (row := _reference(result, site, "alone"))}
    if baseline or result.method == "local":
        return baseline, True
    first: dict[str, Row] = {}
    for row in result.rows:
        if row.site == CLOUD:
            break
        first.setdefault(row.site, row)
    return first, False


def _received(result: Result) -> bool:
    """Return whether an edge was measured after the first measurement of a merged model."""
    own = [row for row in result.rows if not row.reference]
    first = next((n for n, row in enumerate(own) if row.site == CLOUD), len(own))
    return any(row.site != CLOUD for row in own[first:])


def _edges(
    result: Result,
    final: Mapping[str, Row],
    alone: Mapping[str, Row],
    gains: Mapping[str, float],
    gains_all: Mapping[str, float],
    as_long: bool,
) -> tuple[Outcome, str, str]:
    """Return the outcome for the edges, in a few words, and in sentences."""
    if not final:
        return "unknown", "edges not measured", "The edges were not measured."
    values = [row.accuracy for row in final.values()]
    worst = min(final, key=lambda site: final[site].accuracy)
    level = (
        f"On their own classes the edges reach {format_percent(statistics.mean(values))} on average, the "
        f"worst ({worst}) {format_percent(final[worst].accuracy)}."
    )
    if result.method == "local":
        short = f"alone: {format_percent(statistics.mean(values))}, worst {format_percent(min(values))}"
        return "alone", short, f"Each edge trains alone, without collaboration. {level}"
    if not _received(result):
        return _kept(result, alone, level)
    if not gains:
        text = f"{level} The run has no comparison with training alone; {BASELINES}."
        return "unknown", f"not compared: {format_percent(statistics.mean(values))}", text
    mean, least = statistics.mean(gains.values()), min(gains, key=lambda site: gains[site])
    before = statistics.mean(alone[site].accuracy for site in gains)
    after = statistics.mean(final[site].accuracy for site in gains)
    image = 1 / max(1.0, statistics.median(final[site].examples for site in gains))
    mean_all = statistics.mean(gains_all.values()) if gains_all else None
    outcome = _outcome(mean, mean_all, image, as_long)
    change = f"{'gains' if mean > 0 else 'loses'} {format_points(abs(mean)).lstrip('+')} points"
    if abs(mean) < image:
        change = "neither gains nor loses"
    against = "alone" if as_long else "before the first merge"
    text = (
        f"{_HEADLINE[outcome]}: on average an edge {change} on its own classes ({against} "
        f"{format_percent(before)}, now {format_percent(after)}); the least change is "
        f"{format_points(gains[least])} ({least})."
    )
    losers = [site for site in gains if gains[site] < 0]
    if losers and mean > 0:
        number = f"{len(losers)} of {format_number_of(len(gains), 'edge')}"
        text += f" {number} {'loses' if len(losers) == 1 else 'lose'}."
    if mean_all is not None:
        text += f" On all classes the mean change is {format_points(mean_all)} points."
    if not as_long:
        text += f" {_epochs(result)}Training alone for as long was not measured; {BASELINES}."
    short = f"{outcome}: {format_points(mean)} points, worst {format_points(gains[least])}"
    return outcome, short, text


_HEADLINE: dict[Outcome, str] = {
    "pays": "Taking part pays",
    "mixed": "Taking part costs accuracy on own classes and brings it on all",
    "no difference": "Taking part makes no difference on own classes",
    "does not pay": "Taking part does not pay",
    "better": "The edges are better than before the first merge",
}


def _outcome(mean: float, mean_all: float | None, image: float, as_long: bool) -> Outcome:
    """Classify mean gains. A gain on own classes counts from one test image of the median edge on."""
    gains_all = mean_all is not None and mean_all >= image
    if mean >= image:
        return "pays" if as_long else "better"
    if mean <= -image:
        return "mixed" if gains_all else "does not pay"
    return "no difference"


def _kept(result: Result, alone: Mapping[str, Row], level: str) -> tuple[Outcome, str, str]:
    """Return the outcome of a method whose edges do not receive the merged model, from the cloud's model."""
    text = f"The edges keep the models that they trained separately. {level}"
    cloud = result.final(CLOUD)
    values = [row.accuracy_all for row in alone.values() if row.accuracy_all is not None]
    if cloud is None or cloud.accuracy_all is None or not values:
        return "unknown", "edges keep their own models", text
    difference = cloud.accuracy_all - statistics.mean(values)
    outcome: Outcome = "pays" if difference >= 1 / max(1, cloud.examples) else "does not pay"
    better = "better" if outcome == "pays" else "not better"
    text = (
        f"{_HEADLINE[outcome] if outcome != 'pays' else 'Merging pays'}: on all classes the merged model is "
        f"{better} than an edge's own ({format_points(difference)} points). {text}"
    )
    return outcome, f"{outcome}: merged model {format_points(difference)} points on all classes", text


def _epochs(result: Result) -> str:
    """Return how many of its epochs an edge had trained before the first merge; empty if not recorded."""
    curves = [curve for curve in result.curves if CLOUD not in curve.losses]
    epochs = [max([len(curve.spread), *map(len, curve.losses.values())]) for curve in curves]
    if not epochs or sum(epochs) == epochs[0]:
        return ""
    return f"Before it, they had trained {epochs[0]} of {sum(epochs)} epochs. "


def _cloud(
    result: Result, alone: Mapping[str, Row], as_long: bool, cloud: Row | None, central: Row | None
) -> Sequence[Finding]:
    """Return the finding on the cloud's model beside central training and beside no collaboration."""
    if cloud is None or cloud.accuracy_all is None:
        return ()
    others = []
    if central is not None and central.accuracy_all is not None:
        others.append(("central training on all images", central.accuracy_all))
    pool = _reference(result, CLOUD, "initial weights")
    if pool is not None and pool.accuracy_all is not None:
        others.append(("the same training without the edges' models", pool.accuracy_all))
    values = [row.accuracy_all for row in alone.values() if row.accuracy_all is not None]
    if values:
        name = "an edge alone" if as_long else "an edge before the first merge"
        others.append((name, statistics.mean(values)))
    compared = [
        f"{_distance(cloud.accuracy_all - value)} {name} ({format_percent(value)})" for name, value in others
    ]
    text = f"The cloud's model reaches {format_percent(cloud.accuracy_all)} on all classes"
    return (Finding("cloud", f"{text}{': ' * bool(compared)}{', '.join(compared)}."),)


def _distance(difference: float) -> str:
    """Return ``2.0 points above``, ``4.8 points below`` or ``equal to``."""
    points = format_points(abs(difference)).lstrip("+")
    if difference == 0:
        return "equal to"
    return f"{points} points {'above' if difference > 0 else 'below'}"


def _left(result: Result, images: int | None) -> str:
    """Return the sentence on the images and bytes that left the devices."""
    edges = [result.cost[site] for site in result.split]
    total = sum(map(sum, result.split.values()))
    up, down = sum(cost.bytes_sent for cost in edges), sum(cost.bytes_received for cost in edges)
    if images is None:
        what = "The number of images was not recorded"
    elif images:
        what = f"{images:,} of {total:,} images ({format_percent(images / total)})"
    else:
        what = "No image"
    contents = {"local": "messages without a model", "central": "messages with the images"}
    sent = contents.get(result.method, "models and messages")
    lent = result.cost[CLOUD].samples_sent if CLOUD in result.cost else 0
    epsilons = [cost.epsilon for cost in edges if cost.epsilon is not None]
    noise = f" with noise (ε at most {max(epsilons):.3g} for each edge)" if epsilons else ""
    if any(cost.statistics_sent for cost in edges):
        sent = f"{sent}, statistics of the images{noise}"
    sent_on = f" The cloud sent {lent:,} copies of images on to other devices." if lent else ""
    return f"{what}; {sent}: {format_bytes(up)} up, {format_bytes(down)} down.{sent_on}"


def _cost(result: Result) -> str:
    """Return the sentence on computation and time."""
    edges = [result.cost[site] for site in result.split]
    macs = sum(cost.train_macs for cost in edges)
    cloud = result.cost.get(CLOUD)
    slowest = max(cost.seconds for cost in edges)
    parts = ["the edges did not train"]
    if macs:
        parts = [f"training took the edges {format_count(macs)} multiply-adds, at most {slowest:.1f} s each"]
    if cloud is not None and cloud.train_macs:
        parts.append(f"the cloud {format_count(cloud.train_macs)}, {cloud.seconds:.1f} s")
    smallest = min(cost.macs_per_example for cost in edges)
    if 0 < smallest < 0.95 * result.whole.macs_per_example:
        ratio = result.whole.macs_per_example / smallest
        parts.append(f"the smallest sub-model computes {format_ratio(ratio)} less per image than the whole")
    text = "; ".join(parts)
    return f"{text[0].upper()}{text[1:]}."
