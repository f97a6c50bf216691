"""Where a result comes from: commit, settings, versions, hardware, data, seed (design law 10)."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import psutil
import torch

SOURCE = Path(__file__).parents[1]


def provenance(
    settings: dict[str, Any], seed: int, data: dict[str, str], device: torch.device
) -> dict[str, Any]:
    """Everything that someone needs to get the same figures again, as JSON knows it.

    Args:
        settings: the resolved settings, all of them.
        seed: the seed they were run with.
        data: name and fingerprint of each dataset.
        device: where it was computed.
    """
    return {
        "sheaf": importlib.metadata.version("sheaf"),
        "commit": _git("rev-parse", "HEAD"),
        "dirty": bool(_git("status", "--porcelain")),
        "settings": settings,
        "seed": seed,
        "data": data,
        "versions": {
            "python": platform.python_version(),
            **{name: importlib.metadata.version(name) for name in ("torch", "numpy", "safetensors")},
        },
        "hardware": {
            "machine": platform.machine(),
            "system": platform.platform(),
            "cpu": _cpu(),
            "cores": os.cpu_count(),
            "threads": torch.get_num_threads(),
            "memory_bytes": psutil.virtual_memory().total,
            "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        },
        "finished": datetime.now(timezone.utc).isoformat(timespec="seconds"),
    }


def _git(*arguments: str) -> str | None:
    """What git says of the checkout that this code runs from; None where it runs from none."""
    if not (SOURCE.parent / ".git").exists():
        return None
    try:
        done = subprocess.run(
            ["git", "-C", str(SOURCE.parent), *arguments],
            capture_output=True,
            text=True,
            check=True,
            timeout=30,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next(
        (line.partition(":")[2].strip() for line in lines if line.startswith("model name")),
        platform.processor(),
    )
