"""What tests share: small experiments on real data, and the command line as a user meets it."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import hypothesis
import pytest
import torch
from support import QUICK, command

from sheaf.experiments.config import Experiment, load_experiment

hypothesis.settings.register_profile("sheaf", deadline=None)  # a disk's fsync takes as long as it takes
hypothesis.settings.load_profile("sheaf")

# The tests' tensors are too small to share out, and the cores are not ours alone; so in processes they start.
torch.set_num_threads(1)
os.environ["OMP_NUM_THREADS"] = "1"


@pytest.fixture
def quick() -> Experiment:
    """ECAvg on 400 digits: two edges, one hidden layer."""
    return load_experiment("ecavg-digits", QUICK)


@pytest.fixture
def sheaf(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs ``sheaf ARGUMENTS`` in a process of its own, in a folder of the test's own."""

    def run(*arguments: str | Path, cwd: Path = tmp_path) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [command(), *map(str, arguments)], capture_output=True, text=True, cwd=cwd, timeout=300
        )

    return run
