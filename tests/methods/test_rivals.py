"""FIARSE, FjORD, SCAFFOLD, FedBN and Ditto: what their papers say of whole runs, and with unequal edges."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from support import one_line

from sheaf.core.errors import SettingError
from sheaf.core.recipe import Recipe
from sheaf.core.types import CLOUD
from sheaf.experiments import run as runs
from sheaf.experiments.config import Experiment, load_experiment
from sheaf.experiments.setup import prepare
from sheaf.merges.rules.mean import Mean
from sheaf.methods.ditto import Ditto
from sheaf.methods.fedavg import FedAvg
from sheaf.methods.fedbn import FedBN
from sheaf.methods.fiarse import FIARSE
from sheaf.methods.fjord import FjORD, widths_up_to
from sheaf.methods.heterofl import HeteroFL
from sheaf.methods.scaffold import Scaffold

FULL = Recipe(batch_size=1000, optimizer="sgd", lr=0.05, momentum=0.0)
"""A step on all examples, which do not depend on the seed of a call."""
RECIPE = Recipe(batch_size=32, optimizer="sgd", lr=0.05, momentum=0.0)
UNEQUAL = ("fleet.widths.edge-1=1.0", "fleet.widths.edge-2=0.5")


def experiment(method: Any, *changes: str) -> Experiment:
    digits = ("data.limit=200", "data.limit_test=60", "model={name='toys:DigitsCNN'}", *changes)
    return replace(load_experiment("ecavg-digits", digits), method=method)


def run(method: Any, folder: Path, *changes: str) -> dict[str, dict[str, torch.Tensor]]:
    """Return site -> its final parameters."""
    result = runs.run(experiment(method, *changes), out=folder)
    return {site: load_file(folder / file) for site, file in result.weights.items()}


def assert_same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor], tolerance: float) -> None:
    for name, value in one.items():
        if value.is_floating_point():
            torch.testing.assert_close(value, other[name], rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize(
    ("method", "as_mean"),
    [
        (FIARSE(rounds=2, local=FULL), FedAvg(rounds=2, local=FULL, merge=Mean())),
        (FjORD(rounds=2, local=FULL, static=False), FedAvg(rounds=2, local=FULL)),
        (Scaffold(rounds=1, local=FULL), FedAvg(rounds=1, local=FULL, merge=Mean())),
        (Ditto(rounds=2, local=FULL), FedAvg(rounds=2, local=FULL)),
        (FedBN(rounds=1, local=FULL), FedAvg(rounds=1, local=FULL)),
    ],
    ids=["fiarse", "fjord", "scaffold", "ditto", "fedbn"],
)
def test_equal_edges_give_the_global_model_of_fedavg(method: Any, as_mean: Any, tmp_path: Path) -> None:
    """With whole models; SCAFFOLD's control variates start as zeros, FedBN's edges with one model."""
    assert_same(
        run(method, tmp_path / "own")[CLOUD], run(as_mean, tmp_path / "fedavg")[CLOUD], tolerance=1e-4
    )


def test_scaffolds_control_variates_are_the_mean_gradients(tmp_path: Path) -> None:
    """One edge, two rounds of one step: c_i is the gradient, so that c - c_i is 0 and SGD is plain."""
    one = ("partition.edges=1", "data.limit=32")
    alone = run(Scaffold(rounds=3, local=RECIPE), tmp_path / "scaffold", *one)
    plain = run(FedAvg(rounds=3, local=RECIPE), tmp_path / "fedavg", *one)
    assert_same(alone[CLOUD], plain[CLOUD], tolerance=1e-4)
    both = run(Scaffold(rounds=3, local=RECIPE), tmp_path / "two")
    without = run(FedAvg(rounds=3, local=RECIPE, merge=Mean()), tmp_path / "two without")
    assert any(not torch.allclose(both[CLOUD][name], without[CLOUD][name], atol=1e-4) for name in both[CLOUD])


def test_scaffold_counts_the_steps_that_each_edge_took(tmp_path: Path) -> None:
    """Half of two epochs is one epoch: the control variates are those of one epoch too."""
    half = run(
        Scaffold(rounds=2, local=replace(RECIPE, epochs=2)),
        tmp_path / "half",
        "fleet.work={edge-1=0.5, edge-2=0.5}",
    )
    once = run(Scaffold(rounds=2, local=RECIPE), tmp_path / "once")
    assert_same(half[CLOUD], once[CLOUD], tolerance=1e-6)


@pytest.mark.parametrize(
    ("name", "value"),
    [("optimizer", "adam"), ("momentum", 0.9), ("schedule", "cosine"), ("average_last", 0.5)],
)
def test_scaffold_refuses_recipes_whose_steps_are_not_plain(name: str, value: Any) -> None:
    with pytest.raises(SettingError) as error:
        load_experiment("ecavg-digits", ["method={name='scaffold'}", f"method.local.{name}={value}"])
    assert f"local.{name} = " in one_line(error).partition("set")[2]


def test_fedbn_leaves_each_edge_its_batch_norm(tmp_path: Path) -> None:
    ended = run(FedBN(rounds=2, local=RECIPE), tmp_path / "run")
    first, second = ended["edge-1"], ended["edge-2"]
    own = {name for name in first if not torch.equal(first[name], second[name])}
    assert own == {name for name in first if name.startswith(("1.", "4.")) and "num_batches" not in name}
    for name in own:
        mean = (first[name] + second[name]) / 2  # of as many examples
        torch.testing.assert_close(ended[CLOUD][name], mean, rtol=1e-2, atol=1e-2)


def test_dittos_personal_models_stay_near_the_global_one_with_a_strong_pull(tmp_path: Path) -> None:
    start = prepare(experiment(Ditto())).theta  # the anchor of the first round

    def distance(strength: float) -> float:
        method = Ditto(rounds=1, local=RECIPE, personal=replace(RECIPE, epochs=6), strength=strength)
        ended = run(method, tmp_path / str(strength))
        apart = [ended["edge-1"][name] - start[name] for name in ("0.weight", "8.weight")]
        return sum(float(each.square().sum()) for each in apart)

    assert distance(1e-6) > 1.5 * distance(15.0) > 0


def test_fiarses_edges_end_with_the_largest_parameters(tmp_path: Path) -> None:
    ended = run(FIARSE(rounds=2, local=RECIPE), tmp_path / "run", *UNEQUAL)
    names = [name for name in ended[CLOUD] if name[0] in "038"]  # convolutions and the classifier
    whole = torch.cat([ended[CLOUD][name].flatten() for name in names])
    weak = torch.cat([ended["edge-2"][name].flatten() for name in names])
    kept = weak != 0
    assert kept.sum().item() == len(whole) // 4
    assert torch.equal(weak[kept], whole[kept])
    assert whole[kept].abs().min() >= whole[~kept].abs().max()
    assert all(torch.equal(value, ended[CLOUD][name]) for name, value in ended["edge-1"].items())


def test_fjord_trains_wide_channels_on_wide_edges_only(tmp_path: Path) -> None:
    ended = run(FjORD(rounds=3, local=RECIPE), tmp_path / "run", *UNEQUAL)
    assert ended["edge-2"]["0.weight"].shape[0] == 6
    assert torch.equal(ended["edge-2"]["0.weight"], ended[CLOUD]["0.weight"][:6])
    start = prepare(experiment(FjORD())).theta
    assert (ended[CLOUD]["0.weight"] != start["0.weight"]).flatten(1).any(1).all()


def test_the_widths_of_a_step_are_those_up_to_the_edges() -> None:
    assert widths_up_to(0.5, (1.0, 0.25, 0.5, 0.125)) == (0.125, 0.25, 0.5)
    assert widths_up_to(0.3, (1.0, 0.25)) == (0.25, 0.3)
    assert widths_up_to(0.1, (1.0, 0.25)) == (0.1,)


def test_heterofl_estimates_batch_norm_on_all_data_of_edges_of_a_width(tmp_path: Path) -> None:
    """The first layer's statistics are those of the convolution's outputs, exactly."""
    widths = ("fleet.widths.edge-3=0.5", "partition.edges=3")
    method = HeteroFL(rounds=2, local=RECIPE)
    ended = run(method, tmp_path / "run", *widths)
    setup = prepare(experiment(method, *widths))
    mean, std = (torch.tensor(each)[:, None, None] for each in (setup.dataset.mean, setup.dataset.std))

    def outputs(site: str, *edges: str) -> torch.Tensor:
        parts = [setup.edge_samples[edge][0] for edge in edges]
        x = torch.cat([samples.inputs[samples.positions] for samples in parts]).float().div(255)
        conv = torch.conv2d((x - mean) / std, ended[site]["0.weight"], ended[site]["0.bias"])
        return conv.transpose(0, 1).flatten(1).double()

    both = ("edge-1", "edge-2")
    for site, edges in ((CLOUD, both), ("edge-1", both), ("edge-3", ("edge-3",))):
        expected = outputs(site, *edges)
        assert len(expected) == (6 if site == "edge-3" else 12)
        found = ended[site]["1.running_mean"].double(), ended[site]["1.running_var"].double()
        torch.testing.assert_close(found[0], expected.mean(1), rtol=1e-3, atol=1e-4)
        torch.testing.assert_close(found[1], expected.var(1), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("method", [Scaffold(rounds=3, local=RECIPE), Ditto(rounds=2, local=RECIPE)])
def test_edges_own_tensors_are_sent_exactly_beside_coded_parameters(method: Any, tmp_path: Path) -> None:
    coded = ("fleet.upload=int8", "fleet.download=int8", "model={name='mlp'}")
    result = runs.run(experiment(method, *coded), out=tmp_path / "coded")
    plain = runs.run(experiment(method, coded[-1]), out=tmp_path / "plain")
    assert result.refused == plain.refused == []
    assert result.cost["edge-1"].bytes_sent < 0.5 * plain.cost["edge-1"].bytes_sent
    assert result.cost[CLOUD].bytes_sent < plain.cost[CLOUD].bytes_sent
