"""FLARE's own processes, started plainly. Imported by a waiting device: nothing here imports torch."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
from pathlib import Path

PROJECT = "sheaf"

PR_SET_PDEATHSIG = 1

HEARTBEAT = 2
"""Seconds between a device's signs of life."""

MALLOC = {"MALLOC_ARENA_MAX": "1", "MALLOC_MMAP_THRESHOLD_": str(1 << 19)}
"""For glibc: pieces of tensors come and go by the megabyte on many threads. One heap leaves fewer holes."""


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
            env=os.environ | MALLOC | environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=_end_with_parent,
        )


def _end_with_parent() -> None:
    """Asks Linux to kill this process when the one that started it is gone, however that ended."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def stop(process: subprocess.Popen[bytes]) -> None:
    """Ends a process and all that it started: jobs have processes of their own in its group."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=3)
            break
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
