"""Compare ECAvg and decoupled training with their rivals, as published, under one budget of edge work.

Protocol A: label skew, ten equal edges with two shards of CIFAR-10 each. Protocol B: eight unequal edges,
two each with 1, 1/4, 1/16 and 1/64 of the parameters (widths 1, 1/2, 1/4 and 1/8), iid or Dirichlet 0.3.
Protocol C: ECAvg's first experiment with an ImageNet network, two edges of five classes, images of 64x64.
A and B have 3,000 training images, 20 epochs and a small network with 8 and 16 to 32 and 64 channels, C has
10,000 images and 6 epochs, all have 1,000 test images. A run of A and B takes 5 to 30 processor seconds, one
of C 10 to 20 minutes.

Every method trains each edge for the same number of epochs, but for ``decoupled, no images``, whose forward
passes take a fifth of them. The settings of A and B are those of ``TUNED``, which ``--sweep`` found.
``edges_mean`` and ``worst_edge`` are accuracies on the edges' own classes, ``cloud`` on all; ``bytes`` are
sent by all sites, with parameters encoded by the codec int8 where a method's name ends in it;
``saved_weakest`` is the multiply-adds per image of the whole model over those of the weakest edge's model;
``curve`` is the cloud's accuracy at each measurement, ``curve_bytes`` the bytes sent by then.

Run: SHEAF_DATA=… OMP_NUM_THREADS=1 python -m benchmarks.rivals FOLDER [--protocols A,B-iid,B-dirichlet,C]
[--methods "NAME;…"] [--seeds 0,1,2] [--toy] [--sweep] [--publish]
Runs one method and seed at a time. Finished runs in FOLDER are read, so that an interrupted benchmark
continues; --publish writes the finished ones of the named runs into rivals.json, without running any; other
published rows stay. --sweep runs the grid of each method with seed 100 and prints the best settings. The jobs
named "Rivals" of benchmarks.full_size run the protocols at full size on a GPU.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import Console
from torch import nn

from benchmarks.results import publish, published
from benchmarks.rival_methods import EQUAL, PRE_TRAINED, TUNED, UNEQUAL, Methods, grid
from sheaf.codecs.int8 import Int8
from sheaf.core.recipe import Recipe
from sheaf.core.types import CLOUD
from sheaf.experiments.compare import run_or_resume, summarise
from sheaf.experiments.config import Experiment, load_experiment
from sheaf.runtime.result import Result
from sheaf.runtime.timeline import Budget

TIERS = (1.0, 0.5, 0.25, 0.125)
EDGES = 8
COLUMNS = ("protocol", "method", "seed", "edges_mean", "worst_edge", "cloud", "bytes", "images_sent")
SWEPT = 100
"""The seed of the sweep, which no result has."""

RECORD_BYTES = Budget(bytes=10**15)
"""A limit that no run reaches: a run with a limit records the bytes of each measurement."""


class SmallCNN(nn.Sequential):
    """Three strided convolutions with batch norm for 3x32x32.

    Args:
        num_classes: the number of classes.
        channels: of the first convolution; 16 gives 0.7M multiply-adds and 24,000 parameters.
    """

    def __init__(self, num_classes: int, channels: int = 16) -> None:
        layers: list[nn.Module] = []
        for before, after in ((3, channels), (channels, 2 * channels), (2 * channels, 4 * channels)):
            conv = nn.Conv2d(before, after, 3, stride=2, padding=1)
            layers += [conv, nn.BatchNorm2d(after), nn.ReLU()]
        last = nn.Linear(4 * channels, num_classes)
        super().__init__(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), last)


@dataclass(frozen=True)
class Size:
    """The size of the runs.

    Attributes:
        images: training images of all edges; None: all of the dataset.
        test: test images; None: all of the dataset.
        epochs: edge epochs of a run, at least 4.
        channels: factor of the channels of the network in A and B.
        side: pixels of a side of the images in C.
    """

    images: int | None
    test: int | None
    epochs: int
    channels: int = 1
    side: int = 64


FULL, TOY = Size(3_000, 1_000, 20), Size(400, 100, 4)
PRE_TRAINED_SIZE = Size(10_000, 1_000, 6)

PROTOCOLS: dict[str, tuple[Methods, tuple[str, ...]]] = {
    "A": (EQUAL, ("partition={name='shards', edges=10}",)),
    "B-iid": (UNEQUAL, (f"partition={{name='iid', edges={EDGES}}}",)),
    "B-dirichlet": (UNEQUAL, (f"partition={{name='dirichlet', edges={EDGES}, alpha=0.3}}",)),
    "C": (PRE_TRAINED, ()),
}


def experiment(protocol: str, name: str, seed: int, size: Size, tuned: dict[str, Any]) -> Experiment:
    """Return the experiment of a method with the settings ``tuned``, among them the learning rate ``lr``."""
    methods, changes = PROTOCOLS[protocol]
    common = (*changes, "fleet.threads=1", f"seed={seed}")
    if protocol == "C":
        base = load_experiment("ecavg-cifar10-lite0", (f"data.size={[size.side] * 2}", *common))
        recipe = replace(base.method.pretrain, epochs=1)
    else:
        channels = size.channels * (8 if protocol == "A" else 16)
        network = f"model={{name='benchmarks.rivals:SmallCNN', options={{channels={channels}}}}}"
        base = load_experiment("ecavg-cifar10", (network, *common))
        recipe = Recipe(batch_size=32, optimizer="sgd")
    given = {key: value for key, value in tuned.items() if key != "lr"}
    method = methods[name](size.epochs, replace(recipe, lr=tuned.get("lr", recipe.lr)), **given)
    fleet = replace(base.fleet, stop_at=RECORD_BYTES)
    if name.endswith(", int8"):
        fleet = replace(fleet, upload=Int8(), download=Int8())
    if protocol.startswith("B"):
        widths = {f"edge-{n + 1}": TIERS[n * len(TIERS) // EDGES] for n in range(EDGES)}
        fleet = replace(fleet, widths=widths)
    data = replace(base.data, limit=size.images, limit_test=size.test)
    return replace(base, data=data, method=method, fleet=fleet)


def row(protocol: str, name: str, seed: int, result: Result) -> dict[str, Any]:
    """Return the row of a run."""
    summary = summarise(name, [result], 1)
    assert result.time is not None
    measured = list(zip(result.rows, result.time.measured, strict=True))
    curve = [(each.accuracy, spent.bytes) for each, spent in measured if each.site == CLOUD]
    return {
        "protocol": protocol,
        "method": name,
        "seed": seed,
        "edges_mean": summary.mean_edge[0],
        "worst_edge": summary.worst_edge[0],
        "cloud": summary.cloud[0] if summary.cloud else None,
        "bytes": summary.bytes,
        "images_sent": summary.images,
        "edge_macs": summary.edge_macs,
        "cloud_macs": summary.cloud_macs,
        "saved_weakest": max(summary.saved.values()) if summary.edge_macs else None,
        "curve": [accuracy for accuracy, _ in curve],
        "curve_bytes": [sent for _, sent in curve],
        "commit": result.provenance["commit"],
    }


def selected() -> tuple[argparse.Namespace, Iterator[tuple[str, str, int]]]:
    """Return the arguments, and the selected protocols, methods and seeds, one seed after another."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--protocols", default="A,B-iid,B-dirichlet")
    parser.add_argument("--methods", default="", help="names separated by ';' (default: all)")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--toy", action="store_true", help="400 images, 4 epochs: to try the benchmark")
    parser.add_argument("--sweep", action="store_true", help=f"run the grid of each method, seed {SWEPT}")
    parser.add_argument("--publish", action="store_true")
    given = parser.parse_args()
    protocols, names = given.protocols.split(","), [name for name in given.methods.split(";") if name]
    for unknown in {*protocols} - PROTOCOLS.keys():
        parser.error(f"unknown protocol {unknown!r}; there are: {', '.join(PROTOCOLS)}")
    for unknown in {*names} - {name for methods, _ in PROTOCOLS.values() for name in methods}:
        parser.error(f"unknown method {unknown!r}; the protocols list them in this file")
    runs = (
        (protocol, name, int(seed))
        for seed in ([SWEPT] if given.sweep else given.seeds.split(","))
        for protocol in protocols
        for name in PROTOCOLS[protocol][0]
        if not names or name in names
    )
    return given, runs


