"""The device's own file, ``edge.toml``: what the device allows, whatever the cloud asks for."""

from __future__ import annotations

from dataclasses import field
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from sheaf.core import toml
from sheaf.core.errors import SettingError
from sheaf.core.settings import parse, settings

Amount = Annotated[float, Field(gt=0)]


@settings
class EdgeSettings:
    """The keys under ``[edge]``.

    Attributes:
        width: the fraction of the model's width that the device can carry; what cuts go by.
        macs: multiply-adds of one example, forward, that it trains at most; nothing said is no limit.
        parameters: numbers that it holds at most.
        device: where it computes.
        threads: how many threads torch computes with; 0 leaves that to torch.
        held_out: share of its data that it keeps back for its own decisions; unset: as the experiment says.
        allow: names ``package.module:object`` of models that it loads when the cloud names them.
        max_epochs: passes over its data that one task may ask for.
        max_mb: size of the largest message that it takes, in megabytes.
    """

    width: Annotated[float, Field(gt=0, le=1)] = 1.0
    macs: Amount | None = None
    parameters: Amount | None = None
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    threads: Annotated[int, Field(ge=0)] = 0
    held_out: Annotated[float, Field(ge=0, lt=1)] | None = None
    allow: tuple[str, ...] = ()
    max_epochs: Annotated[int, Field(ge=1)] = 1000
    max_mb: Amount = 2000.0


@settings
class ShareSettings:
    """The keys under ``[share]``: how much of its data may ever leave the device; nothing, if not said.

    Attributes:
        max_fraction: of its training samples, over all runs together.
        max_mb: in megabytes, over all runs together; nothing said is no limit beyond the fraction.
    """

    max_fraction: Annotated[float, Field(ge=0, le=1)] = 0.0
    max_mb: Annotated[float, Field(ge=0)] | None = None


@settings
class EdgeFile:
    """All of ``edge.toml``."""

    edge: EdgeSettings = field(default_factory=EdgeSettings)
    share: ShareSettings = field(default_factory=ShareSettings)


def read_edge_file(path: Path) -> EdgeFile:
    """Reads a device's own file.

    Raises:
        SettingError: it cannot be read as TOML, or a key or value is wrong.
    """
    try:
        table = toml.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, toml.DecodeError) as error:
        raise SettingError(f"{path} cannot be read as TOML: {error}") from error
    return parse(EdgeFile, table)
