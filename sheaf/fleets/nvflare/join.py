"""What a device does once, before it waits for work: everything is checked, FLARE's files are written."""

from __future__ import annotations

import json
from pathlib import Path

from sheaf.core.errors import DataError
from sheaf.core.settings import plain
from sheaf.fleets.nvflare.kits import Kit, write_private
from sheaf.fleets.nvflare.site_config import write_edge
from sheaf.fleets.remote.device_settings import EdgeFile, read_edge_file


def get_ready(kit: Path, data: Path, settings: Path | None, state: Path | None) -> tuple[str, Path]:
    """Makes a device ready to wait; returns its name and the folder in which it keeps what it holds.

    Raises:
        FleetError: the kit cannot be used.
        SettingError: the device's own file is wrong.
        DataError: there is no data.
    """
    read = Kit.read(kit)
    own = EdgeFile() if settings is None else read_edge_file(settings)
    if not data.exists():
        raise DataError(f"{data}: there is no such folder or file")
    folder = (state or kit.parent / f"{read.edge}.state").resolve()
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    write_edge(folder / "flare", read)
    told = {"edge": read.edge, "data": str(data.resolve()), "file": plain(own)}
    write_private(folder / "join.json", json.dumps(told))
    return read.edge, folder
