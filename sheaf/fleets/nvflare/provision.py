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
from collections.abc import Sequence
from dataclasses import field, replace
from fnmatch import fnmatchcase
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

LABEL = "label:"
"""Beginning of a pattern that selects devices by their labels."""

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
        groups: device -> the group it is in, such as its site.
        labels: device -> its labels.
    """

    host: Host
    port: Port = 8002
    edges: Annotated[tuple[str, ...], Field(min_length=1)]
    removed: tuple[str, ...] = ()
    groups: dict[str, str] = field(default_factory=dict)
    labels: dict[str, tuple[str, ...]] = field(default_factory=dict)

    def choose(self, patterns: Sequence[str]) -> tuple[str, ...]:
        """Return the devices that match one of the patterns, in the order of summation; all without patterns.

        Args:
            patterns: of names (``shop-*``), of groups and names (``berlin/*``), or of labels
                (``label:camera``), with the wildcards of a shell.

        Raises:
            FleetError: a pattern matches no device.
        """
        chosen: set[str] = set()
        for pattern in patterns:
            matching = {edge for edge in self.edges if self._matches(edge, pattern)}
            if not matching:
                groups = sorted({f"{group}/*" for group in self.groups.values()})
                known = ", ".join([*groups, *self.edges][:20])
                raise FleetError(f"--edges {pattern}: no device matches; there are: {known}")
            chosen |= matching
        return tuple(edge for edge in self.edges if edge in chosen or not patterns)

    def _matches(self, edge: str, pattern: str) -> bool:
        if pattern.startswith(LABEL):
            names = list(self.labels.get(edge, ()))
            pattern = pattern.removeprefix(LABEL)
        elif "/" in pattern:
            names = [f"{self.groups[edge]}/{edge}"] if edge in self.groups else []
        else:
            names = [edge]
        return any(fnmatchcase(name, pattern) for name in names)


def init(folder: Path, host: str, port: int, edges: list[str]) -> FleetFile:
    """Create a fleet: keys, certificates, and a kit for each device.

    Args:
        folder: of the fleet.
        host, port: address of the cloud.
        edges: names of the devices, ``NAME`` or ``GROUP/NAME``.

    Raises:
        FleetError: the folder is not empty, or the name of a device is invalid.
        SettingError: the host or the port is invalid, or there is no device.
    """
    if folder.exists() and any(folder.iterdir()):
        raise FleetError(f"{folder} is not empty; name another folder, or see: sheaf cloud edges {folder}")
    groups, edges = _split_groups(edges)
    fleet = parse(FleetFile, {"host": host, "port": port, "edges": edges, "groups": groups})
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

    Args:
        folder: of the fleet.
        name: of the device, ``NAME`` or ``GROUP/NAME``.

    Raises:
        FleetError: the name is in use, was in use, or is invalid.
    """
    fleet = read(folder)
    groups, (name,) = _split_groups([name])
    if name in fleet.edges or name in fleet.removed:
        past = "was once" if name in fleet.removed else "is already"
        raise FleetError(f"{name} {past} in the fleet; choose another name")
    fleet = replace(fleet, edges=(*fleet.edges, name), groups=fleet.groups | groups)
    _provision(folder, fleet, [name])
    _write(folder, fleet)
    return folder / "kits" / f"{name}.kit"


def remove(folder: Path, name: str) -> None:
    """Revoke the kit of a device; a running server must be informed, see ``session.disable_device``.

    Raises:
        FleetError: the fleet does not have this device, or has no other one.
    """
    fleet = read(folder)
    _check_member(fleet, name)
    if len(fleet.edges) == 1:
        raise FleetError(f"{name} is the fleet's only device; add another one first")
    rest = tuple(edge for edge in fleet.edges if edge != name)
    groups = {edge: group for edge, group in fleet.groups.items() if edge != name}
    labels = {edge: own for edge, own in fleet.labels.items() if edge != name}
    fleet = replace(fleet, edges=rest, removed=(*fleet.removed, name), groups=groups, labels=labels)
    _write(folder, fleet)
    (folder / "kits" / f"{name}.kit").unlink(missing_ok=True)


def label(
    folder: Path, name: str, group: str | None = None, add: Sequence[str] = (), drop: Sequence[str] = ()
) -> FleetFile:
    """Change the group and the labels of a device; the cloud can keep running.

    Args:
        folder: of the fleet.
        name: of the device.
        group: the new group; empty: no group; None: the same.
        add: labels to add.
        drop: labels to remove.

    Raises:
        FleetError: the fleet does not have this device, or a group or a label has an invalid name.
    """
    fleet = read(folder)
    _check_member(fleet, name)
    _check_names([*add, *([group] if group else [])], "a group or a label")
    groups, labels = dict(fleet.groups), dict(fleet.labels)
    if group is not None:
        groups.pop(name, None)
    if group:
        groups[name] = group
    own = dict.fromkeys([*labels.pop(name, ()), *add])
    if rest := tuple(each for each in own if each not in drop):
        labels[name] = rest
    fleet = replace(fleet, groups=groups, labels=labels)
    _write(folder, fleet)
    return fleet


def write_workspace(folder: Path, fleet: FleetFile) -> Path:
    """Write the files that FLARE's server reads at its start; return their folder."""
    workspace = folder.resolve() / "server"
    write_cloud(workspace, folder / "authority" / "server", fleet.host, fleet.port, fleet.removed)
    return workspace


def _check_member(fleet: FleetFile, name: str) -> None:
    if name not in fleet.edges:
        raise FleetError(f"{name} is not in the fleet; its devices: {', '.join(fleet.edges)}")


def _split_groups(names: list[str]) -> tuple[dict[str, str], list[str]]:
    """Return (device -> group, devices) of names ``NAME`` or ``GROUP/NAME``, after checking them."""
    groups, edges = {}, []
    for name in names:
        group, slash, edge = name.rpartition("/")
        edges.append(edge)
        if slash:
            _check_names([group], "a group")
            groups[edge] = group
    _check_names(edges)
    for name in edges:
        if name == "server":
            raise FleetError("an edge cannot be named 'server': FLARE's server has that name")
        if edges.count(name) > 1:
            raise FleetError(f"two edges are named {name!r}; each needs its own name")
    return groups, edges


def _check_names(names: Sequence[str], kind: str = "an edge") -> None:
    for name in names:
        try:
            check_edge_name(name)
        except PartitionError as error:
            raise FleetError(str(error).replace("an edge", kind, 1)) from error


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
