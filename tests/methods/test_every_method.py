"""Every method file: it runs, repeats, resumes, and has the cost that it predicts."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from support import QUICK, lose

from sheaf.core import registry
from sheaf.core.cut import Cut
from sheaf.core.recipe import FromStatistics, Privacy, Recipe, Share
from sheaf.core.task import Task, Update
from sheaf.core.types import CLOUD
from sheaf.data.unlabelled import PublicSettings
from sheaf.experiments import run as runs
from sheaf.experiments.config import CloudSettings, Experiment, load_experiment
from sheaf.experiments.dry_run import estimate_cost
from sheaf.experiments.setup import prepare
from sheaf.merges.rules.fisher import Fisher
from sheaf.merges.rules.regmean import Regmean
from sheaf.merges.rules.regmean_plus_plus import RegmeanPlusPlus
from sheaf.methods.decoupled import Decoupled
from sheaf.methods.ecavg import ECAvg
from sheaf.methods.ecavg_plus import ECAvgPlus
from sheaf.methods.fedavg import FedAvg
from sheaf.methods.heterofl import HeteroFL
from sheaf.models.build import ModelSettings
from sheaf.runtime.journal import Journal
from sheaf.runtime.observer import NullObserver
from sheaf.runtime.result import Result
from sheaf.submodels.schemes.by_class import ByClass
from sheaf.submodels.schemes.rolling import Rolling
from sheaf.training.losses.distillation import Distillation
from sheaf.training.stack_pool import StackPool

METHODS = list(registry.describe("methods"))
"""A new file in the folder is tested from the day it exists."""

STEP = Recipe(epochs=1, batch_size=32)
SUB_MODELS = {
    "decoupled with every step": Decoupled(
        train=replace(STEP, epochs=6),
        negatives="pooled",
        share=Share(fraction=0.2),
        restat=True,
        refit=STEP,
        finetune=STEP,
        retrain=STEP,
        rounds=2,
    ),
    "decoupled with outliers": Decoupled(train=replace(STEP, epochs=12), negatives="outliers", outliers=0.3),
    "heterofl of unequal edges": HeteroFL(rounds=3, local=STEP),
    "a window that moves": HeteroFL(rounds=3, local=STEP, cut=Rolling()),
}
"""Further settings, on a network with batch norm and with edges of unequal width."""

WEIGHTED = {
    "ecavg by gram matrices": ECAvg(pretrain=STEP, finetune=STEP, retrain=STEP, rounds=2, merge=Regmean()),
    "fedavg layer by layer": FedAvg(rounds=2, local=STEP, merge=RegmeanPlusPlus(examples=20)),
    "fedavg by fisher information": FedAvg(rounds=2, local=STEP, merge=Fisher(examples=20)),
    "ecavg_plus in rounds": ECAvgPlus(pretrain=STEP, pretrain_rounds=3, finetune=STEP, retrain=STEP),
}
"""Methods whose updates carry a statistic beside the model, on the same network."""

WITHOUT_IMAGES = {
    "ecavg from statistics": ECAvg(
        pretrain=replace(STEP, epochs=6),
        share="none",
        restat=True,
        refit=FromStatistics(statistics="lda"),
        finetune="none",
        retrain=replace(STEP, epochs=6),
        rounds=2,
    ),
    "ecavg with noise": ECAvg(
        pretrain=STEP,
        share="none",
        refit=FromStatistics(statistics="lda", privacy=Privacy(epsilon=5.0)),
        finetune="none",
        retrain=STEP,
        rounds=2,
    ),
    "decoupled from statistics": Decoupled(
        train=replace(STEP, epochs=12),
        restat=True,
        refit=FromStatistics(statistics="gaussian", draws=50, train=STEP),
    ),
}
"""Methods whose cloud works on statistics of the edges, on the same network."""

DISTILLED = {
    "decoupled from its experts": Decoupled(
        train=replace(STEP, epochs=6),
        cut=ByClass(stem=1),
        negatives="outliers",
        finetune=replace(STEP, loss=Distillation()),
        retrain=STEP,
        rounds=2,
    ),
}
"""Methods whose cloud learns from the edges' models on 60 images of its own, on the same network."""


