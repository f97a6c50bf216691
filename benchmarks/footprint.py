"""Measure what a device needs: the disk of an installation, and the memory while a small network trains.

An installation is the files of all distributions of an environment, without pip. Memory is the sum of the
resident memory of all processes of one device of a rehearsed fleet (``sheaf edge join``, FLARE's process and
the job's) at its peak, sampled every 50 ms; pages that they share count in each. The baselines are processes
of the same environment that import torch only, and that also train such a network by plain torch.

Run: python -m benchmarks.footprint --before PYTHON --after PYTHON --small PYTHON, with the interpreters of
environments that were installed by the commands in ``INSTALLED``
"""

from __future__ import annotations

import argparse
import contextlib
import json
import subprocess
import tempfile
import threading
from pathlib import Path
from typing import Any

import psutil

from benchmarks.results import publish
from benchmarks.usage import process_trees
from sheaf.experiments import rehearse, run_on_fleet
from sheaf.experiments.config import load_experiment
from sheaf.experiments.setup import prepare

INSTALLED = {
    "before": "commit ee4d031: pip install torch==2.13.0 '.[fleet]'",
    "after": "pip install torch==2.13.0 'WHEEL[fleet]'",
    "small": "pip install --no-compile torch==2.13.0 'WHEEL[device]' && "
    "pip install --no-compile --no-deps nvflare==2.9.0",
}
TORCH = ("filelock", "fsspec", "jinja2", "markupsafe", "mpmath", "networkx", "setuptools", "sympy", "torch")
"""torch and what it requires; also typing_extensions, which is small."""

CHANGES = ("partition.edges=2", "fleet.threads=1", "model.name=kws_cnn")

LIST = """
import importlib.metadata, json, os
sizes = {}
for each in importlib.metadata.distributions():
    files = [each.locate_file(file) for file in each.files or ()]
    sizes[each.name.lower()] = sum(os.stat(file).st_size for file in files if os.path.exists(file))
print(json.dumps(sizes))
"""

BARE = """
import sys, torch, psutil
if sys.argv[1] == "train":
    torch.set_num_threads(1)
    model = torch.nn.Sequential(
        torch.nn.Conv2d(1, 28, (10, 4), padding="same"), torch.nn.ReLU(),
        torch.nn.Conv2d(28, 30, (10, 4), padding="same"), torch.nn.ReLU(),
        torch.nn.Flatten(), torch.nn.Linear(30 * 64, 10),
    )
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
    for _ in range(20):
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(model(torch.rand(32, 1, 8, 8)), torch.randint(10, (32,)))
        loss.backward()
        optimizer.step()
print(psutil.Process().memory_info().rss)
"""


def sizes(python: str) -> dict[str, int]:
    """Return distribution -> bytes of an environment."""
    found = json.loads(subprocess.run([python, "-c", LIST], capture_output=True, check=True).stdout)
    return {name: size for name, size in sorted(found.items(), key=lambda item: -item[1]) if name != "pip"}


def bare(python: str, what: str) -> int:
    """Return the memory of a process that imports torch, and for ``train`` also trains, in bytes."""
    return int(subprocess.run([python, "-c", BARE, what], capture_output=True, check=True).stdout)


class PeakOfDevices(threading.Thread):
    """Samples the memory of the devices that this process has started, until ``stop``.

    Attributes:
        peak: the largest sum over the processes of one device, in bytes.
        idle: the smallest, likewise: the device is connected and no job runs.
    """

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.peak, self.idle = 0, 1 << 62
        self._stopped = threading.Event()

    def run(self) -> None:
        """Sample until ``stop``."""
        while not self._stopped.wait(0.05):
            for device in process_trees()[0]:
                with contextlib.suppress(psutil.Error):  # a process ended meanwhile
                    memory = sum(each.memory_info().rss for each in device)
                    self.peak = max(self.peak, memory)
                    if len(device) > 1:  # FLARE's process exists
                        self.idle = min(self.idle, memory)

    def stop(self) -> None:
        """Stop sampling."""
        self._stopped.set()
        self.join()


def memory(python: str) -> dict[str, int]:
    """Return the memory of a device whose environment has the interpreter ``python``."""
    experiment = load_experiment("ecavg-digits", CHANGES)
    with tempfile.TemporaryDirectory() as folder:
        sampler = PeakOfDevices()
        stage = Path(folder, "stage")
        stage.mkdir()
        with rehearse.stage(prepare(experiment), stage, python) as fleet:
            sampler.start()
            result = run_on_fleet.run(experiment, fleet, out=Path(folder, "run"), wait=300.0)
            sampler.stop()
        assert not result.refused, result.refused
    return {"device": sampler.peak, "idle": sampler.idle}


def main() -> None:
    """Measure each environment, and the memory of a device of the smallest."""
    parser = argparse.ArgumentParser()
    for name in INSTALLED:
        parser.add_argument(f"--{name}", required=True)
    pythons = vars(parser.parse_args())
    rows: list[dict[str, Any]] = []
    for name, python in pythons.items():
        packages = sizes(python)
        torch = sum(size for package, size in packages.items() if package in TORCH)
        row = {"installation": name, "bytes": sum(packages.values()), "torch": torch, "packages": packages}
        rows.append(row | {"command": INSTALLED[name]})
    small = pythons["small"]
    rows[-1] |= memory(small) | {"import": bare(small, "import"), "train": bare(small, "train")}
    settings = {"experiment": "ecavg-digits", "changes": CHANGES}
    publish("footprint", rows, settings, 0, {}, ["installation", "bytes", "torch"])


if __name__ == "__main__":
    main()
