"""Functions that tests share."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
import torch

from sheaf.core.errors import SheafError
from sheaf.core.settings import settings
from sheaf.runtime.journal import Journal

QUICK = (
    "data.limit=400",
    "data.limit_test=100",
    "method.pretrain.epochs=6",
    "method.finetune.epochs=4",
    "method.retrain.epochs=6",
)
"""Settings with which ``ecavg-digits`` runs in a tenth of a second."""


def command() -> str:
    """Return the path of the ``sheaf`` command beside the tests' interpreter."""
    return str(Path(sys.executable).with_name("sheaf"))


def data_root() -> Path:
    """Return the folder of the real data, or skip the test if it is not set."""
    root = os.environ.get("SHEAF_DATA")
    if not root or not Path(root).is_dir():
        pytest.skip("SHEAF_DATA names no folder with real data")
    return Path(root)


def lose(journal: Journal, *error: object) -> None:
    """Close a journal without writing its pending lines, as a crash does."""
    if journal._timer is not None:
        journal._timer.cancel()
    journal._log.close()


def one_line(error: pytest.ExceptionInfo[SheafError]) -> str:
    """Return the message of an error, and check that it is one line."""
    message = str(error.value)
    assert "\n" not in message
    return message


@settings
class Paths:
    """A user's partition whose edge's name is a path."""

    def __call__(self, labels: torch.Tensor, classes: tuple[str, ...], seed: int) -> dict[str, torch.Tensor]:
        return {"../x": torch.arange(len(labels))}


@settings
class Dealt:
    """A partition that deals images one by one, so no edge stays empty."""

    edges: int

    def __call__(self, labels: torch.Tensor, classes: tuple[str, ...], seed: int) -> dict[str, torch.Tensor]:
        return {f"edge-{n}": torch.arange(n, len(labels), self.edges) for n in range(self.edges)}
