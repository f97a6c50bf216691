"""A fleet's folder on the cloud: its devices, certificate authority and kits, for its owner only.

``fleet.toml`` contains the host, the port and the devices; ``authority/`` the key that signs all
certificates; ``kits/`` the kit of each device; ``server/``, ``admin/`` the files of the cloud's processes.

Private parts of FLARE: the folders ``state/`` and ``prod_NN/`` that ``nvflare provision`` writes. It keeps
the authority's key and all certificates in ``state/cert.json``, so that a later call does not change them.
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
from sheaf.core.site_names import check_edge_name
from sheaf.fleets.nvflare.kits import Host, Kit, Port, write_private
from sheaf.fleets.nvflare.processes import PROJECT
from sheaf.fleets.nvflare.site_config import ADMIN, write_cloud

FLARE = "import sys; from nvflare.cli import main; sys.exit(main())"
"""FLARE's command line, as an argument of ``python -c``."""

VALID_DAYS = 3650
"""Validity of the authority and of all certificates, in days."""


@settings
class FleetFile:
    """The keys of ``fleet.toml``.

    Attributes:
        host: host name of the cloud; its certificate is for this name.
        port: port of the cloud, 1 to 65535.
        edges: names of the devices, in the order of summation.
        removed: names of the devices whose kits are revoked.
    """

    host: Host
    port: Port = 8002
    edges: Annotated[tuple[str, ...], Field(min_length=1)]
    removed: tuple[str, ...] = ()


def init(folder: Path, host: str, port: int, edges: list[str]) -> FleetFile:
    """Create a fleet: keys, certificates, and a kit for each device.

    Raises:
        FleetError: the folder is not empty, or the name of a device is invalid.
        SettingError: the host or the port is invalid, or there is no device.
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
        shutil.rmtree(folder, ignore_errors=True)  # so that ``init`` can be repeated
        raise
    return fleet


def read(folder: Path) -> FleetFile:
    """Return the ``fleet.toml`` of ``folder``.

    Raises:
        FleetError: the folder has no readable ``fleet.toml``.
        SettingError: a key or value in it is wrong.
    """
    try:
        return parse(FleetFile, toml.loads((folder / "fleet.toml").read_text(encoding="utf-8")))
    except (OSError, UnicodeDecodeError, toml.DecodeError) as error:
        raise FleetError(f"{folder} holds no fleet; make one with: sheaf cloud init {folder}") from error


def add(folder: Path, name: str) -> Path:
    """Add a device and return the path of its kit.

    A removed device needs a new name: the certificate of its old name is still valid.

    Raises:
        FleetError: the name is in use, was in use, or is invalid.
    """
    fleet = read(folder)
    if name in fleet.edges or name in fleet.removed:
        past = "was once" if name in fleet.removed else "is already"
        raise FleetError(f"{name} {past} in the fleet; choose another name")
    _check_names([name])
    fleet = replace(fleet, edges=(*fleet.edges, name))
    _provision(folder, fleet, [name])
    _write(folder, fleet)
    return folder / "kits" / f"{name}.kit"


def remove(folder: Path, name: str) -> None:
    """Revoke the kit of a device; a running server must be informed, see ``session.disable_device``.

    Raises:
        FleetError: the fleet does not have this device, or has no other one.
    """
    fleet = read(folder)
    if name not in fleet.edges:
        raise FleetError(f"{name} is not in the fleet; its devices: {', '.join(fleet.edges)}")
    if len(fleet.edges) == 1:
        raise FleetError(f"{name} is the fleet's only device; add another one first")
    rest = tuple(edge for edge in fleet.edges if edge != name)
    fleet = replace(fleet, edges=rest, removed=(*fleet.removed, name))
    _write(folder, fleet)
    (folder / "kits" / f"{name}.kit").unlink(missing_ok=True)


def write_workspace(folder: Path, fleet: FleetFile) -> Path:
    """Write the files that FLARE's server reads at its start; return their folder."""
    workspace = folder.resolve() / "server"
    write_cloud(workspace, folder / "authority" / "server", fleet.host, fleet.port, fleet.removed)
    return workspace


def _check_names(edges: list[str]) -> None:
    for name in edges:
        try:
            check_edge_name(name)
        except PartitionError as error:
            raise FleetError(str(error)) from error
        if name == "server":
            raise FleetError("an edge cannot be named 'server': FLARE's server has that name")
        if edges.count(name) > 1:
            raise FleetError(f"two edges are named {name!r}; each needs its own name")


def _write(folder: Path, fleet: FleetFile) -> None:
    write_private(folder / "fleet.toml", tomli_w.dumps(plain(fleet)))


def _provision(folder: Path, fleet: FleetFile, new: list[str]) -> None:
    """Let FLARE sign the certificates of the ``new`` devices, and write their kits."""
    authority = folder.resolve() / "authority"
    authority.mkdir(mode=0o700, exist_ok=True)
    builders = "nvflare.lighter.impl"
    project = {
        "api_version": 3,
        "name": PROJECT,
        "description": "a fleet of sheaf",
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
        raise FleetError(f"nvflare provision failed: {(done.stderr or done.stdout).strip()[-300:]}")
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
    """Remove all permissions of other users below ``folder``."""
    for path in [folder, *folder.rglob("*")]:
        path.chmod(0o700 if path.is_dir() else 0o600)
