"""Settings from tables and back, and error messages of one line."""

from __future__ import annotations

import json
from dataclasses import field, fields, replace
from typing import Any

import hypothesis
import pytest
import tomli_w
from hypothesis import given
from hypothesis import strategies as st
from support import one_line

from sheaf.core import registry, toml
from sheaf.core.errors import SettingError, UnknownNameError
from sheaf.core.recipe import FromStatistics, Part, Privacy, Recipe, Ridge, Share
from sheaf.core.settings import make_plugin, parse, plain, settings
from sheaf.data.settings import DataSettings
from sheaf.data.unlabelled import PublicSettings
from sheaf.experiments.config import (
    CloudSettings,
    DeviceBudget,
    Experiment,
    FleetSettings,
    load_experiment,
    shipped,
)
from sheaf.merges.merge import Merge, statistic_of
from sheaf.merges.server_optimizer import ServerOptimizer
from sheaf.methods.scaffold import PLAIN
from sheaf.models.build import ModelSettings
from sheaf.profiles.assignment import DevicesSettings
from sheaf.runtime.timeline import Budget

KINDS = ("methods", "merges", "partitions", "cuts", "losses", "codecs")
PLUGINS = [(kind, name) for kind in KINDS for name in registry.describe(kind)]


def with_all_fields(cls: type, **strategies: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Build ``cls`` from a strategy for every field; a field without one is an error."""
    assert {one.name for one in fields(cls)} == set(strategies), f"{cls.__name__} has other fields"
    return st.builds(cls, **strategies)


positive = st.floats(0, exclude_min=True, allow_infinity=False)
fractions = st.floats(0, 1, exclude_min=True)
recipes = with_all_fields(
    Recipe,
    epochs=st.integers(0, 10**6),
    work=fractions,
    part=st.none() | st.integers(1, 9).flatmap(lambda n: st.builds(Part, n=st.just(n), of=st.integers(n, 9))),
    batch_size=st.integers(1, 10**6),
    optimizer=st.sampled_from(["sgd", "adam", "adamw"]),
    lr=positive,
    momentum=st.floats(0, 1, exclude_max=True),
    weight_decay=st.floats(0, allow_infinity=False),
    schedule=st.sampled_from(["constant", "cosine", "onecycle"]),
    augment=st.lists(st.sampled_from(["flip", "crop"]), max_size=3).map(tuple),
    precision=st.sampled_from(["auto", "float32", "bfloat16"]),
    loss=st.deferred(lambda: any_of("losses")),
    average_last=st.floats(0, 1),
)
ridges = with_all_fields(Ridge, ridge=positive, rescale=st.booleans())
private = with_all_fields(
    Privacy, epsilon=positive, delta=st.floats(0, 1, exclude_min=True, exclude_max=True), clip=positive
)
from_statistics = with_all_fields(
    FromStatistics,
    statistics=st.sampled_from(["lda", "ridge", "gaussian"]),
    shrinkage=st.floats(0, 1),
    ridge=positive,
    draws=st.integers(1, 9999),
    train=recipes,
    privacy=st.none() | private,
)
shares = with_all_fields(
    Share,
    fraction=fractions,
    count=st.none() | st.integers(1, 99),
    bytes=st.none() | st.integers(1, 9999),
    choose=st.sampled_from(["random", "balanced", "uncertain"]),
)
decays = st.floats(0, 1, exclude_max=True)
servers = with_all_fields(
    ServerOptimizer,
    optimizer=st.sampled_from(["sgd", "adam"]),
    lr=positive,
    momentum=decays,
    betas=st.tuples(decays, decays),
    eps=positive,
)
merges = st.sampled_from([registry.load("merges", name)() for name in registry.describe("merges")])
classes = st.lists(st.integers(0, 99) | st.text(max_size=5), max_size=4).map(tuple)
schemes = st.sampled_from([registry.load("cuts", name)() for name in registry.describe("cuts")])
VALUES: dict[str, st.SearchStrategy[Any]] = {
    "merge": merges,
    "cut": schemes,
    "stem": st.integers(0, 9),
    "exact": st.booleans(),
    "by": st.sampled_from(["classes", "width"]),
    "width": fractions,
    "negatives": st.sampled_from(["none", "outliers", "pooled"]),
    "outliers": positive,
    "restat": st.booleans(),
    "refit": st.just("none") | recipes | ridges | from_statistics,
    "mixtures": st.lists(fractions, max_size=3).map(tuple),
    "finetune": st.just("none") | recipes,
    "retrain": st.just("none") | recipes,
    "only_strong": st.booleans(),
    "own_start": st.booleans(),
    "own_classes": st.booleans(),
    "sample": fractions,
    "rounds": st.integers(1, 100),
    "pretrain_rounds": st.integers(1, 100),
    "share": shares,
    "reference": st.booleans(),
    "shards_per_edge": st.integers(1, 9),
    "alpha": st.floats(1e-3, 1e6),
    "mu": positive,
    "temperature": positive,
    "scaler": st.booleans(),
    "masked": st.booleans(),
    "static": st.booleans(),
    "loss": st.deferred(lambda: any_of("losses")),
    "personal": recipes,
    "strength": positive,
    "widths": st.lists(fractions, max_size=3).map(tuple),
    "server": st.just("none") | servers,
    "lr": positive,
    "momentum": decays,
    "eps": positive,
    "own": st.floats(0, 1),
    "off_diagonal": st.floats(0, 1),
    "floor": positive,
    "examples": st.integers(1, 10**6),
    "trim": st.floats(0, 0.5, exclude_max=True),
    "sizes": st.none() | st.lists(st.floats(1e-6, 1e6), min_size=1, max_size=4).map(tuple),
}


def every(kind: str, name: str) -> st.SearchStrategy[Any]:
    """Return a strategy for the settings of one plugin. A field without a strategy is a ``KeyError``."""
    cls = registry.load(kind, name)
    edges = st.integers(1, 99)
    if name in ("classes", "ratio"):
        edges |= st.lists(classes, max_size=3).map(tuple) | st.dictionaries(
            st.text(min_size=1), classes, min_size=1, max_size=3
        )
    known = VALUES | {"edges": edges}
    if kind == "losses":
        known["alpha"] = st.floats(0, 1) | st.just("mask")
    if kind == "codecs":
        known["fraction"] = st.floats(0, 0.5, exclude_min=True)
    values = {
        one.name: recipes if isinstance(one.default, Recipe) else known[one.name] for one in fields(cls)
    }
    if name == "scaffold":  # plain SGD
        values["local"] = recipes.map(lambda recipe: replace(recipe, **PLAIN))
    if name == "decoupled":  # more than one round needs retrain
        once, retrained = values | {"rounds": st.just(1)}, values | {"retrain": recipes}
        return st.builds(cls, **once) | st.builds(cls, **retrained)
    if name in ("ecavg", "ecavg_plus"):  # no fine-tuning without a pool
        refit = st.just("none") | st.builds(FromStatistics, statistics=st.just("lda"))
        off = {"share": st.just("none"), "finetune": st.just("none"), "refit": refit}
        if name == "ecavg_plus":  # an update carries one statistic
            off["merge"] = merges.filter(lambda merge: statistic_of(merge) is None)
            values["pretrain_rounds"] = st.just(1)
            off["pretrain_rounds"] = VALUES["pretrain_rounds"]
        return st.builds(cls, **values) | st.builds(cls, **(values | off))
    return st.builds(cls, **values)


def any_of(kind: str) -> st.SearchStrategy[Any]:
    """Return a strategy for the settings of every plugin of a kind that any recipe may have."""
    names = [name for name in registry.describe(kind) if name != "distillation"]  # only of the cloud
    return st.sampled_from(names).flatmap(lambda name: every(kind, name))


def through_toml(table: dict[str, Any]) -> dict[str, Any]:
    return toml.loads(tomli_w.dumps(table))


@pytest.mark.parametrize(("kind", "name"), PLUGINS)
@hypothesis.settings(max_examples=25)
@given(data=st.data())
def test_settings_survive_a_round_trip_through_a_table(kind: str, name: str, data: st.DataObject) -> None:
    value = data.draw(every(kind, name))
    table = plain(value)
    assert table["name"] == name
    assert make_plugin(kind, table, kind) == value
    assert make_plugin(kind, through_toml(table), kind) == value
    assert json.loads(json.dumps(table)) == table


names = st.text("abc+", min_size=1)
devices = with_all_fields(
    DevicesSettings,
    edges=st.dictionaries(names, names, max_size=3),
    mix=st.dictionaries(names, positive, max_size=3),
    cloud=names,
    jitter=st.floats(0, 1),
    trace=st.none(),
    on=st.floats(0, allow_infinity=False),
    off=positive,
    evaluation=st.booleans(),
)
sizes = st.integers(1, 99)
experiments = with_all_fields(
    Experiment,
    title=st.text(st.characters(exclude_categories=("Cs",))),
    seed=st.integers(0, 2**62),
    data=with_all_fields(
        DataSettings,
        name=st.text("abc/:", min_size=1),
        config=st.none() | st.text("abc", min_size=1),
        splits=st.none() | st.tuples(st.text("abc"), st.text("abc")),
        labels=st.none() | st.text("abc.", min_size=1),
        label=st.none() | st.text("abc_", min_size=1),
        input=st.none() | st.text("abc_", min_size=1),
        cache=st.booleans(),
        bits=st.none() | st.integers(8, 32),
        skip_broken=st.booleans(),
        size=st.none() | st.tuples(sizes, sizes),
        channels=st.sampled_from([None, 1, 3]),
        rate=st.none() | st.integers(2000, 384_000),
        seconds=st.floats(0.1, 60),
        limit=st.none() | sizes,
        limit_test=st.none() | sizes,
        mean=st.none() | st.lists(st.floats(0, 1), max_size=3).map(tuple),
        std=st.none() | st.lists(fractions, max_size=3).map(tuple),
        test_share=st.floats(0.01, 0.9),
        held_out=st.floats(0.01, 0.9),
    ),
    partition=any_of("partitions"),
    model=with_all_fields(
        ModelSettings,
        name=st.text("abc@", min_size=1),
        weights=st.none() | st.text(),
        frozen=st.integers(0, 9),
        options=st.dictionaries(
            st.text("abc", min_size=1), st.booleans() | st.integers(-9, 9) | st.text("ab")
        ),
    ),
    method=any_of("methods"),
    fleet=with_all_fields(
        FleetSettings,
        quorum=fractions,
        deadline=positive,
        widths=st.dictionaries(st.text("abc", min_size=1), fractions, max_size=3),
        work=st.dictionaries(st.text("abc", min_size=1), fractions, max_size=3),
        shares=st.dictionaries(st.text("abc", min_size=1), fractions, max_size=3),
        codecs=st.dictionaries(st.text("abc", min_size=1), any_of("codecs"), max_size=3),
        budgets=st.dictionaries(
            st.text("abc", min_size=1),
            with_all_fields(DeviceBudget, **{one.name: st.none() | positive for one in fields(DeviceBudget)}),
            max_size=3,
        ),
        devices=st.none() | devices,
        stop_at=st.none()
        | with_all_fields(Budget, **{one.name: st.none() | positive for one in fields(Budget)}),
        device=st.sampled_from(["auto", "cpu", "cuda", "mps"]),
        threads=st.integers(0, 9),
        deliver=st.sampled_from(["end", "adoptions"]),
        together=st.sampled_from(["auto", "stacked", "threads", "never"]),
        processes=st.integers(1, 9),
        upload=any_of("codecs"),
        download=any_of("codecs"),
    ),
    cloud=with_all_fields(
        CloudSettings,
        processes=st.integers(1, 9),
        public=st.none()
        | with_all_fields(
            PublicSettings, name=st.text("ab/:", min_size=1), limit=st.none() | st.integers(1, 9)
        ),
    ),
    baselines=st.lists(st.sampled_from(["local", "central"]), max_size=2).map(tuple),
    compare=st.dictionaries(
        st.sampled_from(list(registry.describe("methods"))),
        st.dictionaries(st.text("abc", min_size=1), st.booleans() | st.integers(0, 9), max_size=3),
        max_size=2,
    ),
)


@hypothesis.settings(max_examples=25)
@given(experiments)
def test_an_experiment_survives_a_round_trip_through_toml(experiment: Experiment) -> None:
    assert parse(Experiment, plain(experiment)) == experiment
    assert parse(Experiment, toml.loads(experiment.toml())) == experiment


@pytest.mark.parametrize("name", list(shipped()))
def test_every_shipped_experiment_survives_a_round_trip(name: str) -> None:
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
    """The settings that the mistakes below are made in."""

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
def test_an_error_message_is_one_line_that_names_the_key(table: Any, said: str) -> None:
    with pytest.raises(SettingError) as error:
        parse(Outer, table)
    assert one_line(error) == said
    if isinstance(table, dict):
        with pytest.raises(SettingError) as error:
            parse(Outer, table, "method")
        head = "unknown key " if said.startswith("unknown") else ""
        assert one_line(error) == f"{head}method.{said.removeprefix(head)}"


def test_an_unknown_plugin_in_a_field() -> None:
    with pytest.raises(UnknownNameError, match=r"no merge is named 'men' .did you mean 'mean'"):
        parse(Outer, {"merge": "men"})


def test_a_plugin_of_another_kind_is_an_error() -> None:
    with pytest.raises(SettingError, match=r"a method is a dataclass of settings with run"):
        make_plugin("methods", "sheaf.merges.rules.mean:Mean", "method")
    with pytest.raises(SettingError, match=r"a merge is a dataclass of settings with __call__"):
        make_plugin("merges", "sheaf.methods.fedavg:FedAvg", "merge")


def test_defaults_and_integers_for_float_fields() -> None:
    assert parse(Outer, {}) == Outer()
    assert parse(Inner, {"depth": 1, "ratio": 2}) == Inner(depth=1, ratio=2.0)
