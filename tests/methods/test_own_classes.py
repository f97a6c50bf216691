"""Edges that answer only with their own classes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from sheaf.core.errors import CutError
from sheaf.core.recipe import Recipe
from sheaf.core.types import CLOUD
from sheaf.experiments import run as runs
from sheaf.experiments.config import Experiment
from sheaf.experiments.setup import prepare
from sheaf.methods._own_classes import ABSENT
from sheaf.methods.ecavg_plus import ECAvgPlus
from sheaf.models.build import ModelSettings

STEP = Recipe(epochs=2, batch_size=32)
PLAIN = ECAvgPlus(
    pretrain=STEP, finetune="none", retrain=replace(STEP, epochs=0), share="none", restat=False,
    refit="none", mixtures=(), rounds=2,
)  # fmt: skip


def test_an_edge_answers_only_with_its_own_classes(quick: Experiment, tmp_path: Path) -> None:
    """After the last update; the cloud's model is the same as without the setting."""
    plain = runs.run(replace(quick, method=PLAIN), out=tmp_path / "plain")
    ours = runs.run(replace(quick, method=replace(PLAIN, own_classes=True)), out=tmp_path / "own")
    for edge, own in (("edge-1", range(5)), ("edge-2", range(5, 10))):
        rows = [row for row in ours.rows if (row.site, row.stage) == (edge, "after update")]
        answered = [{at for row in found.confusion for at, n in enumerate(row) if n} for found in rows]
        assert answered[0] - {*own}, "the first update leaves all classes"
        assert answered[1] <= {*own}
        final, before = ours.final(edge), plain.final(edge)
        assert final is not None
        assert before is not None
        assert final.accuracy >= before.accuracy
        weights = load_file(tmp_path / "own" / ours.weights[edge]).values()
        (bias,) = (value for value in weights if value.shape == (10,))
        assert (bias == ABSENT).tolist() == [label not in own for label in range(10)]
    first, second = (
        (tmp_path / name / run.weights[CLOUD]).read_bytes() for name, run in (("plain", plain), ("own", ours))
    )
    assert first == second


def test_edges_with_all_classes_are_as_without(quick: Experiment, tmp_path: Path) -> None:
    partition = replace(quick.partition, edges=[list(range(10))] * 2)
    weights = []
    for chosen in (False, True):
        method = replace(PLAIN, own_classes=chosen)
        result = runs.run(replace(quick, method=method, partition=partition), out=tmp_path / str(chosen))
        weights.append(load_file(tmp_path / str(chosen) / result.weights["edge-1"]))
    torch.testing.assert_close(weights[0], weights[1], rtol=0, atol=0)


def test_a_classifier_without_bias_is_refused(quick: Experiment) -> None:
    model = ModelSettings(name="toys:without_bias")
    with pytest.raises(CutError, match=r"has no bias, which method\.own_classes changes"):
        prepare(replace(quick, model=model, method=replace(PLAIN, own_classes=True)))
    prepare(replace(quick, model=model, method=PLAIN))
