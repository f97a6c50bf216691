"""The limit of OpenMP's spinning, which respects the user's own settings."""

from __future__ import annotations

import subprocess
import sys

import pytest

from sheaf.core.openmp import SPINS, limit_spinning

READ_AT_IMPORT = """
import os, sys, sheaf
assert "torch" not in sys.modules, "OpenMP reads the variable when torch is imported"
print(os.environ["GOMP_SPINCOUNT"])
"""


@pytest.mark.parametrize(
    ("own", "expected"),
    [
        ({}, {"GOMP_SPINCOUNT": SPINS}),
        ({"GOMP_SPINCOUNT": "7"}, {"GOMP_SPINCOUNT": "7"}),
        ({"OMP_WAIT_POLICY": "active"}, {"OMP_WAIT_POLICY": "active"}),
    ],
)
def test_the_users_settings_are_respected(own: dict[str, str], expected: dict[str, str]) -> None:
    limit_spinning(own)
    assert own == expected


@pytest.mark.parametrize(("own", "expected"), [({}, SPINS), ({"GOMP_SPINCOUNT": "7"}, "7")])
def test_it_is_set_before_torch_is_imported(own: dict[str, str], expected: str) -> None:
    python = [sys.executable, "-c", READ_AT_IMPORT]
    assert (
        subprocess.run(python, env=own, capture_output=True, text=True, check=True).stdout.strip() == expected
    )
