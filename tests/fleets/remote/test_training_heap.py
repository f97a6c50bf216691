"""The heap of a device's process."""

from __future__ import annotations

import os
import subprocess
import sys

from sheaf.fleets.remote.training_heap import SETTINGS

STEPS = """
import ctypes, resource
from sheaf.fleets.remote.training_heap import reused_blocks
library = ctypes.CDLL(None)
library.malloc.restype, library.free.argtypes = ctypes.c_void_p, [ctypes.c_void_p]

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(20):
        block = library.malloc(4 << 20)
        ctypes.memset(block, 1, 4 << 20)
        library.free(block)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

usual = faults()
with reused_blocks():
    reused = faults()
print(usual, reused, faults())
"""


def faults(environment: dict[str, str]) -> list[int]:
    """Return the page faults of twenty blocks of 4 MiB: before, inside and after ``reused_blocks``."""
    output = subprocess.check_output([sys.executable, "-c", STEPS], env=os.environ | environment)
    return [int(number) for number in output.split()]


def test_a_device_reuses_memory_while_it_computes_and_returns_it_afterwards() -> None:
    before, inside, after = faults(SETTINGS)
    assert min(before, after) > 20 * 1000  # each block is mapped anew, in pages of 4 KiB
    assert inside < 2000


def test_other_processes_keep_their_heap() -> None:
    before, inside, after = faults({})
    assert max(before, inside, after) < 3000  # glibc reuses blocks of this size after the first
