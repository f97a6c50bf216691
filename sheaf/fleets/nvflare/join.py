"""Joining a fleet: checks of a device's files, and the configuration of its FLARE process."""

from __future__ import annotations

import json
from pathlib import Path

from sheaf.core.errors import DataError
from sheaf.core.optional_imports import require
from sheaf.core.settings import plain
from sheaf.fleets.nvflare.kits import Kit, write_private
from sheaf.fleets.nvflare.site_config import write_edge
from sheaf.fleets.remote.device_settings import EdgeFile, read_edge_file


def configure_device(kit: Path, data: Path, settings: Path | None, state: Path | None) -> tuple[str, Path]:
    """Check a device's files and write its configuration; return its name and its folder.

    Args:
        kit: the kit file.
        data: the device's data.
        settings: its ``edge.toml``.
        state: its folder; default: beside the kit.

    Raises:
        FleetError: the kit cannot be used.
        SettingError: the settings are wrong.
        DataError: the data does not exist.
        MissingExtraError: a format of ``[edge] formats`` needs a library that is not installed.
    """
    parsed = Kit.read(kit)
    own = EdgeFile() if settings is None else read_edge_file(settings)
    if "onnx" in own.edge.formats:
        for library in ("onnx", "onnxscript"):
            require("export", library)
    if not data.exists():
        raise DataError(f"{data} does not exist; name a folder or a .safetensors file with --data")
    folder = (state or kit.parent / f"{parsed.edge}.state").resolve()
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    write_edge(folder / "flare", parsed)
    joined = {"edge": parsed.edge, "data": str(data.resolve()), "file": plain(own)}
    write_private(folder / "join.json", json.dumps(joined))
    return parsed.edge, folder
