"""Decoupled training end to end: binding loses nothing, and each step is optional."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from support import one_line
from torch import Tensor

from sheaf.core.cut import Cut
from sheaf.core.errors import SettingError
from sheaf.core.recipe import Recipe, Share
from sheaf.core.task import Task, Update
from sheaf.core.tensor_file import Blob
from sheaf.core.types import CLOUD, Params
from sheaf.core.wire_format import decode_samples
from sheaf.experiments import run as runs
from sheaf.experiments.config import Experiment, load_experiment
from sheaf.experiments.setup import ExperimentSetup, prepare
from sheaf.fleets.local.fleet import LocalFleet
from sheaf.methods.decoupled import Decoupled
from sheaf.runtime.result import Result
from sheaf.submodels.dependency_graph import trace
from sheaf.submodels.schemes.by_class import ByClass
from sheaf.submodels.submodel import SubModel

RECIPE = Recipe(epochs=3, batch_size=32)
SHORT = Recipe(epochs=1, batch_size=32)
EDGES = ("edge-1", "edge-2")


def experiment(model: str = "mlp", changes: tuple[str, ...] = (), **settings: Any) -> Experiment:
    digits = ("data.limit=400", "data.limit_test=100", f"model={{name='{model}'}}", *changes)
    method = Decoupled(**{"train": RECIPE} | settings)
    return replace(load_experiment("ecavg-digits", digits), method=method)


def submodel_of(folder: Path, site: str, prepared: ExperimentSetup) -> SubModel:
    """Return a site's final sub-model, from its file alone."""
    with safe_open(folder / "weights" / f"{site}.safetensors", "pt") as file:
        cut = Cut.of(json.loads(file.metadata()["cut"]))
    return trace(prepared.network.model, prepared.dataset.shape).submodel(cut)


def logits(module: torch.nn.Module, params: Params, x: Tensor) -> Tensor:
    module.load_state_dict(params)
    with torch.no_grad():
        return module.eval()(x)


@pytest.mark.parametrize("negatives", ["none", "outliers"])
@pytest.mark.parametrize("edges", [2, 3])
@pytest.mark.parametrize(("model", "stem"), [("mlp", 0), ("toys:DigitsCNN", 0), ("toys:DigitsCNN", 1)])
def test_nothing_is_lost_in_the_harvest(
    model: str, stem: int, edges: int, negatives: str, tmp_path: Path
) -> None:
    """The bound model's logits for a device's classes are those of the device (less its "other").

    Either the devices have no stem in common, or one that none of them trains.
    """
    changes = (f"partition.edges={edges}", f"model.frozen={stem}")
    given = experiment(model, changes, negatives=negatives, cut=ByClass(stem=stem))
    result = runs.run(given, out=tmp_path / "run")
    prepared = prepare(given)
    images = prepared.dataset.test.inputs.float() / 16
    bound = logits(prepared.network.model, load_file(tmp_path / "run" / result.weights[CLOUD]), images)
    seen: list[int] = []
    for site, counts in result.split.items():
        submodel = submodel_of(tmp_path / "run", site, prepared)
        assert submodel.classes == tuple(k for k, count in enumerate(counts) if count)
        own = logits(submodel.module(), load_file(tmp_path / "run" / result.weights[site]), images)
        if negatives != "none":
            own = own[:, :-1] - own[:, -1:]
        off = (bound[:, submodel.classes] - own).abs().max() / own.abs().max()
        assert off < 1e-5
        assert own.std() > 0.1, "the logits vary"
        seen += submodel.classes
    assert sorted(seen) == list(range(10)), "every class is on one device"


def test_a_shared_stem_becomes_the_plain_mean(tmp_path: Path) -> None:
    given = experiment("toys:DigitsCNN", ("partition.edges=3",), cut=ByClass(stem=1))
    result = runs.run(given, out=tmp_path / "run")
    prepared = prepare(given)
    stems = []
    assert len({sum(counts) for counts in result.split.values()}) > 1, "not weighted by examples"
    for site in result.split:
        assert "0" not in dict(submodel_of(tmp_path / "run", site, prepared).cut.kept)
        stems.append(load_file(tmp_path / "run" / result.weights[site])["0.weight"].double())
    bound = load_file(tmp_path / "run" / result.weights[CLOUD])["0.weight"]
    torch.testing.assert_close(bound, (sum(stems) / 3).float())
    assert not torch.equal(stems[0], stems[1])


