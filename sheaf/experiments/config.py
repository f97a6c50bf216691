"""An experiment: one TOML file, read strictly into settings."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import field
from pathlib import Path
from typing import Annotated, Any, Literal

import tomli_w
from pydantic import Field

from sheaf.core import registry, toml
from sheaf.core.errors import SettingError, UnknownNameError
from sheaf.core.settings import make_plugin, parse, plain, plugin_field, settings
from sheaf.data.settings import DataSettings
from sheaf.models.build import ModelSettings

PLUGINS = {"method": "methods", "partition": "partitions", "merge": "merges", "cut": "cuts"}
"""Keys that name a plugin, and of which kind."""

Method = Annotated[Any, plugin_field("methods")]
"""A setting that names a method."""


Partition = Annotated[Any, plugin_field("partitions")]
"""A setting that names a partition."""


SHIPPED = Path(__file__).parent / "configs"


Amount = Annotated[float, Field(gt=0)]


@settings
class DeviceBudget:
    """What one device can spend; nothing said is no limit. ``sheaf plan`` fits a cut into it.

    Attributes:
        macs: multiply-adds of one forward pass of an image.
        parameters: numbers that the device holds.
        memory: bytes in training: weights, gradients, optimizer and the activations of one batch.
        seconds: of one epoch over the device's own images, at ``speed``.
        speed: multiply-adds a second in training; measured on this machine where it is not said.
    """

    macs: Amount | None = None
    parameters: Amount | None = None
    memory: Amount | None = None
    seconds: Amount | None = None
    speed: Amount | None = None


@settings
class FleetSettings:
    """The keys under ``[fleet]``.

    Attributes:
        quorum: the share of the edges whose usable answer a call needs; with fewer the run stops.
        deadline: seconds that an edge may take for a call; it is left out of the call if it takes longer.
            Edges in one process are waited for.
        widths: edge -> the fraction of the model's width that it can carry; 1 where nothing is said. What
            cuts go by; ``sheaf plan`` works them out from budgets.
        budgets: edge -> what it can spend, for ``sheaf plan``.
        device: where the sites compute.
        threads: how many threads torch computes with; 0 leaves that to torch.
        together: how sites are trained in one process: ``stacked`` (many as one), ``threads`` (one on each
            core) or ``never`` (one after another); ``auto`` takes what is fastest for the network. Only the
            order of floating-point sums depends on it.
    """

    quorum: Annotated[float, Field(gt=0, le=1)] = 0.5
    deadline: Annotated[float, Field(gt=0)] = 3600.0
    widths: dict[str, Annotated[float, Field(gt=0, le=1)]] = field(default_factory=dict)
    budgets: dict[str, DeviceBudget] = field(default_factory=dict)
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    threads: Annotated[int, Field(ge=0)] = 0
    together: Literal["auto", "stacked", "threads", "never"] = "auto"


@settings
class Experiment:
    """Everything that decides what a run does.

    Attributes:
        title: one line for people.
        seed: where every random draw comes from.
        data, partition, model, method, fleet: the tables of the same names.
        compare: settings that ``sheaf compare`` gives a method, by its name, instead of those which follow
            from the experiment's own method under the same budget.
    """

    title: str = ""
    seed: Annotated[int, Field(ge=0)] = 0
    data: DataSettings
    partition: Partition
    model: ModelSettings
    method: Method
    fleet: FleetSettings = FleetSettings()
    compare: dict[str, dict[str, Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if getattr(self.method, "mixtures", ()) and self.data.held_out == 0:
            raise ValueError("method.mixtures is chosen from on held-out examples: set data.held_out above 0")

    def toml(self) -> str:
        """The resolved experiment: every setting, whether it was given or is a default."""
        return tomli_w.dumps(plain(self))

    def with_method(self, name: str) -> Experiment:
        """The same experiment by another method, under the budget of this one's."""
        table = plain(self)
        if name == table["method"]["name"]:
            return self
        if name in self.compare:
            method = make_plugin("methods", {"name": name, **self.compare[name]}, f"compare.{name}")
        else:
            method = registry.load("methods", name).within(self.method.budget)
        return parse(Experiment, table | {"method": plain(method)})


def shipped() -> dict[str, str]:
    """The experiments that come with sheaf: name -> title."""
    files = sorted(SHIPPED.glob("*.toml"))
    return {path.stem: toml.loads(path.read_text(encoding="utf-8"))["title"] for path in files}


def load_experiment(source: str | Path, changes: Iterable[str] = ()) -> Experiment:
    """Reads a shipped experiment by name, or a TOML file, with ``key.sub=value`` changes applied.

    Raises:
        UnknownNameError: neither a shipped name nor a file.
        SettingError: the file is no TOML, or a key or value is wrong.
    """
    table = _read(source)
    for change in changes:
        _apply(table, change)
    experiment = parse(Experiment, table)
    for name, given in experiment.compare.items():
        # A mistake there is told now, not after the first runs.
        make_plugin("methods", {"name": name, **given}, f"compare.{name}")
    return experiment


def _read(source: str | Path) -> dict[str, Any]:
    path = SHIPPED / f"{source}.toml" if str(source) in shipped() else Path(source)
    try:
        return toml.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UnknownNameError("experiment", str(source), shipped()) from error
    except (OSError, UnicodeDecodeError, toml.DecodeError) as error:
        raise SettingError(f"{path} cannot be read as TOML: {error}") from error


def _apply(table: dict[str, Any], change: str) -> None:
    """Sets one dotted key. A value that is no TOML is text; no value at all takes the key away."""
    key, equals, text = change.partition("=")
    if not equals or not all(key.split(".")):
        raise SettingError(f"--set {change}: write key=value, such as method.pretrain.epochs=3")
    try:
        value = toml.loads(f"value = {text or 0}")["value"]
    except toml.DecodeError:
        value = text
    *parents, last = key.split(".")
    for name in parents:
        below = table.setdefault(name, {})
        if isinstance(below, str):  # a plugin.s name, or "none": a step that this change turns on
            below = table[name] = {} if below == "none" else {"name": below}
        if not isinstance(below, Mapping):
            raise SettingError(f"--set {change}: {name} is {below!r}, which has no keys")
        table = below  # type: ignore[assignment]
    if isinstance(table.get(last), Mapping) and isinstance(value, str):
        # Another plugin: the settings of the one before mean nothing to it.
        value = {"name": value}
    if last == "name" and parents and parents[-1] in PLUGINS:
        # Likewise, but what both have in common, such as a partition's edges, stays.
        known = registry.load(PLUGINS[parents[-1]], str(value))
        for foreign in set(table) - set(vars(known).get("__dataclass_fields__", ())):
            del table[foreign]
    if text:
        table[last] = value
    else:
        table.pop(last, None)
