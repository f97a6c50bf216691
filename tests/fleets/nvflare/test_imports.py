"""The server and an idle device do not load torch: they start quickly and need little memory."""

from __future__ import annotations

import subprocess
import sys

import pytest


@pytest.mark.parametrize("module", ["serve", "server_memory", "server_presence", "join", "wait", "launcher"])
def test_torch_is_not_imported(module: str) -> None:
    code = f"import sys, sheaf.fleets.nvflare.{module}; sys.exit('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr or f"sheaf.fleets.nvflare.{module} imports torch"
