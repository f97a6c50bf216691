"""An experiment: settings that are read strictly from one TOML file."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import field
from pathlib import Path
from typing import Annotated, Any, Literal, cast

import tomli_w
from pydantic import Field

from sheaf.core import registry, toml
from sheaf.core.coding import AnyCodec
from sheaf.core.errors import SettingError, UnknownNameError
from sheaf.core.recipe import Recipe
from sheaf.core.settings import make_plugin, parse, plain, plugin_field, settings
from sheaf.data.settings import DataSettings
from sheaf.data.unlabelled import PublicSettings
from sheaf.experiments.shipped import SHIPPED, shipped
from sheaf.models.build import ModelSettings, imagenet_urls
from sheaf.models.checkpoints import IMAGENET
from sheaf.profiles.assignment import DevicesSettings
from sheaf.runtime.timeline import Budget
from sheaf.training.step import distils

PLUGINS = {
    "method": "methods",
    "partition": "partitions",
    "merge": "merges",
    "cut": "cuts",
    "loss": "losses",
    "upload": "codecs",
    "download": "codecs",
}
"""Keys that name a plugin -> the kind of plugin."""

Method = Annotated[Any, plugin_field("methods")]
"""A setting that names a method."""

Partition = Annotated[Any, plugin_field("partitions")]
"""A setting that names a partition."""

METHOD_NOTE = "; method changed to "
"""Separates an experiment's title from the name of a method that is not its own."""

logger = logging.getLogger("sheaf")

Amount = Annotated[float, Field(gt=0)]
Fraction = Annotated[float, Field(gt=0, le=1)]


@settings
class DeviceBudget:
    """The limits of one device, into which ``sheaf plan`` fits a sub-model. All above 0; None is no limit.

    Attributes:
        macs: multiply-adds of the forward pass of one example.
        parameters: the number of parameters.
        memory: bytes in training: parameters, gradients, optimizer state and the activations of one batch.
        seconds: of one epoch over the device's own examples, at ``speed``.
        speed: multiply-adds per second in training; None: measured on this machine.
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
        quorum: the fraction of the edges that must answer a call with a usable update, above 0 and at most 1;
            with fewer the run stops.
        deadline: the timeout of a call to an edge, in seconds, above 0; the call continues without an edge
            that takes longer. In one process it needs ``devices``, and is virtual time.
        widths: edge -> the fraction of the channels of every layer that it can train, above 0 and at most 1;
            1 by default. Schemes of cuts use it; ``sheaf plan`` computes it from budgets.
        work: edge -> the fraction of the mini-batches of each of its trainings that it takes, above 0 and at
            most 1; 1 by default. A merge weighs the update as that of a whole training. ``sheaf plan
            --finish-within`` computes it.
        shares: edge -> the largest fraction of its training samples that it sends, above 0 and at most 1;
            1 by default: the method's ``share`` alone limits them.
        codecs: edge -> its codec in both directions, instead of ``upload`` and ``download``.
        budgets: edge -> its limits, for ``sheaf plan``.
        devices: the devices that the edges of one process stand for, with a virtual clock; None: no clock.
        stop_at: what the run may spend, in seconds, bytes and joules. It stops before the first call after a
            limit is reached, and its models are those of that moment.
        device: the device on which the sites compute; ``auto`` is CUDA if available, then MPS, then the CPU.
        threads: the number of threads of torch; 0 keeps torch's default.
        deliver: when a real device's current model is replaced by one of the run: at the ``end`` of the run,
            or also when the device receives a model in between (``adoptions``).
        together: how the sites of one process train: ``stacked`` (many sites as one vectorised model),
            ``threads`` (one site per core) or ``never`` (one after another); ``auto`` chooses the fastest for
            the network. The results differ only by the rounding of sums.
        processes: the number of processes that train edges, at least 1: this one and others, which it starts
            on this machine or which ``torchrun`` started; each trains one group of edges at a time, and all
            map the same decoded examples. The results are those of one process, where a site that uses
            several threads uses ``threads``, by default the machine's cores divided by ``processes``.
            Ignored on a real fleet.
        upload: the codec of the parameters that edges send, see ``sheaf list codecs``: ``float32``,
            ``bfloat16``, ``int8`` or ``topk``. All but ``float32`` encode the difference to the model that
            the edge received.
        download: the codec of the parameters that the cloud sends, likewise as the difference to the model
            that the edge received last; the first model is sent whole.
    """

    quorum: Annotated[float, Field(gt=0, le=1)] = 0.5
    deadline: Annotated[float, Field(gt=0)] = 3600.0
    widths: dict[str, Fraction] = field(default_factory=dict)
    work: dict[str, Fraction] = field(default_factory=dict)
    shares: dict[str, Fraction] = field(default_factory=dict)
    codecs: dict[str, Annotated[Any, plugin_field("codecs")]] = field(default_factory=dict)
    budgets: dict[str, DeviceBudget] = field(default_factory=dict)
    devices: DevicesSettings | None = None
    stop_at: Budget | None = None
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    threads: Annotated[int, Field(ge=0)] = 0
    deliver: Literal["end", "adoptions"] = "end"
    together: Literal["auto", "stacked", "threads", "never"] = "auto"
    processes: Annotated[int, Field(ge=1)] = 1
    upload: AnyCodec = "float32"
    download: AnyCodec = "float32"