Finished = Callable[[str], tuple[Result, Path]]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """Returns the result and the folder of a method's run, which the tests share and do not change."""

    @cache
    def run(name: str) -> tuple[Result, Path]:
        folder = tmp_path_factory.mktemp("finished") / "run"
        return runs.run(experiment_of(name, load_experiment("ecavg-digits", QUICK)), out=folder), folder

    return run


def experiment_of(name: str, quick: Experiment) -> Experiment:
    """Return the method under the quick experiment's budget, or one of the methods above."""
    if name not in SUB_MODELS | WEIGHTED | WITHOUT_IMAGES | DISTILLED:
        return quick.with_method(name)
    if name in DISTILLED:
        quick = replace(quick, cloud=CloudSettings(public=PublicSettings(name="digits", limit=60)))
    fleet = replace(quick.fleet, widths={"edge-2": 0.5})
    model = ModelSettings(name="toys:DigitsCNN")
    method = (SUB_MODELS | WEIGHTED | WITHOUT_IMAGES | DISTILLED)[name]
    return replace(quick, method=method, fleet=fleet, model=model)


def cut_of(path: Path) -> Cut | None:
    """Return the cut in the header of a weights file."""
    with safe_open(path, "pt") as file:
        header = file.metadata().get("cut")
    return Cut.of(json.loads(header)) if header else None


@pytest.mark.parametrize("name", list(WITHOUT_IMAGES))
def test_no_image_leaves_an_edge_for_statistics(name: str, finished: Finished) -> None:
    result, _ = finished(name)
    rounds = getattr(prepared := result.provenance["settings"]["method"], "rounds", prepared["rounds"])
    steps = rounds * (1 + prepared["restat"])
    for edge in ("edge-1", "edge-2"):
        assert result.cost[edge].samples_sent == 0
        assert result.cost[edge].statistics_sent == steps
    noise = prepared["refit"].get("privacy")
    assert result.cost["edge-1"].epsilon == (pytest.approx(noise["epsilon"]) if noise else None)
    assert [row.site for row in result.rows if row.stage == "refitted"] == [CLOUD] * rounds


def test_the_experts_of_a_bound_model_teach_it_on_public_images(finished: Finished) -> None:
    """No image leaves an edge; each round costs a forward pass of each expert and one epoch."""
    result, _ = finished("decoupled from its experts")
    setup = prepare(experiment_of("decoupled from its experts", load_experiment("ecavg-digits", QUICK)))
    cuts = setup.experiment.method.cut(setup.network.structure, setup.needs, 0).values()
    experts = sum(setup.network.macs(cut).forward for cut in cuts)
    assert result.cost[CLOUD].train_macs == 2 * 60 * (experts + setup.network.macs().train)
    assert [result.cost[edge].samples_sent for edge in ("edge-1", "edge-2")] == [0, 0]
    assert "public digits" in result.provenance["data"]
    rows = {(row.stage, row.round): row for row in result.rows if row.site == CLOUD}
    assert rows["fine-tuned", 1].confusion != rows["bound", 1].confusion, "the averaged stem differs"


@pytest.mark.parametrize("name", ["ecavg from statistics", "decoupled from statistics"])
def test_a_classifier_from_statistics_improves_the_merged_model(name: str, finished: Finished) -> None:
    rows = {row.stage: row.accuracy for row in finished(name)[0].rows if row.round == 1}
    merged = rows.get("average", rows.get("bound"))
    assert merged is not None
    assert rows["refitted"] > merged + 0.02


@pytest.mark.parametrize("name", [*METHODS, "decoupled with every step", "decoupled with outliers"])
def test_every_edge_is_evaluated_and_ends_with_a_model(name: str, finished: Finished) -> None:
    result, folder = finished(name)
    for edge in ("edge-1", "edge-2"):
        final = result.final(edge)
        assert final is not None
        assert final.accuracy > 0.5, "twelve epochs on five classes of digits teach more than chance"
        assert (folder / result.weights[edge]).exists()
    assert Result.read(folder) == result


