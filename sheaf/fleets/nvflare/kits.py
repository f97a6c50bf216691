"""A device's kit: the address of its cloud, its key and its certificates, in one file of mode 0600.

A kit contains neither code nor configuration of code.
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
from sheaf.core.site_names import check_edge_name

Pem = Annotated[str, Field(max_length=20_000, pattern=r"^-----BEGIN [A-Z ]+-----\n")]
Port = Annotated[int, Field(ge=1, le=65535)]
Host = Annotated[str, Field(pattern=r"^[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?$")]


@settings
class Kit:
    """The credentials of one device in one fleet.

    Attributes:
        edge: name of the device.
        host, port: address of the cloud; the cloud's certificate is for this host.
        authority: certificate of the fleet's authority, PEM.
        certificate: certificate of the device, PEM.
        key: private key of the device, PEM.
    """

    edge: str
    host: Host
    port: Port
    authority: Pem
    certificate: Pem
    key: Pem

    def write(self, path: Path) -> None:
        """Write the kit with mode 0600."""
        write_private(path, json.dumps({"kit": asdict(self)}, indent=1))

    @classmethod
    def read(cls, path: Path) -> Kit:
        """Read a kit.

        Raises:
            FleetError: the file cannot be read, is not a kit, or is readable by other users.
        """
        try:
            mode = stat.S_IMODE(path.stat().st_mode)
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise FleetError(f"{path} cannot be read as a kit: {error}") from error
        if mode & 0o077:
            raise FleetError(
                f"{path} holds a private key and others can read it (mode {mode:04o}): chmod 600 {path}; "
                "if others may have copied it, replace it: sheaf cloud remove, sheaf cloud add"
            )
        try:
            kit = parse(cls, json.loads(text)["kit"], "kit")
            check_edge_name(kit.edge)
        except (ValueError, KeyError, TypeError, SettingError, PartitionError) as error:
            raise FleetError(f"{path} is not a kit: {error}; get a new one from the cloud") from error
        return kit


def write_private(path: Path, text: str) -> None:
    """Write a file of mode 0600, replacing an existing one."""
    path.unlink(missing_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
        file.write(text)