@settings
class CloudSettings:
    """The keys under ``[cloud]``.

    Attributes:
        processes: the number of processes that train the cloud's model together, at least 1, each on its rows
            of every mini-batch (``torch.nn.parallel.DistributedDataParallel``): this one and others, which it
            starts on this machine or which ``torchrun`` started. Batch norm and dropout on a CPU are those of
            the whole mini-batch, so the result is that of one process, except for the order of floating-point
            sums.
        public: samples without labels on which the cloud distils the edges' models (the loss
            ``distillation`` of ``method.finetune``), instead of the pool; None: it has none.
    """

    processes: Annotated[int, Field(ge=1)] = 1
    public: PublicSettings | None = None


@settings
class Experiment:
    """All settings of a run.

    Attributes:
        title: a description of one line.
        seed: the seed from which the seeds of all random draws are derived, at least 0.
        data, partition, model, method, fleet, cloud: the tables of the same names.
        baselines: ``local``, ``central`` or both: methods that the run also trains, after its own, under the
            same budget, for the verdict. Their costs are not counted. Ignored on a real fleet.
        compare: method -> its settings in ``sheaf compare``, which otherwise derives them from the budget of
            the experiment's own method.
    """

    title: str = ""
    seed: Annotated[int, Field(ge=0)] = 0
    data: DataSettings
    partition: Partition
    model: ModelSettings
    method: Method
    fleet: FleetSettings = FleetSettings()
    cloud: CloudSettings = CloudSettings()
    baselines: tuple[Literal["local", "central"], ...] = ()
    compare: dict[str, dict[str, Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if getattr(self.method, "mixtures", ()) and self.data.held_out == 0:
            raise ValueError("method.mixtures needs held-out examples: set data.held_out above 0")
        if self.distils and self.cloud.public is None and getattr(self.method, "share", None) == "none":
            raise ValueError(
                "method.finetune.loss = 'distillation' with method.share = 'none' has no samples: set "
                "cloud.public to unlabelled ones, or set method.share"
            )

    @property
    def distils(self) -> bool:
        """Whether the cloud's fine-tuning has a loss that distils the edges' models."""
        recipe = getattr(self.method, "finetune", None)
        return isinstance(recipe, Recipe) and distils(recipe)

    def toml(self) -> str:
        """Return the experiment as TOML, with all defaults."""
        return tomli_w.dumps(plain(self))

    def with_method(self, name: str) -> Experiment:
        """Return the experiment with another method, under the training budget of its own."""
        table = plain(self)
        if name == table["method"]["name"]:
            return self
        if name in self.compare:
            method = make_plugin("methods", {"name": name, **self.compare[name]}, f"compare.{name}")
        else:
            method = registry.load("methods", name).within(self.method.budget)
        return parse(Experiment, table | {"method": plain(method)})


def load_experiment(
    source: str | Path | Experiment, changes: Iterable[str] | Mapping[str, Any] = ()
) -> Experiment:
    """Read an experiment and apply changes to it.

    Another method, ``method=NAME``, keeps the recipe and the training budget of the experiment's own method,
    as in ``sheaf compare``; ``method={name = "NAME"}`` gives it its own defaults.

    Args:
        source: the name of a shipped experiment, a TOML file, or an experiment.
        changes: ``key.sub=value`` strings, or a mapping of such keys to values; None removes a key.

    Raises:
        UnknownNameError: neither a shipped experiment nor a file.
        SettingError: the file is not TOML, or a key or value is wrong.
    """
    table = read_table(source)
    if isinstance(changes, Mapping):
        pairs = [(str(key), plain(value)) for key, value in changes.items()]
    else:
        pairs = [_parse_change(change) for change in changes]
    for key, value in pairs:
        if key in ("method", "method.name") and isinstance(value, str):
            _change_method(table, key, value)
        else:
            _apply(table, key, value)
    changed = {key for key, _ in pairs}
    if "model.weights" not in changed and "model.name" in changed:
        _drop_foreign_weights(table)
    experiment = parse(Experiment, table)
    for name, options in experiment.compare.items():  # report mistakes before the first run
        make_plugin("methods", {"name": name, **options}, f"compare.{name}")
    return experiment


def _change_method(table: dict[str, Any], key: str, name: str) -> None:
    """Replace the method under the training budget of the present one, and add it to the title.

    ``method.name`` keeps the settings that both methods have, if these are all of the present one's training.
    """
    present = make_plugin("methods", table["method"], "method") if "method" in table else None
    other = registry.load("methods", name)
    if present is None or not hasattr(present, "budget") or not hasattr(other, "within"):
        _apply(table, key, name)  # without a budget to keep
    elif plain(present)["name"] != name:
        training = {field for field, value in vars(present).items() if isinstance(value, Recipe)} | {"rounds"}
        if key == "method.name" and training <= set(vars(other).get("__dataclass_fields__", ())):
            _apply(table, key, name)
        else:
            table["method"] = plain(parse(Experiment, table).with_method(name).method)
        if table.get("title"):
            table["title"] = f"{table['title'].partition(METHOD_NOTE)[0]}{METHOD_NOTE}{name}"


def _drop_foreign_weights(table: dict[str, Any]) -> None:
    """Drop the ImageNet weights of an experiment whose model was replaced by one that has none."""
    model = table.get("model")
    if not isinstance(model, dict) or model.get("weights") != IMAGENET:
        return
    if model["name"] not in imagenet_urls():
        del model["weights"]
        logger.warning(
            "model %r has no ImageNet weights: model.weights of the experiment's own model is dropped, and "
            "training starts from random values",
            model["name"],
        )


def read_table(source: str | Path | Experiment) -> dict[str, Any]:
    """Return the table of an experiment without defaults; of an ``Experiment``, with them.

    Raises:
        UnknownNameError: neither a shipped experiment nor a file.
        SettingError: the file is not TOML.
    """
    if isinstance(source, Experiment):
        return cast(dict[str, Any], plain(source))
    path = SHIPPED / f"{source}.toml" if str(source) in shipped() else Path(source)
    try:
        return toml.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UnknownNameError("experiment", str(source), shipped()) from error
    except (OSError, UnicodeDecodeError, toml.DecodeError) as error:
        raise SettingError(f"{path} cannot be read as TOML: {error}") from error


def _parse_change(change: str) -> tuple[str, Any]:
    """Return key and value. A value that is not TOML is a string; an empty one is None."""
    key, equals, text = change.partition("=")
    if not equals or not all(key.split(".")):
        raise SettingError(f"--set {change}: write key=value, such as method.pretrain.epochs=3")
    if not text:
        return key, None
    try:
        return key, toml.loads(f"value = {text}")["value"]
    except toml.DecodeError:
        return key, text


def _apply(table: dict[str, Any], key: str, value: Any) -> None:
    """Set one dotted key; None removes it."""
    *parents, last = key.split(".")
    for name in parents:
        below = table.setdefault(name, {})
        if isinstance(below, str):  # a plugin's name, or "none": a step that this change turns on
            below = table[name] = {} if below == "none" else {"name": below}
        if not isinstance(below, Mapping):
            raise SettingError(f"{key} = {value!r}: {name} is {below!r}, which has no keys")
        table = below  # type: ignore[assignment]
    if isinstance(table.get(last), Mapping) and isinstance(value, str) and value != "none":
        # Another plugin: it does not have the settings of the previous one.
        value = {"name": value}
    if last == "name" and parents and parents[-1] in PLUGINS:
        # Likewise, but the settings of both, such as a partition's edges, stay.
        plugin = registry.load(PLUGINS[parents[-1]], str(value))
        for foreign in set(table) - set(vars(plugin).get("__dataclass_fields__", ())):
            del table[foreign]
    if value is None:
        table.pop(last, None)
    else:
        table[last] = value
