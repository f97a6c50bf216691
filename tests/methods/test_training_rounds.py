"""One training in communication rounds: the same work, with merges in between."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file

from sheaf.codecs.bfloat16 import Bfloat16
from sheaf.codecs.float32 import Float32
from sheaf.core.dataset import Samples
from sheaf.core.recipe import Recipe
from sheaf.core.types import CLOUD
from sheaf.experiments import run as runs
from sheaf.experiments.config import Experiment
from sheaf.merges.rules.fisher import Fisher
from sheaf.methods._training_rounds import recipes_of_rounds
from sheaf.methods.ecavg_plus import ECAvgPlus
from sheaf.methods.fedavg import FedAvg
from sheaf.training.batches import Job, batches, examples_of, steps_of
from sheaf.training.preparation import Preparation

STEP = Recipe(epochs=2, batch_size=32)
PLAIN = ECAvgPlus(
    pretrain=STEP, finetune="none", retrain=STEP, share="none", restat=False, refit="none", mixtures=()
)


@given(
    rounds=st.integers(1, 40),
    epochs=st.integers(1, 8),
    work=st.floats(0.1, 1),
    examples=st.integers(1, 500),
)
def test_rounds_divide_the_work(rounds: int, epochs: int, work: float, examples: int) -> None:
    """Into nearly equal numbers of mini-batches and examples."""
    recipe = Recipe(epochs=epochs, work=work, batch_size=8)
    parts = list(recipes_of_rounds(recipe, rounds, 0))
    steps = [steps_of(each, examples) for each in parts]
    assert len(steps) == rounds
    assert max(steps) - min(steps) <= 1
    assert sum(steps) == steps_of(recipe, examples)
    assert sum(examples_of(each, examples) for each in parts) == examples_of(recipe, examples)


@given(rounds=st.integers(1, 12), epochs=st.integers(1, 4), examples=st.integers(1, 60))
def test_rounds_use_each_example_once_an_epoch(rounds: int, epochs: int, examples: int) -> None:
    prepare = Preparation((0.0,), (1.0,), torch.device("cpu"))
    samples = Samples.of(torch.zeros(examples, 1, 1, 1), torch.arange(examples))
    used = [
        label
        for n, recipe in enumerate(recipes_of_rounds(Recipe(epochs=epochs, batch_size=8), rounds, 3))
        for _, labels in batches([Job({}, samples, n)], recipe, prepare, lambda size: size)
        for label in labels.flatten().tolist()
    ]
    for epoch in range(epochs):
        assert sorted(used[epoch * examples : (epoch + 1) * examples]) == list(range(examples))


def test_rounds_follow_the_schedule_and_average_at_the_end() -> None:
    recipe = Recipe(epochs=4, lr=0.1, schedule="cosine", average_last=0.5)
    found = list(recipes_of_rounds(recipe, 4, 0))
    rates = [each.lr for each in found]
    assert rates == sorted(rates, reverse=True)
    assert {each.schedule for each in found} == {"constant"}
    assert [each.average_last for each in found] == [0, 0, 0, 0.5]


def test_one_round_is_the_recipe_itself() -> None:
    assert list(recipes_of_rounds(STEP, 1, 0)) == [STEP]


def test_rounds_of_whole_epochs_are_those_of_fedavg(quick: Experiment, tmp_path: Path) -> None:
    """ECAvg+ whose first step has R rounds averages what FedAvg does in R rounds, with plain SGD.

    A mini-batch is the whole data here: the two methods draw other orders, which change only rounding.
    """
    whole = Recipe(epochs=3, batch_size=1000, optimizer="sgd", momentum=0.0, lr=0.1)
    method = replace(PLAIN, pretrain=whole, pretrain_rounds=3, retrain=replace(STEP, epochs=0))
    ours = runs.run(replace(quick, method=method), out=tmp_path / "plus")
    other = FedAvg(rounds=3, local=replace(whole, epochs=1), merge=method.merge)
    theirs = runs.run(replace(quick, method=other), out=tmp_path / "fedavg")
    found, expected = (
        load_file(tmp_path / name / result.weights[CLOUD])
        for name, result in (("plus", ours), ("fedavg", theirs))
    )
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("optimizer", ["adam", "adamw", "sgd"])
@pytest.mark.parametrize(
    ("codec", "error"), [(Float32(), 1e-5), (Bfloat16(), 5e-3)], ids=["float32", "bfloat16"]
)
def test_rounds_of_one_edge_are_one_training(
    optimizer: str, codec: Any, error: float, quick: Experiment, tmp_path: Path
) -> None:
    """An edge continues with its own optimizer's state, the mean of one. A mini-batch is the whole data."""
    partition = replace(quick.partition, edges=[list(range(10))])
    alone = replace(quick, partition=partition, fleet=replace(quick.fleet, download=codec))
    recipe = Recipe(epochs=6, batch_size=1000, optimizer=optimizer, lr=0.02, weight_decay=0.01)  # type: ignore[arg-type]
    found = []
    for rounds in (1, 3):
        method = replace(PLAIN, pretrain=recipe, pretrain_rounds=rounds, retrain=replace(STEP, epochs=0))
        result = runs.run(replace(alone, method=method), out=tmp_path / str(rounds))
        found.append(load_file(tmp_path / str(rounds) / result.weights[CLOUD]))
    torch.testing.assert_close(found[0], found[1], rtol=1e-3, atol=error)


def test_rounds_cost_the_same_work_and_more_bytes(quick: Experiment, tmp_path: Path) -> None:
    costs = []
    for rounds in (1, 2):
        method = replace(PLAIN, pretrain_rounds=rounds)
        result = runs.run(replace(quick, method=method), out=tmp_path / str(rounds))
        edges = [cost for site, cost in result.cost.items() if site != CLOUD]
        costs.append((sum(c.train_macs for c in edges), sum(c.bytes_sent for c in edges)))
    (work, sent), (same, more) = costs
    assert same == work
    assert more > 1.4 * sent


@pytest.mark.parametrize("rounds", [0, -1])
def test_there_is_a_first_round(rounds: int) -> None:
    with pytest.raises(ValueError, match="pretrain_rounds"):
        ECAvgPlus(pretrain_rounds=rounds)


def test_a_merge_with_a_statistic_has_one_round() -> None:
    with pytest.raises(ValueError, match=r"pretrain_rounds = 2 .* another merge"):
        ECAvgPlus(pretrain_rounds=2, merge=Fisher())
    assert ECAvgPlus(merge=Fisher()).pretrain_rounds == 1
