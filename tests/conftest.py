"""What tests share: small experiments on real data, and the command line as a user meets it."""

from __future__ import annotations

import gc
import os

os.environ["OMP_WAIT_POLICY"] = "passive"  # read by torch's import: idle threads sleep instead of spinning

os.environ.pop("COLUMNS", None)  # pytest-xdist sets it; tests read tables as wide as a user's pipe gets them

import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import hypothesis
import pytest
import torch
from fork_server import start
from support import QUICK, command

from sheaf.experiments.config import Experiment, load_experiment

hypothesis.settings.register_profile("sheaf", deadline=None)  # a disk's fsync takes as long as it takes
hypothesis.settings.load_profile("sheaf")

# The tests' tensors are too small to share out, and the cores are not ours alone; so in processes they start.
torch.set_num_threads(1)
os.environ["OMP_NUM_THREADS"] = "1"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Start the long tests first, so that no process has one left when the others have ended."""
    items.sort(key=lambda item: {"end_to_end", "documents"}.isdisjoint(item.path.parts))


def pytest_collection_finish() -> None:
    """Exclude the libraries' million objects from all further garbage collections."""
    gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def session_cache() -> Iterator[None]:
    """An empty cache for the session: tests neither read nor fill the user's."""
    with tempfile.TemporaryDirectory(prefix="sheaf-cache-") as folder:
        os.environ["SHEAF_CACHE"] = folder  # subprocesses inherit it
        yield


@pytest.fixture
def quick() -> Experiment:
    """ECAvg on 400 digits: two edges, one hidden layer."""
    return load_experiment("ecavg-digits", QUICK)


@pytest.fixture(scope="session")
def fork_server() -> Iterator[Path]:
    """The folder of a ``sheaf`` and a ``python`` that run in forks of one process."""
    with tempfile.TemporaryDirectory(prefix="sheaf-") as folder, start(Path(folder)) as programs:
        yield programs


Sheaf = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def sheaf(fork_server: Path, tmp_path: Path) -> Sheaf:
    """Runs ``sheaf ARGUMENTS`` in a process of its own, in a folder of the test's own."""
    return runner(fork_server / "sheaf", tmp_path)


@pytest.fixture
def installed_sheaf(tmp_path: Path) -> Sheaf:
    """The same by the program that is installed."""
    return runner(Path(command()), tmp_path)


def runner(program: Path, folder: Path) -> Sheaf:
    def run(*arguments: str | Path, cwd: Path = folder) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [program, *map(str, arguments)], capture_output=True, text=True, cwd=cwd, timeout=300
        )

    return run
