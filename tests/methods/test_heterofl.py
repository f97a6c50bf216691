"""Without their additions and at width 1, HeteroFL and FedRolex equal FedAvg; FedAvg can skip weak edges."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from sheaf.core.cut import Cut
from sheaf.core.recipe import Recipe
from sheaf.core.types import CLOUD
from sheaf.experiments import run as runs
from sheaf.experiments.config import Experiment, load_experiment
from sheaf.experiments.setup import prepare
from sheaf.merges.rules.mean import Mean
from sheaf.merges.rules.weighted_mean import WeightedMean
from sheaf.methods.fedavg import FedAvg
from sheaf.methods.fedrolex import FedRolex
from sheaf.methods.heterofl import HeteroFL

RECIPE = Recipe(batch_size=32)
METHODS = [HeteroFL, FedRolex]


def experiment(method: Any, *changes: str, model: str = "toys:DigitsCNN") -> Experiment:
    digits = ("data.limit=400", "data.limit_test=100", f"model={{name='{model}'}}", *changes)
    return replace(load_experiment("ecavg-digits", digits), method=method)


def cut_of(path: Path) -> Cut | None:
    with safe_open(path, "pt") as file:
        header = file.metadata().get("cut")
    return Cut.of(json.loads(header)) if header else None


@pytest.mark.parametrize("edges", [2, 3])
@pytest.mark.parametrize("model", ["mlp", "toys:DigitsCNN"])
@pytest.mark.parametrize("kind", METHODS)
def test_with_widths_of_one_the_result_is_that_of_fedavg(
    kind: Any, model: str, edges: int, tmp_path: Path
) -> None:
    split = f"partition.edges={edges}"
    plain = {HeteroFL: {"scaler": False, "masked": False, "static": False}, FedRolex: {}}[kind]
    merge = {HeteroFL: Mean(), FedRolex: WeightedMean()}[kind]
    average = experiment(FedAvg(rounds=3, local=RECIPE, merge=merge), split, model=model)
    submodels = experiment(kind(rounds=3, local=RECIPE, **plain), split, model=model)
    expected = runs.run(average, out=tmp_path / "fedavg")
    found = runs.run(submodels, out=tmp_path / "submodels")
    assert found.rows == expected.rows
    for file in expected.weights.values():
        one, other = (load_file(tmp_path / folder / file) for folder in ("fedavg", "submodels"))
        assert one.keys() == other.keys()
        assert all(torch.equal(value, other[name]) for name, value in one.items())
    for site, cost in expected.cost.items():
        assert found.cost[site].train_macs == cost.train_macs
        assert found.cost[site].parameters == cost.parameters


@pytest.mark.parametrize("kind", METHODS)
def test_a_weak_edge_trains_and_sends_less(kind: Any, tmp_path: Path) -> None:
    given = experiment(kind(rounds=3, local=RECIPE, static=False), "fleet.widths.edge-2=0.25")
    result = runs.run(given, out=tmp_path / "run")
    strong, weak = result.cost["edge-1"], result.cost["edge-2"]
    assert weak.macs_per_example < 0.15 * strong.macs_per_example
    assert weak.parameters < 0.2 * strong.parameters
    assert weak.bytes_sent < 0.5 * strong.bytes_sent
    prepared = prepare(given)
    cut = cut_of(tmp_path / "run" / result.weights["edge-2"])
    assert cut is not None
    assert cut.classes is None
    assert weak.train_macs == 3 * sum(result.split["edge-2"]) * prepared.network.macs(cut).train
    held = load_file(tmp_path / "run" / result.weights["edge-2"])
    whole = load_file(tmp_path / "run" / result.weights[CLOUD])
    taken = prepared.network.submodel(cut).take(whole)
    assert all(torch.equal(value, held[name]) for name, value in taken.items()), (
        "the edge ends with its sub-model of the average"
    )


def test_heterofl_never_trains_unheld_channels_and_fedrolex_trains_all(tmp_path: Path) -> None:
    widths = ("fleet.widths.edge-1=0.5", "fleet.widths.edge-2=0.25")
    touched = {}
    for kind in METHODS:
        given = experiment(kind(rounds=8, local=RECIPE, static=False), *widths)
        result = runs.run(given, out=tmp_path / kind.__name__)
        theta = prepare(given).theta["0.weight"]
        changed = load_file(tmp_path / kind.__name__ / result.weights[CLOUD])["0.weight"] != theta
        touched[kind] = changed.flatten(1).any(1).tolist()
    assert touched[HeteroFL] == [True] * 6 + [False] * 6
    assert touched[FedRolex] == [True] * 12


def test_fedavg_skips_weak_edges(tmp_path: Path) -> None:
    edges = ("partition.edges=3", "fleet.widths.edge-2=0.5")
    given = experiment(FedAvg(rounds=2, local=RECIPE, only_strong=True), *edges)
    result = runs.run(given, out=tmp_path / "run")
    everyone = runs.run(experiment(FedAvg(rounds=2, local=RECIPE), *edges), out=tmp_path / "all")
    weak = result.cost["edge-2"]
    assert weak.train_macs == 0
    assert weak.bytes_sent < 1000, "only its answer that it adopted the result"
    for site in ("edge-1", "edge-3"):
        assert result.cost[site].train_macs == everyone.cost[site].train_macs > 0
        assert weak.bytes_received < 0.5 * result.cost[site].bytes_received
    journal = (tmp_path / "run" / "journal" / "journal.jsonl").read_text().splitlines()
    trained = [line for line in journal if '"kind":"train"' in line]
    assert len(trained) == 4
    assert not any('"site":"edge-2"' in line for line in trained)
    first = next(row for row in result.rows if row.stage == "average")
    without = next(row for row in everyone.rows if row.stage == "average")
    assert first != without
