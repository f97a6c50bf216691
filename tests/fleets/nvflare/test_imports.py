"""An idle device and the server do not load torch, to save memory."""

from __future__ import annotations

import subprocess
import sys

import pytest


@pytest.mark.parametrize("module", ["wait", "launcher", "server_memory"])
def test_torch_is_not_imported(module: str) -> None:
    code = f"import sys, sheaf.fleets.nvflare.{module}; sys.exit('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr or f"sheaf.fleets.nvflare.{module} imports torch"
