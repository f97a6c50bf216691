"""OpenMP's waiting threads: torch splits an operation among threads, which then wait for the last of them.

GNU OpenMP (torch's wheels for Linux) lets them spin for 300,000 rounds, some 3 ms, and then sleep. Beside
other work, spinning takes the cores that the last thread needs. ``benchmarks/busy.py`` compares the settings.
Intel's and LLVM's OpenMP yield the core while they spin, and need no limit.
"""

from __future__ import annotations

from collections.abc import MutableMapping

SPINS = "10000"
"""Rounds of spinning before a thread sleeps, some 0.1 ms."""


def limit_spinning(environment: MutableMapping[str, str]) -> None:
    """Limit the spinning of OpenMP's threads, unless the user has set how they wait.

    It changes no result. Only a process that has not imported torch yet reads the variable.
    """
    if "OMP_WAIT_POLICY" not in environment:
        environment.setdefault("GOMP_SPINCOUNT", SPINS)
