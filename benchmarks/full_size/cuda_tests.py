"""The tests that need CUDA, run by pytest in a process of their own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

ROOT = Path(__file__).parents[2]

TESTS = (
    "tests/training/test_cuda_graph.py",
    "tests/training/test_gpu_cache.py",
    "tests/training/test_preparation.py",
)
"""The files with a test that needs CUDA."""


def run_tests(report: Path, seconds: float) -> dict[str, Any]:
    """Run the tests and return their counts: ``passed``, ``failed``, ``skipped``, and ``failures`` by name.

    Args:
        report: where pytest writes its report, in JUnit's format, with the errors' tracebacks.
        seconds: the tests are stopped after this time.

    Raises:
        RuntimeError: pytest is missing, ran no test, or was stopped.
    """
    report.unlink(missing_ok=True)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--junitxml={report}", *TESTS]
    # the variable of this run's data is not for tests, and neither is its cache
    environment = {name: value for name, value in os.environ.items() if name != "SHEAF_DATA"}
    try:
        done = subprocess.run(
            command, cwd=ROOT, env=environment, timeout=seconds, capture_output=True, text=True
        )
    except subprocess.TimeoutExpired:
        raise RuntimeError(f"stopped after {seconds:.0f} s") from None
    if not report.exists():
        lines = (done.stderr or done.stdout).strip().splitlines() or ["no output"]
        raise RuntimeError(f"pytest ended with {done.returncode}: {lines[-1]}")
    return counts(report)


def counts(report: Path) -> dict[str, Any]:
    """Return the counts in a report of pytest.

    Raises:
        RuntimeError: it has no test.
    """
    cases = list(ElementTree.parse(report).getroot().iter("testcase"))
    if not cases:
        raise RuntimeError(f"{report} has no test")
    failures = [
        case.get("name", "")
        for case in cases
        if case.find("failure") is not None or case.find("error") is not None
    ]
    skipped = sum(case.find("skipped") is not None for case in cases)
    return {
        "passed": len(cases) - len(failures) - skipped,
        "failed": len(failures),
        "skipped": skipped,
        "failures": failures,
    }