STEPS = {
    "restat": ({"restat": True}, ["new statistics"]),
    "refit": ({"refit": SHORT}, ["refitted"]),
    "finetune": ({"finetune": SHORT}, ["fine-tuned"]),
    "retrain": ({"retrain": SHORT}, ["after update", "after retraining"]),
}
ORDER = ["apart", "bound", "new statistics", "refitted", "fine-tuned", "after update", "after retraining"]


@pytest.mark.parametrize("left_out", [*STEPS, "none", "all"])
def test_each_step_is_optional_and_has_its_row(left_out: str, tmp_path: Path) -> None:
    taken = [] if left_out == "all" else [step for step in STEPS if step != left_out]
    settings = {key: value for step in taken for key, value in STEPS[step][0].items()}
    result = runs.run(
        experiment("toys:DigitsCNN", share=Share(fraction=0.2), **settings), out=tmp_path / "run"
    )
    rows = ["apart", "bound"] + [row for step in taken for row in STEPS[step][1]]
    assert list(dict.fromkeys(row.stage for row in result.rows)) == [row for row in ORDER if row in rows]
    at_edges = ("apart", "after update", "after retraining")
    for row in rows:
        sites = [found.site for found in result.rows if found.stage == row]
        assert sites == (list(EDGES) if row in at_edges else [CLOUD])
    cloud_work = result.cost[CLOUD].train_macs
    assert (cloud_work > 0) == bool({"restat", "refit", "finetune"} & set(taken))
    if "retrain" not in taken:
        assert result.final("edge-1").stage == "apart"  # type: ignore[union-attr]


def test_rounds_without_retrain_are_refused() -> None:
    with pytest.raises(SettingError, match="method: rounds above 1 need retrain"):
        load_experiment("ecavg-digits", ("method=decoupled", "method.rounds=2"))


def test_rounds_continue_from_the_bound_model(tmp_path: Path) -> None:
    given = experiment(rounds=3, retrain=SHORT)
    result = runs.run(given, out=tmp_path / "run")
    stages = [(row.stage, row.round) for row in result.rows if row.site in (CLOUD, "edge-1")]
    each = ["bound", "after update", "after retraining"]
    assert stages == [("apart", 1), *((stage, n) for n in (1, 2, 3) for stage in each)]
    bound = [row.loss for row in result.rows if row.stage == "bound"]
    assert bound[0] > bound[-1]
    examples = sum(result.split["edge-1"])
    prepared = prepare(given)
    submodel = prepared.network.macs(submodel_of(tmp_path / "run", "edge-1", prepared).cut)
    assert result.cost["edge-1"].train_macs == (3 + 3 * 1) * examples * submodel.train


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, Task, Update]]:
    """Every task of an edge, with its answer."""
    pairs: list[tuple[str, Task, Update]] = []
    ask: Callable[..., Any] = LocalFleet.run

    def run(self: LocalFleet, tasks: dict[str, Task], call: dict[str, Task] | None = None) -> Any:
        for update in ask(self, tasks, call):
            pairs.append((update.site, tasks[update.site], update))
            yield update

    monkeypatch.setattr(LocalFleet, "run", run)
    return pairs


def test_pooled_negatives_go_up_and_down_and_are_counted(
    tmp_path: Path, answers: list[tuple[str, Task, Update]]
) -> None:
    none = runs.run(experiment(), out=tmp_path / "none")
    answers.clear()
    pooled = runs.run(experiment(negatives="pooled", share=Share(fraction=0.25)), out=tmp_path / "pooled")
    shared = {site: update.blob for site, _, update in answers if update.kind == "share"}
    lent = {site: task.blob for site, task, _ in answers if task.kind == "lend"}
    trained = {site: task for site, task, _ in answers if task.kind == "train"}
    assert set(shared) == set(lent) == set(EDGES)
    for site, other in zip(EDGES, reversed(EDGES), strict=True):
        up, down = shared[site], lent[site]
        assert isinstance(up, Blob)
        assert isinstance(down, Blob)
        count = round(0.25 * sum(pooled.split[site]))
        assert len(decode_samples(up)) == count
        own = {k for k, examples in enumerate(pooled.split[site]) if examples}
        labels = decode_samples(down).labels
        assert not own & set(labels.tolist()), "no sample of a class of its own"
        assert len(labels) == round(0.25 * sum(pooled.split[other])), "all of the other's were lent"
        for direction, blob in (("bytes_sent", up), ("bytes_received", down)):
            more = getattr(pooled.cost[site], direction) - getattr(none.cost[site], direction)
            assert blob.size < more < blob.size + 2500, "samples, an 'other' row, two headers"
        macs = prepare(experiment()).network.macs(trained[site].cut).train
        examples = sum(pooled.split[site]) + len(labels)
        assert pooled.cost[site].train_macs == RECIPE.epochs * examples * macs
        assert trained[site].cut is not None
        assert trained[site].cut.other
    cloud = pooled.cost[CLOUD]
    assert cloud.bytes_sent == sum(pooled.cost[site].bytes_received for site in EDGES)
    assert cloud.bytes_received == sum(pooled.cost[site].bytes_sent for site in EDGES)
    assert cloud.train_macs == 0


