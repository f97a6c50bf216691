"""FLARE's own processes, started plainly. Imported by a waiting device: nothing here imports torch."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

PROJECT = "sheaf"

HEARTBEAT = 2
"""Seconds between a device's signs of life."""


def start_cloud(workspace: Path, environment: dict[str, str]) -> subprocess.Popen[bytes]:
    """Starts the server process."""
    return _start(
        workspace,
        "nvflare.private.fed.app.server.server_train",
        "fed_server.json",
        ["secure_train=true", f"org={PROJECT}", "config_folder=config"],
        environment,
    )


def start_edge(workspace: Path, edge: str, environment: dict[str, str]) -> subprocess.Popen[bytes]:
    """Starts the process that waits for the cloud's jobs."""
    return _start(
        workspace,
        "nvflare.private.fed.app.client.client_train",
        "fed_client.json",
        [
            "secure_train=true",
            f"uid={edge}",
            f"org={PROJECT}",
            "config_folder=config",
            f"heart_beat_interval={HEARTBEAT}",
        ],
        environment,
    )


def _start(
    workspace: Path, module: str, config: str, settings: list[str], environment: dict[str, str]
) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-u", "-m", module, "-m", str(workspace), "-s", config, "--set", *settings]
    with (workspace / "output.txt").open("ab") as output:
        return subprocess.Popen(
            command,
            cwd=workspace,
            env=os.environ | {"MALLOC_ARENA_MAX": "4"} | environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
