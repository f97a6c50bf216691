"""What tests call by name."""

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
"""Makes ``ecavg-digits`` a matter of a tenth of a second."""


def command() -> str:
    """The installed ``sheaf`` that belongs to the interpreter of the tests."""
    return str(Path(sys.executable).with_name("sheaf"))


def data_root() -> Path:
    """Where the real data is; skips the test where it is not."""
    root = os.environ.get("SHEAF_DATA")
    if not root or not Path(root).is_dir():
        pytest.skip("SHEAF_DATA names no folder with real data")
    return Path(root)


def lose(journal: Journal, *error: object) -> None:
    """What was recorded and not yet written is gone, as the process is."""
    if journal._timer is not None:
        journal._timer.cancel()
    journal._append_to.close()


def one_line(error: pytest.ExceptionInfo[SheafError]) -> str:
    """The message of a user's mistake, which is one line."""
    message = str(error.value)
    assert "\n" not in message
    return message


@settings
class Paths:
    """A user's own partition, whose edges are named as files elsewhere."""

    def __call__(self, labels: torch.Tensor, classes: tuple[str, ...], seed: int) -> dict[str, torch.Tensor]:
        return {"../x": torch.arange(len(labels))}


@settings
class Dealt:
    """Images dealt one by one: no edge is left without, however many there are."""

    edges: int

    def __call__(self, labels: torch.Tensor, classes: tuple[str, ...], seed: int) -> dict[str, torch.Tensor]:
        return {f"edge-{n}": torch.arange(n, len(labels), self.edges) for n in range(self.edges)}
