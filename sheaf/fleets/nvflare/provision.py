"""A fleet's folder on the cloud's machine: its devices, its certificate authority, its kits.

``fleet.toml`` names host, port and devices; ``authority/`` holds the key that signs all others; ``kits/`` the
file of each device; ``server/`` and ``admin/`` what the cloud's own processes use. All is its owner's alone.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import tomli_w
from pydantic import Field

from sheaf.core import toml
from sheaf.core.errors import FleetError, PartitionError
from sheaf.core.settings import parse, plain, settings
from sheaf.core.types import check_edge_name
from sheaf.fleets.nvflare.kits import Host, Kit, Port, write_private
from sheaf.fleets.nvflare.processes import PROJECT
from sheaf.fleets.nvflare.site_config import ADMIN, write_cloud

FLARE = "import sys; from nvflare.cli import main; sys.exit(main())"
"""Runs FLARE's command line."""

VALID_DAYS = 3650
"""Of the authority and of every certificate that it signs."""


@settings
class FleetFile:
    """All of ``fleet.toml``.

    Attributes:
        host: the name under which devices reach the cloud; its certificate is for this name.
        edges: the devices, in the fixed order in which sums run.
        removed: devices that are let in no more.
    """

    host: Host
    port: Port = 8002
    edges: Annotated[tuple[str, ...], Field(min_length=1)]
    removed: tuple[str, ...] = ()


def init(folder: Path, host: str, port: int, edges: list[str]) -> FleetFile:
    """Makes a fleet: keys, certificates, and a kit for each device.

    Raises:
        FleetError: the folder is in use, or a device cannot have that name.
    """
    if folder.exists() and any(folder.iterdir()):
        raise FleetError(f"{folder} is not empty; name another folder, or see: sheaf cloud edges {folder}")
    _check_names(edges)
    fleet = parse(FleetFile, {"host": host, "port": port, "edges": edges})
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder.chmod(0o700)
    try:
        _provision(folder, fleet, edges)
        _write(folder, fleet)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)  # half a fleet is of no use
        raise
    return fleet


def read(folder: Path) -> FleetFile:
    """The fleet in ``folder``.

    Raises:
        FleetError: there is none.
        SettingError: its file is damaged.
    """
    try:
        return parse(FleetFile, toml.loads((folder / "fleet.toml").read_text(encoding="utf-8")))
    except (OSError, UnicodeDecodeError, toml.DecodeError) as error:
        raise FleetError(f"{folder} holds no fleet; make one with: sheaf cloud init {folder}") from error


def add(folder: Path, name: str) -> Path:
    """Makes the kit of one more device, or a new one for a device that was removed; returns its file.

    A device that was removed must come back under another name: its old certificate is still signed.

    Raises:
        FleetError: there is such a device.
    """
    fleet = read(folder)
    if name in fleet.edges or name in fleet.removed:
        past = "was once" if name in fleet.removed else "is already"
        raise FleetError(f"{name} {past} in the fleet; give another name")
    _check_names([name])
    fleet = replace(fleet, edges=(*fleet.edges, name))
    _provision(folder, fleet, [name])
    _write(folder, fleet)
    return folder / "kits" / f"{name}.kit"


def remove(folder: Path, name: str) -> None:
    """Lets a device in no more, from its next sign of life on.

    Raises:
        FleetError: there is no such device, or it is the last one.
    """
    fleet = read(folder)
    if name not in fleet.edges:
        raise FleetError(f"{name} is not in the fleet; there are: {', '.join(fleet.edges)}")
    if len(fleet.edges) == 1:
        raise FleetError(f"{name} is the fleet's only device")
    rest = tuple(edge for edge in fleet.edges if edge != name)
    fleet = replace(fleet, edges=rest, removed=(*fleet.removed, name))
    _write(folder, fleet)
    (folder / "kits" / f"{name}.kit").unlink(missing_ok=True)


def write_workspace(folder: Path, fleet: FleetFile) -> Path:
    """Writes anew what the server reads when it starts, the devices that are out among it."""
    workspace = folder.resolve() / "server"
    write_cloud(workspace, folder / "authority" / "server", fleet.host, fleet.port)
    write_private(workspace / "disabled_clients.json", json.dumps({"disabled_clients": list(fleet.removed)}))
    return workspace


def _check_names(edges: list[str]) -> None:
    for name in edges:
        try:
            check_edge_name(name)
        except PartitionError as error:
            raise FleetError(str(error)) from error
        if name == "server":
            raise FleetError("an edge cannot be named 'server'")
        if edges.count(name) > 1:
            raise FleetError(f"two edges are named {name!r}")


def _write(folder: Path, fleet: FleetFile) -> None:
    write_private(folder / "fleet.toml", tomli_w.dumps(plain(fleet)))


def _provision(folder: Path, fleet: FleetFile, new: list[str]) -> None:
    """Has FLARE sign what is not signed yet, and packs the kits of the ``new`` devices.

    FLARE keeps its authority's key in ``state/cert.json`` and signs again what it has signed before from it,
    so the certificates of the others stay as they are.
    """
    authority = folder.resolve() / "authority"
    authority.mkdir(mode=0o700, exist_ok=True)
    builders = "nvflare.lighter.impl"
    project = {
        "api_version": 3,
        "name": PROJECT,
        "description": "a fleet of sheaf's",
        "participants": [
            {"name": fleet.host, "type": "server", "org": PROJECT, "fed_learn_port": fleet.port},
            {"name": ADMIN, "type": "admin", "org": PROJECT, "role": "project_admin"},
            *({"name": name, "type": "client", "org": PROJECT} for name in (*fleet.edges, *fleet.removed)),
        ],
        "builders": [
            {"path": f"{builders}.workspace.WorkspaceBuilder"},
            {
                "path": f"{builders}.static_file.StaticFileBuilder",
                "args": {"config_folder": "config", "scheme": "grpc"},
            },
            {"path": f"{builders}.cert.CertBuilder", "args": {"root_valid_days": VALID_DAYS}},
            {"path": f"{builders}.signature.SignatureBuilder"},
        ],
    }
    file = authority / "project.yml"
    write_private(file, json.dumps(project))  # JSON is YAML
    done = subprocess.run(
        [sys.executable, "-c", FLARE, "provision", "-p", file, "-w", authority / "signed", "--force"],
        capture_output=True,
        text=True,
        cwd=authority,
    )
    signed = sorted((authority / "signed" / PROJECT).glob("prod_*"))
    if done.returncode or not signed:
        raise FleetError(f"FLARE could not make the kits: {(done.stderr or done.stdout).strip()[-300:]}")
    _private(authority)
    server, admin = signed[-1] / fleet.host / "startup", signed[-1] / ADMIN
    if not (authority / "server").exists():
        shutil.copytree(server, authority / "server")
        shutil.copytree(admin, folder / "admin")
    (folder / "kits").mkdir(mode=0o700, exist_ok=True)
    for name in new:
        startup = signed[-1] / name / "startup"
        Kit(
            edge=name,
            host=fleet.host,
            port=fleet.port,
            authority=(startup / "rootCA.pem").read_text(),
            certificate=(startup / "client.crt").read_text(),
            key=(startup / "client.key").read_text(),
        ).write(folder / "kits" / f"{name}.kit")
    for old in signed:
        shutil.rmtree(old)
    _private(folder / "admin")


def _private(folder: Path) -> None:
    """Takes everybody's rights to what is below but the owner's."""
    for path in [folder, *folder.rglob("*")]:
        path.chmod(0o700 if path.is_dir() else 0o600)