@pytest.mark.parametrize(
    ("name", "momentum"), [*((name, 0.9) for name in METHODS), ("fedavg", 0.0), ("decoupled", 0.0)]
)
def test_stacked_training_has_the_same_result(
    name: str, momentum: float, quick: Experiment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To 1e-4 of each parameter's norm, as the order of floating-point sums differs.

    Two pairs of edges have the same classes, so there are equal cuts to stack with any scheme.
    """
    recipe = Recipe(epochs=1, batch_size=32, optimizer="sgd", lr=0.05, momentum=momentum)
    first, second = list(range(5)), list(range(5, 10))
    partition = replace(quick.partition, edges=[first, first, second, second])
    budget = replace(
        quick, method=ECAvg(pretrain=recipe, finetune=recipe, retrain=recipe), partition=partition
    )
    experiment = budget.with_method(name)
    stacks: list[int] = []
    borrow = StackPool.stack

    def count(self: StackPool, key: Any, sites: int, device: torch.device) -> Any:
        stacks.append(sites)
        return borrow(self, key, sites, device)

    monkeypatch.setattr(StackPool, "stack", count)
    ended = {}
    for together in ("stacked", "never"):
        stacks.clear()
        fleet = replace(experiment.fleet, together=together)
        result = runs.run(replace(experiment, fleet=fleet), out=tmp_path / together)
        trains = experiment.method.budget.edge_epochs > 0
        assert (max(stacks, default=0) > 1) == (together == "stacked" and trains)
        ended[together] = {
            site: load_file(tmp_path / together / file) for site, file in result.weights.items()
        }
    assert ended["stacked"].keys() == ended["never"].keys()
    for site, params in ended["never"].items():
        for key, value in params.items():
            assert (ended["stacked"][site][key] - value).norm() <= 1e-4 * value.norm(), (site, key)


@pytest.mark.parametrize("name", [*METHODS, "decoupled with every step", "decoupled with outliers"])
def test_same_seed_same_bits(name: str, quick: Experiment, finished: Finished, tmp_path: Path) -> None:
    first, folder = finished(name)
    experiment = experiment_of(name, quick)
    second = runs.run(experiment, out=tmp_path / "same")
    other = runs.run(replace(experiment, seed=1), out=tmp_path / "other")
    assert first.rows == second.rows
    for file in first.weights.values():
        assert (folder / file).read_bytes() == (tmp_path / "same" / file).read_bytes()
        assert (folder / file).read_bytes() != (tmp_path / "other" / file).read_bytes()
    assert other.rows != first.rows


@pytest.mark.parametrize(
    "name",
    [*METHODS, *WEIGHTED, *WITHOUT_IMAGES, *DISTILLED, "decoupled with every step", "a window that moves"],
)
def test_a_run_stopped_after_any_answer_resumes_to_the_same_bits(
    name: str, quick: Experiment, finished: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    experiment = experiment_of(name, quick)
    whole, folder = finished(name)
    lines = (folder / "journal" / "journal.jsonl").read_bytes().splitlines()
    total = sum(b'"update":' in line for line in lines)
    for answers in range(1, total, max(3, total // 3)):
        stopped = tmp_path / f"stopped-{answers}"
        with monkeypatch.context() as patch:
            patch.setattr("sheaf.runtime.journal.TOGETHER", 1000.0)  # pending lines are lost
            patch.setattr(Journal, "record", sync_at(answers // 2))
            patch.setattr(Journal, "__exit__", lose)
            with pytest.raises(CrashError):
                runs.run(experiment, out=stopped, observer=Crash(answers))
        resumed = runs.resume(stopped)
        assert resumed.rows == whole.rows
        for file in whole.weights.values():
            assert (stopped / file).read_bytes() == (folder / file).read_bytes()


@pytest.mark.parametrize("name", [*METHODS, *SUB_MODELS, *WEIGHTED, *WITHOUT_IMAGES, *DISTILLED])
def test_the_dry_run_predicts_the_cost(name: str, quick: Experiment, finished: Finished) -> None:
    predicted = estimate_cost(prepare(experiment_of(name, quick))).sites
    spent = finished(name)[0].cost
    for site, cost in spent.items():
        assert predicted[site].train_macs == cost.train_macs
        assert predicted[site].bytes_received == pytest.approx(cost.bytes_received, rel=0.05, abs=600)
        # the digits of losses and seconds in the headers differ
        assert predicted[site].bytes_sent == pytest.approx(cost.bytes_sent, rel=0.05, abs=600)


@pytest.mark.parametrize("name", METHODS)
def test_the_budget_is_kept(name: str, quick: Experiment, finished: Finished) -> None:
    experiment = quick.with_method(name)
    given, kept = quick.method.budget, experiment.method.budget
    assert kept.edge_epochs + kept.cloud_epochs <= given.edge_epochs + given.cloud_epochs
    result, folder = finished(name)
    setup = prepare(experiment)
    network, method = setup.network, experiment.method
    cuts = method.cut(network.structure, setup.needs, 0) if hasattr(method, "cut") else {}
    guarded = bool(getattr(method, "mixtures", ()))  # an edge's choice is work, too
    fitted = getattr(method, "restat", False) or getattr(method, "refit", "none") != "none"
    for site in result.split:
        cut = cut_of(folder / result.weights[site])
        assert (cut or Cut()) == cuts.get(site, Cut())
        each = network.macs(cut).train
        epoch = sum(result.split[site]) * each
        trained = kept.edge_epochs * epoch
        if guarded:
            assert trained < result.cost[site].train_macs < given.edge_epochs * epoch
        else:
            assert result.cost[site].train_macs == trained
    if kept.cloud_epochs == 0:
        assert result.cost[CLOUD].train_macs == 0
    else:
        pooled = sum(sum(counts) for counts in result.split.values())
        trained = kept.cloud_epochs * pooled * network.macs().train
        if fitted:
            assert trained < result.cost[CLOUD].train_macs < 1.5 * trained
        else:
            assert result.cost[CLOUD].train_macs == trained


@pytest.mark.parametrize("name", [*METHODS, *SUB_MODELS])
def test_the_files_of_edges_have_their_cuts(name: str, quick: Experiment, finished: Finished) -> None:
    result, folder = finished(name)
    setup = prepare(experiment_of(name, quick))
    for site in result.split:
        cut = cut_of(folder / result.weights[site])
        with safe_open(folder / result.weights[site], "pt") as file:
            params = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118  # no mapping
        module = setup.network.of(cut)
        module.load_state_dict(params)
        assert result.cost[site].parameters == sum(value.numel() for value in params.values())
        assert result.cost[site].macs_per_example == setup.network.macs(cut).forward
    if CLOUD in result.weights:
        assert cut_of(folder / result.weights[CLOUD]) is None


class CrashError(Exception):
    """Stands for a crash of the process."""


class Crash(NullObserver):
    """Stops a run after ``answers`` answers."""

    def __init__(self, answers: int) -> None:
        self._left = answers

    def answered(self, site: str) -> None:
        self._left -= 1
        if not self._left:
            raise CrashError


def sync_at(answer: int) -> Callable[..., Update]:
    """Return ``Journal.record`` that also syncs the pending lines at that answer."""
    record, count = Journal.record, itertools.count(1)

    def recorded(journal: Journal, task: Task, update: Update, flaw: str | None = None) -> Update:
        kept = record(journal, task, update, flaw)
        if next(count) == answer:
            journal.settle()
        return kept

    return recorded


def test_ecavg_has_the_rows_of_the_paper(finished: Finished) -> None:
    result, _ = finished("ecavg")
    stages = {
        site: [row.stage for row in result.rows if row.site == site] for site in ("edge-1", "edge-2", CLOUD)
    }
    assert stages["edge-1"] == stages["edge-2"] == ["before update", "after update", "after retraining"]
    assert stages[CLOUD] == ["average", "averaged weights", "initial weights"]


def test_the_reference_is_not_counted(quick: Experiment, finished: Finished, tmp_path: Path) -> None:
    method = replace(quick.method, reference=False)
    without = runs.run(replace(quick, method=method), out=tmp_path / "without")
    with_reference, _ = finished("ecavg")
    assert without.cost[CLOUD].train_macs == with_reference.cost[CLOUD].train_macs
    assert [row for row in with_reference.rows if row.stage != "initial weights"] == without.rows


def test_several_rounds_average_the_retrained_models(quick: Experiment, tmp_path: Path) -> None:
    twice = replace(quick, method=replace(quick.method, rounds=2))
    result = runs.run(twice, out=tmp_path / "run")
    assert [row.round for row in result.rows if row.stage == "average"] == [1, 2]
    lines = (tmp_path / "run" / "journal" / "journal.jsonl").read_text().splitlines()[1:]
    trained = [
        json.loads(line[9:]) for line in lines if '"kind":"train"' in line and '"site":"edge-1"' in line
    ]
    # pretrain and the first retrain are sent up to be averaged, the last retrain is not
    assert [entry["blob"] is not None for entry in trained] == [True, True, False]
