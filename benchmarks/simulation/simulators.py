"""Other simulators: their environments, and a job handed to them."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
import venv
from pathlib import Path

import numpy as np
import torch

from benchmarks.simulation.bare import Bare
from sheaf.core.openmp import SPINS

TORCH = f"torch=={torch.__version__.partition('+')[0]}"

PACKAGES = {
    "flower": ("flwr[simulation]==1.41.0", TORCH, "numpy"),
    "fedjax": ("fedjax==0.0.17", "jax==0.10.2", "jaxlib==0.10.2"),
    "pfl": ("pfl==0.6.0", TORCH, "numpy"),
}
"""Simulator -> what its environment contains; the same version of torch as sheaf's."""


def create(name: str, folder: Path) -> None:
    """Create the environment of a simulator in ``folder/name``, if it is missing."""
    if not (folder / name / "ready").exists():
        venv.create(folder / name, with_pip=True)
        pip = [str(folder / name / "bin" / "python"), "-m", "pip", "install", "--quiet"]
        subprocess.run([*pip, *PACKAGES[name]], check=True)
        (folder / name / "ready").touch()


def simulate(name: str, bare: Bare, environments: Path) -> dict[str, float]:
    """Run a job in a simulator's environment; return its seconds, with its start too, and its accuracy."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        _write(bare, folder)
        side = Path(__file__).with_name(f"{name}_side.py")
        environment = {
            **os.environ,
            "JOB": str(folder),
            "REPLY": str(folder / "reply.json"),
            "PYTHONPATH": str(side.parent),  # Ray's processes import the side too
            "FLWR_TELEMETRY_ENABLED": "0",
        }
        if environment.get("GOMP_SPINCOUNT") == SPINS:
            del environment["GOMP_SPINCOUNT"]  # sheaf's own setting
        command = [
            str(environments.absolute() / name / "bin" / "python"),
            "-c",
            f"import {side.stem}; {side.stem}.main()",
        ]
        with (folder / "log.txt").open("wb") as log:
            done = subprocess.run(command, stdout=log, stderr=subprocess.STDOUT, cwd=scratch, env=environment)
        if not (folder / "reply.json").exists():
            text = (folder / "log.txt").read_text()[-2000:]
            raise RuntimeError(f"{name} ended with {done.returncode}:\n{text}")
        reply: dict[str, float] = json.loads((folder / "reply.json").read_text())
    assert reply.pop("rounds") == bare.job.rounds
    return reply


def _write(bare: Bare, folder: Path) -> None:
    """Write the job as files that need no framework: settings, images, split, and the initial weights."""
    job = bare.job
    settings = {
        "optimizer": job.optimizer,
        "lr": job.lr,
        "batch_size": job.batch_size,
        "rounds": job.rounds,
        "edges": [len(positions) for positions in bare.parts],
    }
    (folder / "job.json").write_text(json.dumps(settings))
    arrays = {
        "x": bare.x.flatten(1),
        "y": bare.y,
        "x_test": bare.x_test.flatten(1),
        "y_test": bare.y_test,
        "positions": torch.cat(bare.parts),  # of the images, edge by edge
        **bare.prepared.network.model.state_dict(),
    }
    for name, value in arrays.items():
        np.save(folder / f"{name}.npy", value.detach().cpu().numpy())
