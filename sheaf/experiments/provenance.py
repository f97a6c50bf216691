"""The provenance of a result: commit, settings, versions, hardware, data and seed (design law 10)."""

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

from sheaf.core.optional_imports import installed_version

SOURCE = Path(__file__).parents[1]


def provenance(
    settings: dict[str, Any],
    seed: int,
    data: dict[str, str],
    device: torch.device,
    data_commits: dict[str, str] | None = None,
) -> dict[str, Any]:
    """Return everything needed to reproduce a result, as plain JSON values.

    Args:
        settings: all settings, with defaults.
        seed: the seed of the run.
        data: name -> fingerprint of each dataset.
        device: the device that computed the result.
        data_commits: name -> commit of each dataset of the Hugging Face Hub. Unset: none.
    """
    return {
        "sheaf": installed_version(),
        "commit": _git("rev-parse", "HEAD"),
        "dirty": bool(_git("status", "--porcelain")),
        "settings": settings,
        "seed": seed,
        "data": data,
        "data_commits": data_commits or {},
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
    """Return the output of a git command in the checkout of this code; None without a checkout or git."""
    if not (SOURCE.parent / ".git").exists():
        return None
    try:
        process = subprocess.run(
            ["git", "-C", str(SOURCE.parent), *arguments],
            capture_output=True,
            text=True,
            check=True,
            timeout=30,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return process.stdout.strip()


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next(
        (line.partition(":")[2].strip() for line in lines if line.startswith("model name")),
        platform.processor(),
    )