def test_outliers_are_trained_but_not_sent(tmp_path: Path) -> None:
    none = runs.run(experiment(), out=tmp_path / "none")
    made = runs.run(experiment(negatives="outliers", outliers=0.5), out=tmp_path / "made")
    for site in EDGES:
        assert abs(made.cost[site].bytes_sent - none.cost[site].bytes_sent) < 600
        assert 1.5 < made.cost[site].train_macs / none.cost[site].train_macs < 1.6


def test_a_share_alone_changes_only_bytes(tmp_path: Path) -> None:
    alone = runs.run(experiment(), out=tmp_path / "alone")
    shared = runs.run(experiment(share=Share(fraction=0.25)), out=tmp_path / "shared")
    for site in EDGES:
        assert shared.cost[site].train_macs == alone.cost[site].train_macs
        assert shared.cost[site].bytes_sent > alone.cost[site].bytes_sent
        assert shared.cost[site].bytes_received - alone.cost[site].bytes_received < 500


@pytest.mark.parametrize(
    ("key", "value"),
    [("negatives", "pooled"), ("refit.epochs", "1"), ("finetune.epochs", "1")],
)
def test_a_step_that_needs_a_pool_is_refused_without_one(key: str, value: str) -> None:
    changes = ("method=decoupled", f"method.{key}={value}")
    with pytest.raises(SettingError, match=r"pool of samples") as error:
        load_experiment("ecavg-digits", changes)
    assert "share" in one_line(error)
    given = load_experiment("ecavg-digits", (*changes, "method.share.fraction=0.1"))
    assert given.method.share == Share(fraction=0.1)


def test_none_turns_a_step_off_and_a_change_turns_it_on() -> None:
    changes = ("method=decoupled", "method.share.fraction=0.1")
    assert load_experiment("ecavg-digits", (*changes, "method.refit=none")).method.refit == "none"
    on = load_experiment("ecavg-digits", (*changes, "method.refit=none", "method.refit.epochs=2"))
    assert on.method.refit == Recipe(epochs=2)
    assert load_experiment("decoupled-kws", ("method.refit=none",)).method.refit == "none"


def unequal(result: Result) -> list[float]:
    return [result.cost[site].macs_per_example / result.cost[CLOUD].macs_per_example for site in EDGES]


def test_unequal_widths_make_unequal_sub_models(tmp_path: Path) -> None:
    widths = ("fleet.widths.edge-1=0.25", "fleet.widths.edge-2=0.75")
    given = experiment("toys:DigitsCNN", widths, cut=ByClass(by="width"))
    result = runs.run(given, out=tmp_path / "run")
    weak, strong = unequal(result)
    assert weak < 0.15 < 0.5 < strong
    prepared = prepare(given)
    kept = [dict(submodel_of(tmp_path / "run", site, prepared).cut.kept) for site in EDGES]
    assert [cut["0"] for cut in kept] == [((0, 3),), ((3, 12),)]
    assert [cut["3"] for cut in kept] == [((0, 5),), ((5, 20),)]
    for site in EDGES:
        submodel = submodel_of(tmp_path / "run", site, prepared)
        assert result.cost[site].parameters == sum(
            value.numel() for value in submodel.take(prepared.theta).values()
        )
    equal = runs.run(experiment("toys:DigitsCNN", widths), out=tmp_path / "by-classes")
    assert unequal(equal)[0] == unequal(equal)[1]
