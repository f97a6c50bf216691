"""Tables to settings and back, and mistakes in one line."""

from __future__ import annotations

import json
from dataclasses import field, fields
from typing import Any

import hypothesis
import pytest
import tomli_w
from hypothesis import given
from hypothesis import strategies as st
from support import one_line

from sheaf.core import registry, toml
from sheaf.core.errors import SettingError, UnknownNameError
from sheaf.core.recipe import Recipe, Ridge, Share
from sheaf.core.settings import make_plugin, parse, plain, settings
from sheaf.data.settings import DataSettings
from sheaf.experiments.config import Experiment, FleetSettings, load_experiment, shipped
from sheaf.merges.merge import Merge
from sheaf.models.build import ModelSettings

PLUGINS = [
    (kind, name) for kind in ("methods", "merges", "partitions", "cuts") for name in registry.describe(kind)
]

recipes = st.builds(
    Recipe,
    epochs=st.integers(0, 10**6),
    batch_size=st.integers(1, 10**6),
    optimizer=st.sampled_from(["sgd", "adam", "adamw"]),
    lr=st.floats(0, exclude_min=True, allow_infinity=False),
    momentum=st.floats(0, 1, exclude_max=True),
    weight_decay=st.floats(0, allow_infinity=False),
    schedule=st.sampled_from(["constant", "cosine", "onecycle"]),
    augment=st.lists(st.sampled_from(["flip", "crop"]), max_size=3).map(tuple),
    precision=st.sampled_from(["auto", "float32", "bfloat16"]),
    alpha=st.floats(0, 1) | st.just("mask"),
)
ridges = st.builds(Ridge, ridge=st.floats(0, exclude_min=True, allow_infinity=False), rescale=st.booleans())
shares = st.builds(
    Share,
    fraction=st.floats(0, 1, exclude_min=True),
    count=st.none() | st.integers(1, 99),
    bytes=st.none() | st.integers(1, 9999),
    choose=st.sampled_from(["random", "balanced", "uncertain"]),
)
merges = st.sampled_from([registry.load("merges", name)() for name in registry.describe("merges")])
classes = st.lists(st.integers(0, 99) | st.text(max_size=5), max_size=4).map(tuple)
schemes = st.sampled_from([registry.load("cuts", name)() for name in registry.describe("cuts")])
VALUES: dict[str, st.SearchStrategy[Any]] = {
    "merge": merges,
    "cut": schemes,
    "stem": st.integers(0, 9),
    "by": st.sampled_from(["classes", "share"]),
    "width": st.floats(0, 1, exclude_min=True),
    "negatives": st.sampled_from(["none", "outliers", "pooled"]),
    "outliers": st.floats(0, exclude_min=True, allow_infinity=False),
    "restat": st.booleans(),
    "refit": st.none() | recipes | ridges,
    "mixtures": st.lists(st.floats(0, 1, exclude_min=True), max_size=3).map(tuple),
    "finetune": st.none() | recipes,
    "retrain": st.none() | recipes,
    "only_strong": st.booleans(),
    "own_start": st.booleans(),
    "sample": st.floats(0, 1, exclude_min=True),
    "rounds": st.integers(1, 100),
    "share": shares,
    "reference": st.booleans(),
    "shards_per_edge": st.integers(1, 9),
    "alpha": st.floats(1e-3, 1e6),
    "own": st.floats(0, 1),
    "off_diagonal": st.floats(0, 1),
    "floor": st.floats(0, exclude_min=True, allow_infinity=False),
    "examples": st.integers(1, 10**6),
    "trim": st.floats(0, 0.5, exclude_max=True),
    "sizes": st.none() | st.lists(st.floats(1e-6, 1e6), min_size=1, max_size=4).map(tuple),
}


