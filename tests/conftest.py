"""What tests share: small experiments on real data, and the command line as a user meets it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from sheaf.config import Experiment, load_experiment
from sheaf.errors import SheafError

QUICK = (
    "data.limit=400",
    "data.limit_test=100",
    "method.pretrain.epochs=6",
    "method.finetune.epochs=4",
    "method.retrain.epochs=6",
)
"""Makes ``ecavg-digits`` a matter of a tenth of a second."""


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


def command() -> str:
    """The installed ``sheaf`` that belongs to the interpreter of the tests."""
    return str(Path(sys.executable).with_name("sheaf"))


def data_root() -> Path:
    """Where the real data is; skips the test where it is not."""
    root = os.environ.get("SHEAF_DATA")
    if not root or not Path(root).is_dir():
        pytest.skip("SHEAF_DATA names no folder with real data")
    return Path(root)


def one_line(error: pytest.ExceptionInfo[SheafError]) -> str:
    """The message of a user's mistake, which is one line."""
    message = str(error.value)
    assert "\n" not in message
    return message
