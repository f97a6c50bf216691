"""The kit of a device: all that it needs to reach its cloud and to be let in, in one file of mode 0600.

It holds names, keys and certificates, and nothing that is run or configures what is run.
"""

from __future__ import annotations

import json
import os
import stat
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

from pydantic import Field

from sheaf.core.errors import FleetError, PartitionError, SettingError
from sheaf.core.settings import parse, settings
from sheaf.core.types import check_edge_name

Pem = Annotated[str, Field(max_length=20_000, pattern=r"^-----BEGIN [A-Z ]+-----\n")]
Port = Annotated[int, Field(ge=1, le=65535)]
Host = Annotated[str, Field(pattern=r"^[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?$")]


@settings
class Kit:
    """What lets one device into one fleet.

    Attributes:
        edge: the device's name.
        host, port: where the cloud listens; its certificate is for this name.
        authority: the fleet's certificate authority, PEM.
        certificate: the device's own, PEM.
        key: the private key to it, PEM.
    """

    edge: str
    host: Host
    port: Port
    authority: Pem
    certificate: Pem
    key: Pem

    def write(self, path: Path) -> None:
        """Writes the kit so that nobody but its owner can read it."""
        write_private(path, json.dumps({"kit": asdict(self)}, indent=1))

    @classmethod
    def read(cls, path: Path) -> Kit:
        """Reads a kit.

        Raises:
            FleetError: it cannot be read, is no kit, or others than its owner can read it.
        """
        try:
            mode = stat.S_IMODE(path.stat().st_mode)
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise FleetError(f"{path} cannot be read as a kit: {error}") from error
        if mode & 0o077:
            raise FleetError(
                f"{path} holds a private key and others can read it (mode {mode:04o}): chmod 600 {path}; "
                "if it lay so for long, have the cloud make a new one"
            )
        try:
            kit = parse(cls, json.loads(text)["kit"], "kit")
            check_edge_name(kit.edge)
        except (ValueError, KeyError, TypeError, SettingError, PartitionError) as error:
            raise FleetError(f"{path} is no kit: {error}") from error
        return kit


def write_private(path: Path, text: str) -> None:
    """Writes a file of mode 0600, whatever was there before."""
    path.unlink(missing_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
        file.write(text)