def every(kind: str, name: str) -> st.SearchStrategy[Any]:
    """Any settings of one plugin."""
    cls = registry.load(kind, name)
    edges = st.integers(1, 99)
    if name in ("classes", "ratio"):
        edges |= st.lists(classes, max_size=3).map(tuple) | st.dictionaries(
            st.text(min_size=1), classes, min_size=1, max_size=3
        )
    known = VALUES | {"edges": edges}
    values = {
        one.name: recipes if isinstance(one.default, Recipe) else known[one.name] for one in fields(cls)
    }
    if name == "ecavg_plus":
        values["refit"] = st.just("none") | recipes | ridges
    if name == "decoupled":  # more than one round needs retrain
        once, retrained = values | {"rounds": st.just(1)}, values | {"retrain": recipes}
        return st.builds(cls, **once) | st.builds(cls, **retrained)
    return st.builds(cls, **values)


def any_of(kind: str) -> st.SearchStrategy[Any]:
    """Any settings of any plugin of a kind."""
    return st.sampled_from(list(registry.describe(kind))).flatmap(lambda name: every(kind, name))


def through_toml(table: dict[str, Any]) -> dict[str, Any]:
    return toml.loads(tomli_w.dumps(table))


@pytest.mark.parametrize(("kind", "name"), PLUGINS)
@given(data=st.data())
def test_settings_come_back_from_their_table(kind: str, name: str, data: st.DataObject) -> None:
    value = data.draw(every(kind, name))
    table = plain(value)
    assert table["name"] == name
    assert make_plugin(kind, table, kind) == value
    assert make_plugin(kind, through_toml(table), kind) == value
    assert json.loads(json.dumps(table)) == table


experiments = st.builds(
    Experiment,
    title=st.text(st.characters(exclude_categories=("Cs",))),
    seed=st.integers(0, 2**62),
    data=st.builds(
        DataSettings,
        name=st.text("abc/:", min_size=1),
        size=st.none() | st.tuples(st.integers(1, 99), st.integers(1, 99)),
        limit=st.none() | st.integers(1, 99),
        mean=st.none() | st.lists(st.floats(0, 1), max_size=3).map(tuple),
        held_out=st.floats(0.01, 0.9),
    ),
    partition=st.sampled_from(list(registry.describe("partitions"))).flatmap(
        lambda name: every("partitions", name)
    ),
    model=st.builds(
        ModelSettings,
        name=st.text("abc@", min_size=1),
        weights=st.none() | st.text(),
        options=st.dictionaries(
            st.text("abc", min_size=1), st.booleans() | st.integers(-9, 9) | st.text("ab")
        ),
    ),
    method=any_of("methods"),
    fleet=st.builds(FleetSettings, quorum=st.floats(0.01, 1), device=st.sampled_from(["auto", "cpu"])),
)


@hypothesis.settings(max_examples=25)
@given(experiments)
def test_an_experiment_comes_back_from_its_file(experiment: Experiment) -> None:
    assert parse(Experiment, plain(experiment)) == experiment
    assert parse(Experiment, toml.loads(experiment.toml())) == experiment


@pytest.mark.parametrize("name", list(shipped()))
def test_every_shipped_experiment_comes_back(name: str) -> None:
    experiment = load_experiment(name)
    assert parse(Experiment, toml.loads(experiment.toml())) == experiment
    for method in registry.describe("methods"):
        other = experiment.with_method(method)
        assert plain(other.method)["name"] == method
        assert parse(Experiment, plain(other)) == other


@settings
class Inner:
    """A table within a table."""

    depth: int
    ratio: float = 0.5
    on: bool = True
    pair: tuple[int, int] = (1, 2)


@settings
class Outer:
    """What the mistakes below are made in."""

    text: str = ""
    inner: Inner = Inner(depth=1)
    either: int | tuple[int, ...] | dict[str, int] = 1
    several: tuple[Inner, ...] = ()
    named: dict[str, float] = field(default_factory=dict)
    merge: Merge = registry.load("merges", "mean")()


KEYS = "text, inner, either, several, named, merge"
GIVE = f"give a name or a table with one; there are: {', '.join(registry.describe('merges'))}"
NO_MERGE = "a merge is a dataclass of settings with __call__()"


