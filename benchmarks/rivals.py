"""Compare ECAvg and decoupled training with their rivals, as published, under one budget of edge work.

Protocol A: label skew, ten equal edges with two shards of CIFAR-10 each. Protocol B: eight unequal edges,
two each with 1, 1/4, 1/16 and 1/64 of the parameters (widths 1, 1/2, 1/4 and 1/8), iid or Dirichlet 0.3.
Protocol C: ECAvg's first experiment with an ImageNet network, two edges of five classes. 10,000 training and
2,000 test images, and a small network: a run of A or B takes minutes on one thread.

Every method trains each edge for the same number of epochs. ``edges_mean`` and ``worst_edge`` are accuracies
on the edges' own classes, ``cloud`` on all; ``bytes`` are sent by all sites; ``saved_weakest`` is the
multiply-adds per image of the whole model over those of the weakest edge's model; ``curve`` is the cloud's
accuracy by round.

Run: SHEAF_DATA=… OMP_NUM_THREADS=1 python -m benchmarks.rivals FOLDER [--protocols A,B-iid,B-dirichlet,C]
[--methods "NAME;…"] [--seeds 0,1,2] [--toy] [--publish]
Runs one method and seed at a time. Finished runs in FOLDER are read, so that an interrupted benchmark
continues; --publish writes rivals.json from the finished runs of the named ones, without running any.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import Console
from torch import nn

from benchmarks.results import publish
from sheaf.core.recipe import FromStatistics, Recipe, Share
from sheaf.core.types import CLOUD
from sheaf.experiments.compare import run_or_resume, summarise
from sheaf.experiments.config import Experiment, load_experiment
from sheaf.methods.central import Central
from sheaf.methods.decoupled import Decoupled
from sheaf.methods.ditto import Ditto
from sheaf.methods.ecavg import ECAvg
from sheaf.methods.ecavg_plus import ECAvgPlus
from sheaf.methods.fedadam import FedAdam
from sheaf.methods.fedavg import FedAvg
from sheaf.methods.fedavgm import FedAvgM
from sheaf.methods.fedbn import FedBN
from sheaf.methods.fedprox import FedProx
from sheaf.methods.fedrolex import FedRolex
from sheaf.methods.fiarse import FIARSE
from sheaf.methods.fjord import FjORD
from sheaf.methods.heterofl import HeteroFL
from sheaf.methods.local import Local
from sheaf.methods.scaffold import Scaffold
from sheaf.runtime.result import Result
from sheaf.submodels.schemes.prefix import Prefix

TIERS = (1.0, 0.5, 0.25, 0.125)
EDGES = 8
TENTH = Share(fraction=0.1)
COLUMNS = ("protocol", "method", "seed", "edges_mean", "worst_edge", "cloud", "bytes", "images_sent")


class SmallCNN(nn.Sequential):
    """Three convolutions with batch norm for 3x32x32: 2.8M multiply-adds, 24,000 parameters."""

    def __init__(self, num_classes: int) -> None:
        layers: list[nn.Module] = []
        for before, channels in ((3, 16), (16, 32), (32, 64)):
            conv = nn.Conv2d(before, channels, 3, padding=1)
            layers += [conv, nn.BatchNorm2d(channels), nn.ReLU(), nn.MaxPool2d(2)]
        super().__init__(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, num_classes))


@dataclass(frozen=True)
class Size:
    """The size of the runs.

    Attributes:
        images: training images of all edges.
        test: test images.
        epochs: edge epochs of a run, at least 4.
    """

    images: int
    test: int
    epochs: int


FULL, TOY = Size(10_000, 2_000, 20), Size(400, 100, 4)

Methods = dict[str, Callable[[int, Recipe], Any]]
"""Name -> the method for a number of edge epochs and a recipe."""


def _ours(epochs: int, recipe: Recipe, **changes: Any) -> ECAvg:
    """Return ECAvg in rounds of one epoch on each edge."""
    one = replace(recipe, epochs=1)
    return ECAvg(pretrain=one, retrain=one, rounds=epochs - 1, reference=False, **changes)


def _rounds(kind: Any, **changes: Any) -> Callable[[int, Recipe], Any]:
    """Return a method in rounds of one epoch on each edge."""
    return lambda epochs, recipe: kind(rounds=epochs, local=replace(recipe, epochs=1), **changes)


def _scaffold(epochs: int, recipe: Recipe) -> Scaffold:
    plain = replace(recipe, epochs=1, lr=2 * recipe.lr, momentum=0.0)
    return Scaffold(rounds=epochs, local=plain)


def _ditto(epochs: int, recipe: Recipe) -> Ditto:
    one = replace(recipe, epochs=1)
    return Ditto(rounds=epochs // 2, local=one, personal=one)


def _plus(epochs: int, recipe: Recipe, share: Share) -> ECAvgPlus:
    return ECAvgPlus(
        pretrain=replace(recipe, epochs=epochs // 2),
        finetune=replace(recipe, epochs=epochs // 2),
        retrain=replace(recipe, epochs=epochs - epochs // 2),
        share=share,
        mixtures=(),
    )


LDA = FromStatistics(statistics="lda")
NO_IMAGES: dict[str, Any] = {"share": "none", "finetune": "none", "refit": LDA, "restat": True}

EQUAL: Methods = {
    "ecavg, all images": lambda e, r: _ours(e, r, finetune=replace(r, epochs=1)),
    "ecavg, a tenth": lambda e, r: _ours(e, r, finetune=replace(r, epochs=1), share=TENTH),
    "ecavg, no images": lambda e, r: _ours(e, r, **NO_IMAGES),
    "ecavg_plus, a tenth": lambda e, r: _plus(e, r, TENTH),
    "fedavg": _rounds(FedAvg),
    "fedprox": _rounds(FedProx),
    "fedavgm": _rounds(FedAvgM, momentum=0.5),
    "fedadam": _rounds(FedAdam),
    "scaffold": _scaffold,
    "fedbn": _rounds(FedBN),
    "ditto": _ditto,
    "local": lambda e, r: Local(train=replace(r, epochs=e)),
    "central": lambda e, r: Central(train=replace(r, epochs=e)),
}


def _decoupled(epochs: int, recipe: Recipe, **changes: Any) -> Decoupled:
    one = replace(recipe, epochs=1)
    return Decoupled(train=one, retrain=one, rounds=epochs - 1, cut=Prefix(), **changes)


UNEQUAL: Methods = {
    "decoupled, prefix": _decoupled,
    "decoupled, prefix, refit from statistics": lambda e, r: _decoupled(e, r, refit=LDA),
    "decoupled, prefix, a tenth": lambda e, r: _decoupled(e, r, share=TENTH, finetune=replace(r, epochs=1)),
    "heterofl": _rounds(HeteroFL),
    "fedrolex": _rounds(FedRolex),
    "fjord": _rounds(FjORD),
    "fiarse": _rounds(FIARSE),
    "fedavg, strong edges": _rounds(FedAvg, only_strong=True),
    "fedavg, all edges": _rounds(FedAvg),
}

PRE_TRAINED: Methods = {
    "ecavg_plus, all images": lambda e, r: _plus(e, r, Share()),
    "ecavg, no images": lambda e, r: ECAvg(
        pretrain=replace(r, epochs=e // 2),
        retrain=replace(r, epochs=e - e // 2),
        reference=False,
        **NO_IMAGES,
    ),
    "fedavg": _rounds(FedAvg),
    "fedprox": _rounds(FedProx),
    "scaffold": _scaffold,
    "fedbn": _rounds(FedBN),
    "ditto": _ditto,
}

PROTOCOLS: dict[str, tuple[Methods, tuple[str, ...]]] = {
    "A": (EQUAL, ("partition={name='shards', edges=10}",)),
    "B-iid": (UNEQUAL, (f"partition={{name='iid', edges={EDGES}}}",)),
    "B-dirichlet": (UNEQUAL, (f"partition={{name='dirichlet', edges={EDGES}, alpha=0.3}}",)),
    "C": (PRE_TRAINED, ()),
}


def experiment(protocol: str, name: str, seed: int, size: Size) -> Experiment:
    """Return the experiment of a method."""
    methods, changes = PROTOCOLS[protocol]
    limits = (f"data.limit={size.images}", f"data.limit_test={size.test}", "fleet.threads=1", f"seed={seed}")
    if protocol == "C":
        base = load_experiment("ecavg-cifar10-lite0", limits)
        recipe = replace(base.method.pretrain, epochs=1)
        return replace(base, method=methods[name](6, recipe))
    own = ("model={name='benchmarks.rivals:SmallCNN'}", *changes)
    base = load_experiment("ecavg-cifar10", (*own, *limits))
    widths = {f"edge-{n + 1}": TIERS[n * len(TIERS) // EDGES] for n in range(EDGES)}
    fleet = replace(base.fleet, widths=widths) if protocol.startswith("B") else base.fleet
    recipe = Recipe(batch_size=32, optimizer="sgd", lr=0.05)
    return replace(base, method=methods[name](size.epochs, recipe), fleet=fleet)


def row(protocol: str, name: str, seed: int, result: Result) -> dict[str, Any]:
    """Return the row of a run."""
    summary = summarise(name, [result], 1)
    curve = [each.accuracy for each in result.rows if each.site == CLOUD]
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
        "curve": curve,
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
    parser.add_argument("--publish", action="store_true")
    given = parser.parse_args()
    protocols, names = given.protocols.split(","), [name for name in given.methods.split(";") if name]
    for unknown in {*protocols} - PROTOCOLS.keys():
        parser.error(f"unknown protocol {unknown!r}; there are: {', '.join(PROTOCOLS)}")
    for unknown in {*names} - {name for methods, _ in PROTOCOLS.values() for name in methods}:
        parser.error(f"unknown method {unknown!r}; the protocols list them in this file")
    runs = (
        (protocol, name, int(seed))
        for seed in given.seeds.split(",")
        for protocol in protocols
        for name in PROTOCOLS[protocol][0]
        if not names or name in names
    )
    return given, runs


def main() -> None:
    """Run what is missing, or publish what is finished."""
    given, runs = selected()
    console, size = Console(width=110), TOY if given.toy else FULL
    rows: list[dict[str, Any]] = []
    settings: dict[str, Any] = {}
    data: dict[str, str] = {}
    for protocol, name, seed in runs:
        folder = given.folder.resolve() / f"{protocol}-{name.replace(', ', '-').replace(' ', '_')}-{seed}"
        if given.publish and not (folder / "result.json").exists():
            continue
        result = run_or_resume(experiment(protocol, name, seed, size), folder)
        rows.append(row(protocol, name, seed, result))
        settings[f"{protocol}: {name}"] = result.provenance["settings"]
        data |= result.provenance["data"]
        if not given.publish:
            console.print({key: rows[-1][key] for key in COLUMNS}, highlight=False)
    if given.publish:
        publish("rivals", rows, settings, 0, data, COLUMNS)


if __name__ == "__main__":
    main()
