"""FLARE's processes. An idle device imports this module; it does not import torch.

Private parts of FLARE: the modules ``server_train`` and ``client_train`` with their arguments, and the texts
in their logs that ``REJECTIONS`` matches.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib.util
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

from sheaf.core.errors import FleetError
from sheaf.core.optional_imports import install_command
from sheaf.fleets.remote import training_heap

PROJECT = "sheaf"
"""FLARE's name of the fleet, the same in all of its files."""

SERVER = "nvflare.private.fed.app.server.server_train"
CLIENT = "nvflare.private.fed.app.client.client_train"

FLEET = "SHEAF_FLEET"
"""The environment variable of the server's process with the fleet's folder."""

HEARTBEAT = 2
"""Time between two heartbeats of a device, in seconds."""

REJECTIONS = (
    (re.compile(r"is disabled"), "the cloud has removed this device; its kit is revoked"),
    (
        re.compile(r"CERTIFICATE_VERIFY_FAILED|certificate verify failed"),
        "the cloud is of another fleet; check the kit",
    ),
)
"""Patterns in the logs of a device's FLARE process, and their meaning to its user."""

PR_SET_PDEATHSIG = 1


def check_installed() -> None:
    """Check that NVIDIA FLARE is installed.

    Raises:
        FleetError: it is not; names the command that installs it.
    """
    if importlib.util.find_spec("nvflare") is None:
        raise FleetError(f"a real fleet needs NVIDIA FLARE; install it with: {install_command('fleet')}")


def start_cloud(workspace: Path, environment: dict[str, str]) -> subprocess.Popen[bytes]:
    """Start the server process."""
    return _start(workspace, SERVER, "fed_server.json", [], environment)


def start_edge(workspace: Path, edge: str, environment: dict[str, str]) -> subprocess.Popen[bytes]:
    """Start a device's process, which starts the processes of jobs."""
    settings = [f"uid={edge}", f"heart_beat_interval={HEARTBEAT}"]
    return _start(workspace, CLIENT, "fed_client.json", settings, environment)


def _start(
    workspace: Path, module: str, config: str, settings: list[str], environment: dict[str, str]
) -> subprocess.Popen[bytes]:
    settings = ["secure_train=true", f"org={PROJECT}", "config_folder=config", *settings]
    command = [sys.executable, "-u", "-m", module, "-m", str(workspace), "-s", config, "--set", *settings]
    with (workspace / "output.txt").open("ab") as output:
        return subprocess.Popen(
            command,
            cwd=workspace,
            env=os.environ | training_heap.SETTINGS | environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=_end_with_parent,
        )


def _end_with_parent() -> None:
    """Make Linux kill this process when its parent ends, even by a signal."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def stop(process: subprocess.Popen[bytes]) -> None:
    """End a process and its process group. A device's job is in a group of its own: see ``job_process``."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=3)
            break
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
