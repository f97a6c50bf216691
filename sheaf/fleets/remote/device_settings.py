"""The device's own settings, ``edge.toml``: limits that no request of the cloud can exceed."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from sheaf.core import toml
from sheaf.core.errors import FleetError, SettingError
from sheaf.core.optional_imports import require
from sheaf.core.settings import parse, settings

PositiveFloat = Annotated[float, Field(gt=0)]


@settings
class EdgeSettings:
    """The keys of ``[edge]``.

    Attributes:
        width: fraction of the model's channels that the device can train, in (0, 1]; cuts depend on it.
        macs: maximum multiply-adds of one forward pass per example; unset: no limit.
        parameters: maximum number of parameters of a trained model; unset: no limit.
        device: torch device for training.
        threads: number of torch threads; 0: torch's default.
        held_out: fraction of the data that the device does not train on, in [0, 1), for its own decisions;
            unset: as the experiment says.
        cache: whether the decoded examples of a folder are stored in a cache on the device's disk, from which
            later runs map them into memory. The folder is ``$SHEAF_CACHE``, by default ``~/.cache/sheaf``.
        allow: names ``package.module:object`` of models and losses that are not shipped with sheaf and that
            the device imports when the cloud requests them. Importing executes their code; all other names
            with a colon are refused.
        guard: a new model replaces the device's current one unless its accuracy on the held-out samples (mean
            over the classes) is lower by more than this, in [0, 1]; one sample is always tolerated. ``off``:
            it always does.
        keep_models: number of models that the device keeps, the current one included, at least 1.
        formats: formats in which the current model is also written: ``onnx``, ``pt2``.
        max_epochs: maximum number of epochs of one task, at least 1.
        max_mb: maximum size of a received tensor file, and of a model, in megabytes.
    """

    width: Annotated[float, Field(gt=0, le=1)] = 1.0
    macs: PositiveFloat | None = None
    parameters: PositiveFloat | None = None
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    threads: Annotated[int, Field(ge=0)] = 0
    held_out: Annotated[float, Field(ge=0, lt=1)] | None = None
    cache: bool = True
    allow: tuple[str, ...] = ()
    guard: Annotated[float, Field(ge=0, le=1)] | Literal["off"] = 0.02
    keep_models: Annotated[int, Field(ge=1)] = 5
    formats: tuple[Literal["onnx", "pt2"], ...] = ()
    max_epochs: Annotated[int, Field(ge=1)] = 1000
    max_mb: PositiveFloat = 2000.0


@settings
class ShareSettings:
    """The keys of ``[share]``: what may leave the device beside models; by default, nothing.

    Attributes:
        max_fraction: maximum fraction of the training samples, over all runs, in [0, 1].
        max_mb: maximum size of these in megabytes, as tensors; unset: no limit beyond the fraction.
        files: which images leave as their JPEG or PNG file, without metadata, where the file is smaller than
            the decoded image: ``same``, those that already have the fleet's size and channels, so that no
            more leaves than the decoded image; ``any``, also those that the fleet makes smaller or grey, of
            which the original then leaves; ``none``.
        statistics: whether statistics of the training samples may leave: sums of features by class, of the
            inputs of layers, second moments of these, or the states of optimizers.
        max_epsilon: maximum privacy loss of all statistics over all runs, at the delta of the experiment:
            statistics without noise are refused; above 0. Unset: no limit.
    """

    max_fraction: Annotated[float, Field(ge=0, le=1)] = 0.0
    max_mb: Annotated[float, Field(ge=0)] | None = None
    files: Literal["none", "same", "any"] = "same"
    statistics: bool = False
    max_epsilon: PositiveFloat | None = None

    def __post_init__(self) -> None:
        if self.max_epsilon is not None:
            require("privacy", "dp_accounting")  # before a run, as the accounting comes after its training


@settings
class EdgeFile:
    """The tables of ``edge.toml``.

    Attributes:
        edge: ``[edge]``.
        share: ``[share]``.
    """

    edge: EdgeSettings = field(default_factory=EdgeSettings)
    share: ShareSettings = field(default_factory=ShareSettings)


def read_edge_file(path: Path) -> EdgeFile:
    """Read an ``edge.toml``.

    Raises:
        SettingError: the file is not TOML, or a key or value is wrong.
    """
    try:
        table = toml.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, toml.DecodeError) as error:
        raise SettingError(f"{path} cannot be read as TOML: {error}") from error
    return parse(EdgeFile, table)


@dataclass(frozen=True)
class Joined:
    """The configuration of a device that has joined a fleet.

    Attributes:
        edge: its name.
        data: its data.
        own: its settings.
    """

    edge: str
    data: Path
    own: EdgeFile


def read_joined(folder: Path) -> Joined:
    """Return the configuration that ``sheaf edge join`` wrote in a device's folder.

    Raises:
        FleetError: it is damaged.
    """
    path = folder / "join.json"
    try:
        joined = json.loads(path.read_text(encoding="utf-8"))
        return Joined(joined["edge"], Path(joined["data"]), parse(EdgeFile, joined["file"]))
    except (OSError, ValueError, KeyError, TypeError, SettingError) as error:
        raise FleetError(f"{path} is damaged ({error}); repeat sheaf edge join") from error