def inner(**table: Any) -> dict[str, Any]:
    return {"inner": {"depth": 1, **table}}


@pytest.mark.parametrize(
    ("table", "said"),
    [
        (
            {"txt": 1},
            f"unknown key txt (did you mean 'text'?); allowed: {KEYS}",
        ),
        (
            {"inner": {"depth": 1, "dept": 2}},
            "unknown key inner.dept (did you mean 'depth'?); allowed: depth, ratio, on, pair",
        ),
        ({"zzzz": 1}, f"unknown key zzzz; allowed: {KEYS}"),
        ({"inner": {}}, "inner.depth is missing"),
        ({"inner": {"depth": "3"}}, "inner.depth = '3': input should be a valid integer"),
        ({"inner": {"depth": True}}, "inner.depth = True: input should be a valid integer"),
        ({"inner": {"depth": 3.0}}, "inner.depth = 3.0: input should be a valid integer"),
        (inner(ratio="x"), "inner.ratio = 'x': input should be a valid number"),
        (
            {"inner": {"depth": 1, "ratio": float("nan")}},
            "inner.ratio = nan: input should be a finite number",
        ),
        (
            {"inner": {"depth": 1, "ratio": -float("inf")}},
            "inner.ratio = -inf: input should be a finite number",
        ),
        (inner(on=1), "inner.on = 1: input should be a valid boolean"),
        (inner(pair=[1, "x"]), "inner.pair.1 = 'x': input should be a valid integer"),
        ({"inner": [1]}, "inner = [1]: input should be an object"),
        ({"text": 5}, "text = 5: input should be a valid string"),
        (
            {"either": [1, "x"]},
            "either = [1, 'x']: input should be a valid integer, or: input should be an object",
        ),
        ({"named": {"a": "x"}}, "named.a = 'x': input should be a valid number"),
        (
            {"several": [{"depth": 1}, {"depth": "x"}]},
            "several.1.depth = 'x': input should be a valid integer",
        ),
        ({"merge": {"name": "mean", "wight": 1}}, "unknown key merge.wight; allowed: "),
        (
            {"merge": {"nam": "mean"}},
            f"merge = {{'nam': 'mean'}}: {GIVE}",
        ),
        ({"merge": 3}, f"merge = 3: {GIVE}"),
        (
            {"merge": ["mean"]},
            f"merge = ['mean']: {GIVE}",
        ),
        ({"merge": "json:dumps"}, f"merge = 'json:dumps': {NO_MERGE}"),
        (
            {"merge": "sheaf.core.recipe:Recipe"},
            f"merge = 'sheaf.core.recipe:Recipe': {NO_MERGE}",
        ),
        (3, "experiment = 3: input should be an object"),
    ],
)
def test_a_mistake_is_one_line_that_names_the_key(table: Any, said: str) -> None:
    with pytest.raises(SettingError) as error:
        parse(Outer, table)
    assert one_line(error) == said
    if isinstance(table, dict):
        with pytest.raises(SettingError) as error:
            parse(Outer, table, "method")
        head = "unknown key " if said.startswith("unknown") else ""
        assert one_line(error) == f"{head}method.{said.removeprefix(head)}"


def test_an_unknown_plugin_below() -> None:
    with pytest.raises(UnknownNameError, match=r"no merge is named 'men' .did you mean 'mean'"):
        parse(Outer, {"merge": "men"})


def test_a_method_is_no_merge_and_a_merge_no_method() -> None:
    with pytest.raises(SettingError, match=r"a method is a dataclass of settings with run"):
        make_plugin("methods", "sheaf.merges.rules.mean:Mean", "method")
    with pytest.raises(SettingError, match=r"a merge is a dataclass of settings with __call__"):
        make_plugin("merges", "sheaf.methods.fedavg:FedAvg", "merge")


def test_defaults_and_whole_numbers_for_fractions() -> None:
    assert parse(Outer, {}) == Outer()
    assert parse(Inner, {"depth": 1, "ratio": 2}) == Inner(depth=1, ratio=2.0)