def order_of(row: dict[str, Any]) -> tuple[int, int, int]:
    """Return the place of a row's run among all runs."""
    protocol = row["protocol"]
    methods = list(PROTOCOLS[protocol][0])
    return row["seed"], list(PROTOCOLS).index(protocol), methods.index(row["method"])


def settings_of(protocol: str, method: str) -> dict[str, Any]:
    """Return the tuned settings; B has one table for both of its splits."""
    return TUNED[protocol[0]].get(method, {})


def folder_of(folder: Path, protocol: str, name: str, seed: int, tuned: dict[str, Any] | None = None) -> Path:
    """Return the folder of a run in ``folder``; runs of the sweep have their settings in the name."""
    swept = "".join(f"-{key}={value}" for key, value in (tuned or {}).items())
    return folder.resolve() / f"{protocol}-{name.replace(', ', '-').replace(' ', '_')}-{seed}{swept}"


def run(folder: Path, protocol: str, name: str, seed: int, size: Size, tuned: dict[str, Any]) -> Result:
    """Return the result of a run, which its folder in ``folder`` has if it is finished."""
    own = folder_of(folder, protocol, name, seed, tuned if seed == SWEPT else None)
    return run_or_resume(experiment(protocol, name, seed, size, tuned), own)


def sweep(folder: Path, protocol: str, name: str, size: Size) -> list[dict[str, Any]]:
    """Run the grid of a method, print the settings with the best score, and return a row for each setting.

    The score is the sum of the edges' mean and of the cloud's accuracy, if there is one.
    """
    rows = []
    for tuned in grid(protocol, name):
        each = row(protocol, name, SWEPT, run(folder, protocol, name, SWEPT, size, tuned))
        score = each["edges_mean"] + (each["cloud"] or 0)
        rows.append({**{key: each[key] for key in COLUMNS}, "settings": tuned, "score": score})
    best = max(rows, key=lambda each: each["score"])
    print(f'{protocol} "{name}": {best["settings"]},', [(r["settings"], round(r["score"], 4)) for r in rows])
    return rows


def main() -> None:
    """Run what is missing, or publish what is finished."""
    given, runs = selected()
    console = Console(width=110)
    before, settings, data = published("rivals")
    rows: list[dict[str, Any]] = []
    for protocol, name, seed in runs:
        size = TOY if given.toy else PRE_TRAINED_SIZE if protocol == "C" else FULL
        if given.sweep:
            rows += sweep(given.folder, protocol, name, size)
            continue
        if given.publish and not (folder_of(given.folder, protocol, name, seed) / "result.json").exists():
            continue
        result = run(given.folder, protocol, name, seed, size, settings_of(protocol, name))
        rows.append(row(protocol, name, seed, result))
        settings[f"{protocol}: {name}"] = result.provenance["settings"]
        data |= result.provenance["data"]
        if not given.publish:
            console.print({key: rows[-1][key] for key in COLUMNS}, highlight=False)
    if given.publish:
        found = {order_of(each): each for each in [*before, *rows]}
        publish("rivals", [found[key] for key in sorted(found)], settings, 0, data, COLUMNS)


if __name__ == "__main__":
    main()
