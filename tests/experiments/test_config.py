"""Experiments from files and ``--set``; every error is one line."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import one_line

from sheaf.core import registry
from sheaf.core.errors import SettingError, SheafError, UnknownNameError
from sheaf.core.recipe import Recipe
from sheaf.data.partitions.classes import Classes
from sheaf.data.partitions.iid import IID
from sheaf.data.unlabelled import PublicSettings
from sheaf.experiments.config import load_experiment, shipped
from sheaf.merges.rules.mean import Mean
from sheaf.merges.rules.weighted_mean import WeightedMean
from sheaf.methods.ecavg import ECAvg
from sheaf.methods.fedavg import FedAvg


def load(*changes: str) -> Any:
    return load_experiment("ecavg-digits", changes)


def test_shipped_experiments_have_titles() -> None:
    assert "ecavg-digits" in shipped()
    assert all(shipped().values())


def test_changes_reach_every_depth() -> None:
    changed = load(
        "seed=7",
        "title=two words, and = in them",
        "method.pretrain.epochs=3",
        "method.finetune.augment=['flip', 'crop']",
        "model.options.hidden=16",
        "data.size=[4, 5]",
        "fleet.quorum=1",
        "partition.edges={kitchen = [0, 1], hall = [2, '3']}",
    )
    assert changed.seed == 7
    assert changed.title == "two words, and = in them"
    assert changed.method.pretrain == Recipe(epochs=3, batch_size=32)
    assert changed.method.finetune.augment == ("flip", "crop")
    assert changed.method.retrain == load().method.retrain
    assert changed.model.options == {"hidden": 16}
    assert changed.data.size == (4, 5)
    assert changed.fleet.quorum == 1.0
    assert changed.partition == Classes(edges={"kitchen": (0, 1), "hall": (2, "3")})


def test_the_last_change_wins() -> None:
    assert load("seed=1", "seed=2").seed == 2


def test_an_empty_value_removes_a_key() -> None:
    assert load("method.pretrain.batch_size=").method.pretrain == Recipe(epochs=20)
    assert load("method.pretrain=").method.pretrain == ECAvg().pretrain
    assert load("seed=").seed == 0, "removing a missing key is allowed"
    with pytest.raises(SettingError, match="method is missing"):
        load("method=")


def test_a_table_gives_another_method_its_own_defaults() -> None:
    changes = ("method={name = 'fedavg'}", "method.rounds=3", "method.local.epochs=2")
    assert load(changes[0]).method == FedAvg()
    assert load(*changes).method == FedAvg(rounds=3, local=Recipe(epochs=2))


@pytest.mark.parametrize("key", ["method", "method.name"])
@pytest.mark.parametrize("name", registry.describe("methods"))
def test_another_method_keeps_recipe_and_budget(name: str, key: str) -> None:
    changes = (
        "method.rounds=2",
        "method.pretrain={epochs=6, lr=0.5, batch_size=8}",
        "method.retrain.epochs=3",
    )
    own = load(*changes).method.budget
    changed = load(*changes, f"{key}={name}")
    epochs = changed.method.budget.edge_epochs + changed.method.budget.cloud_epochs
    kept = replace(changed.method.budget.recipe, epochs=0)
    if name == "scaffold":  # trains by SGD without momentum
        kept = replace(kept, optimizer=own.recipe.optimizer, lr=own.recipe.lr, momentum=own.recipe.momentum)
    assert kept == replace(own.recipe, epochs=0)
    if name == "central":
        assert epochs == own.edge_epochs + own.cloud_epochs
    else:
        guard = name == "ecavg_plus" and key == "method"  # costs about one epoch
        assert changed.method.budget.edge_epochs == own.edge_epochs - guard
    if key == "method":
        assert changed.method == load(*changes).with_method(name).method
    assert changed.title == load().title + (f"; method changed to {name}" if name != "ecavg" else "")
    assert load(f"{key}={name}", "method=local").title == load().title + "; method changed to local"


def test_a_changed_method_takes_further_changes() -> None:
    method = load("method=fedavg", "method.rounds=3").method
    assert method == FedAvg(rounds=3, local=replace(load().method.pretrain, epochs=1))


def test_other_plugins() -> None:
    assert load().method.merge == Mean()
    assert load("method.merge=weighted_mean").method.merge == WeightedMean()
    assert load("method.merge.name=weighted_mean").method.merge == WeightedMean()
    assert load("partition=iid", "partition.sizes=[2, 1]").partition == IID(sizes=(2.0, 1.0))
    assert load("data=mnist", "model=vgg16").data.name == "mnist"
    assert load("method=sheaf.methods.fedavg:FedAvg").method == load("method=fedavg").method


def test_another_name_keeps_the_common_settings() -> None:
    guarded = load("method.name=ecavg_plus", "data.held_out=0.1").method
    assert guarded.retrain == load().method.retrain
    assert load("partition.edges=5", "partition.name=iid").partition.edges == 5


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("foo", "--set foo: write key=value, such as method.pretrain.epochs=3"),
        ("", "--set : write key=value"),
        ("=3", "--set =3: write key=value"),
        ("a..b=3", "--set a..b=3: write key=value"),
        (".seed=3", "--set .seed=3: write key=value"),
        ("seed.=3", "--set seed.=3: write key=value"),
        ("method.pretrain.epochs.x=3", "method.pretrain.epochs.x = 3: epochs is 20, which has no keys"),
        ("sed=1", "unknown key sed (did you mean 'seed'?); allowed: title, seed, data, partition"),
        (
            "fleet.devic=cpu",
            "unknown key fleet.devic (did you mean 'device'?); allowed: quorum, deadline, widths, work",
        ),
        (
            "method.pretrain.epoch=1",
            "unknown key method.pretrain.epoch (did you mean 'epochs'?); allowed: ep",
        ),
        ("model.hidden=64", "unknown key model.hidden; allowed: name, weights, frozen, options"),
        ("seed=abc", "seed = 'abc': input should be a valid integer"),
        ("seed=1e3", "seed = 1000.0: input should be a valid integer"),
        ("seed=-1", "seed = -1: input should be greater than or equal to 0"),
        ("seed=2020-01-01", "seed = '2020-01-01': input should be a valid integer"),
        ("seed=true", "seed = True: input should be a valid integer"),
        ("seed={x = 3}", "seed = {'x': 3}: input should be a valid integer"),
        ("method.pretrain.epochs='3'", "method.pretrain.epochs = '3': input should be a valid integer"),
        ("method.pretrain.lr=nan", "method.pretrain.lr = nan: input should be a finite number"),
        ("method.pretrain.lr=-inf", "method.pretrain.lr = -inf: input should be a finite number"),
        ("method.pretrain.lr=0", "method.pretrain.lr = 0: input should be greater than 0"),
        (
            "method.pretrain.optimizer=rmsprop",
            "method.pretrain.optimizer = 'rmsprop': input should be 'sgd', 'ad",
        ),
        ("method.pretrain.augment=['flop']", "method.pretrain.augment.0 = 'flop': input should be 'flip' or"),
        ("method.pretrain.augment=flip", "method.pretrain.augment = 'flip': input should be a valid array"),
        ("method.pretrain=3", "method.pretrain = 3: input should be an object"),
        (
            "method.pretrain.loss={name='restricted_softmax', alpha=2}",
            "method.pretrain.loss.alpha = 2: input should be less than or equal to 1",
        ),
        ("method.share.fraction=1.5", "method.share.fraction = 1.5: input should be less than or equal to 1"),
        (
            "method.merge.x=3",
            "method.merge = {'x': 3}: give a name or a table with one; there are: aligned, ",
        ),
        ("method.merge={name='mean', x=3}", "unknown key method.merge.x; allowed: "),
        ("method=3", "method = 3: give a name or a table with one; there are: central, decoupled, ditto"),
        ("method=[]", "method = []: give a name or a table with one; there are: "),
        ("method=fedvag", "no method is named 'fedvag' (did you mean 'fedavg'?); there are: central"),
        ("partition=idd", "no partition is named 'idd' (did you mean 'iid'?); there are: classes"),
        (
            "method.merge=men",
            "no merge is named 'men' (did you mean 'mean'?); there are: aligned, by_class, fisher",
        ),
        ("method=json:nothing", "method 'json:nothing' cannot be imported: module 'json' has no attribute"),
        ("method=no_such_module:X", "method 'no_such_module:X' cannot be imported: No module named 'no_such"),
        (
            "method=json:JSONDecoder",
            "method = 'json:JSONDecoder': a method is a dataclass of settings with run()",
        ),
        (
            "method.merge=math:floor",
            "method.merge = 'math:floor': a merge is a dataclass of settings with __c",
        ),
        ("partition.edges=0", "partition.edges = 0: input should be greater than or equal to 1"),
        ("data.limit=true", "data.limit = True: input should be a valid integer"),
        ("fleet=[1, 2]", "fleet = [1, 2]: input should be an object"),
        ("fleet.device=gpu", "fleet.device = 'gpu': input should be 'auto', 'cpu', 'cuda' or 'mps'"),
        ("compare.fedavg=3", "compare.fedavg = 3: input should be an object"),
        ("compare.fedavg.round=3", "unknown key compare.fedavg.round (did you mean 'rounds'?); allowed: rou"),
        (
            "compare.fedvag.rounds=3",
            "no method is named 'fedvag' (did you mean 'fedavg'?); there are: central",
        ),
    ],
)
def test_an_error_is_one_line(change: str, said: str) -> None:
    with pytest.raises(SheafError) as error:
        load(change)
    assert one_line(error).startswith(said)


@given(st.text(max_size=30))
def test_no_change_ends_in_a_traceback(text: str) -> None:
    for change in (text, f"title={text}", f"method.pretrain.{text}", f"method={text}"):
        with contextlib.suppress(SheafError):
            load(change)


def test_a_file(tmp_path: Path) -> None:
    written = tmp_path / "mine.toml"
    written.write_text(load("seed=3").toml())
    for source in (written, str(written)):
        assert load_experiment(source) == load("seed=3")
        assert load_experiment(source, ["seed=4"]) == load("seed=4")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"a = = 3", "cannot be read as TOML: Invalid value (at line 1, column 5)"),
        (b"\xff\xfe", "cannot be read as TOML: 'utf-8' codec can't decode"),
        (b"seed = 1\nseed = 2", "cannot be read as TOML: Cannot overwrite a value"),
    ],
)
def test_a_file_that_is_not_toml_is_refused(tmp_path: Path, content: bytes, said: str) -> None:
    (tmp_path / "mine.toml").write_bytes(content)
    with pytest.raises(SettingError) as error:
        load_experiment(tmp_path / "mine.toml")
    assert one_line(error).startswith(f"{tmp_path / 'mine.toml'} {said}")


def test_an_empty_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text("")
    with pytest.raises(SettingError, match="data is missing"):
        load_experiment(tmp_path / "mine.toml")


def test_an_unknown_experiment_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError) as error:
        load_experiment("ecavg-digit")
    assert "no experiment is named 'ecavg-digit' (did you mean 'ecavg-digits'?)" in one_line(error)
    with pytest.raises(UnknownNameError):
        load_experiment(tmp_path / "none.toml")


def test_a_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingError, match=r"cannot be read as TOML: .*Is a directory") as error:
        load_experiment(tmp_path)
    one_line(error)


@pytest.mark.parametrize(
    ("changes", "weights"),
    [
        (["model.name=mlp"], None),
        (["model={name='mlp',weights='imagenet'}"], "imagenet"),
        (["model.name=timm:resnet18"], None),
        (["model.name=resnet50"], "imagenet"),
        (["model.name=mlp", "model.weights=w.pth"], "w.pth"),
        (["model.weights=imagenet", "model.name=mlp"], "imagenet"),
        ([], "imagenet"),
    ],
)
def test_another_model_drops_imagenet_weights_that_it_lacks(changes, weights, caplog):
    experiment = load_experiment("ecavg-cifar10", changes)
    assert experiment.model.weights == weights
    dropped = f"model {experiment.model.name!r} has no ImageNet weights: model.weights of the experiment's"
    assert [dropped in message for message in caplog.messages] == [True] * (weights is None)


def test_changes_may_be_a_mapping_on_an_experiment() -> None:
    before = load_experiment("ecavg-digits", ["data.limit=400"])
    changes = {"method.pretrain": Recipe(epochs=3), "data.limit": None, "partition.edges": 4}
    after = load_experiment(before, changes)
    assert after.method.pretrain == Recipe(epochs=3)
    assert (after.data.limit, after.partition.edges) == (None, 4)
    assert after == load_experiment(after)


def test_a_distillation_needs_samples() -> None:
    changes = ["method.share=none", "method.finetune.loss=distillation"]
    with pytest.raises(SettingError, match=r"share = 'none' has no samples: set cloud.public") as error:
        load_experiment("ecavg-digits", changes)
    one_line(error)
    experiment = load_experiment("ecavg-digits", [*changes, "cloud.public.name=digits"])
    assert experiment.cloud.public == PublicSettings(name="digits")
    for wrong, message in (("limit=0", "cloud.public.limit"), ("labels=a.csv", "labels")):
        with pytest.raises(SettingError, match=message) as error:
            load_experiment("ecavg-digits", [*changes, "cloud.public.name=digits", f"cloud.public.{wrong}"])
        one_line(error)
