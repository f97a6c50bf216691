"""Hosts of a network on this machine: network namespaces, connected to the first one by cables (veth).

Each host has its own folder, its own ``/srv``, and names of other hosts in its own ``/etc/hosts``. It needs
root and ``ip``.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Host:
    """A host.

    Attributes:
        name: of its namespace.
        folder: in which its commands run; ``srv`` in it is its ``/srv``.
    """

    name: str
    folder: Path

    def command(self, line: str) -> list[str]:
        """Return the arguments of a process that runs a line of a shell on this host."""
        inside = f"mount --bind {self.folder}/srv /srv && exec bash -c {shlex.quote(line)}"
        return ["ip", "netns", "exec", self.name, "bash", "-c", inside]

    def start(self, line: str, log: Path) -> subprocess.Popen[bytes]:
        """Start a line of a shell in the background."""
        with log.open("wb") as output:
            return subprocess.Popen(
                self.command(line),
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )

    def run(self, line: str) -> subprocess.CompletedProcess[str]:
        """Run a line of a shell; standard output and standard error are one text."""
        return subprocess.run(
            self.command(line),
            cwd=self.folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=600,
        )


def why_not() -> str | None:
    """Return why this machine cannot have such hosts, or None if it can."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    if shutil.which("ip") is None:
        return "network namespaces need the command ip (package iproute2)"
    name = f"sheaf-{os.getpid()}-try"
    tried = subprocess.run(["ip", "netns", "add", name], capture_output=True, text=True)
    if tried.returncode:
        return f"network namespaces cannot be made: {tried.stderr.strip()}"
    tried = subprocess.run(
        ["ip", "-n", name, "link", "add", "try0", "type", "veth", "peer", "name", "try1"],
        capture_output=True,
        text=True,
    )
    subprocess.run(["ip", "netns", "delete", name], check=True)
    return f"veth devices cannot be made: {tried.stderr.strip()}" if tried.returncode else None


@contextmanager
def hosts(folder: Path, server: str, *clients: str) -> Iterator[Mapping[str, Host]]:
    """Yield ``cloud`` and the clients, which are connected to it and know it by the name ``server``."""
    made: dict[str, Host] = {}
    prefix = f"sheaf-{os.getpid()}"
    try:
        for number, name in enumerate(("cloud", *clients)):
            host = made[name] = Host(f"{prefix}-{name}", folder / name)
            (host.folder / "srv").mkdir(parents=True)
            _ip("netns", "add", host.name)
            _ip("-n", host.name, "link", "set", "lo", "up")
            address = "127.0.0.1" if name == "cloud" else f"10.99.{number}.1"
            names = Path("/etc/netns", host.name, "hosts")
            names.parent.mkdir(parents=True)
            names.write_text(f"127.0.0.1 localhost\n{address} {server}\n")
            if name == "cloud":
                continue
            cloud, cable = made["cloud"].name, f"edge{number}"
            _ip("-n", cloud, "link", "add", cable, "type", "veth", "peer", "name", "eth0", "netns", host.name)
            for where, device, last in ((cloud, cable, 1), (host.name, "eth0", 2)):
                _ip("-n", where, "address", "add", f"10.99.{number}.{last}/24", "dev", device)
                _ip("-n", where, "link", "set", device, "up")
        yield made
    finally:
        for host in made.values():
            subprocess.run(["ip", "netns", "delete", host.name], capture_output=True)
            shutil.rmtree(Path("/etc/netns", host.name), ignore_errors=True)


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True)
