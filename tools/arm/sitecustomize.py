"""Make an emulated Python start its child processes under QEMU too: its own path cannot be executed."""

import os
import sys

sys.executable = os.environ.get("SHEAF_ARM_PYTHON", sys.executable)
