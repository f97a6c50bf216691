"""Fuzz each kind of input for a while: ``PYTHONPATH=tests python -m fuzz [--seconds 60] [NAME…]``.

Each harness runs in a process of its own, so that a crash ends only that one; its last input is then in the
file that is named.
"""

from __future__ import annotations

import argparse
import faulthandler
import logging
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path

from fuzz.engine import fuzz
from fuzz.harnesses import NAMES, load
from hypothesis.errors import HypothesisWarning


def main() -> int:
    """Run the harnesses; return 1 if one found an error."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of a harness: {', '.join(NAMES)}")
    parser.add_argument("--seconds", type=float, default=60.0, help="for each harness")
    parser.add_argument("--here", action="store_true", help="in this process")
    given = parser.parse_args()
    failed = []
    for name in given.names or NAMES:
        if given.here:
            run(name, given.seconds)
            continue
        command = [sys.executable, "-m", "fuzz", "--here", "--seconds", str(given.seconds), name]
        if subprocess.run(command).returncode:
            failed.append(name)
    if failed:
        print(f"errors in: {', '.join(failed)}")
    return bool(failed)


def run(name: str, seconds: float) -> None:
    """Run one harness in this process."""
    faulthandler.enable()
    warnings.simplefilter("error")
    warnings.simplefilter("ignore", HypothesisWarning)  # of long inputs
    logging.getLogger("sheaf").addHandler(logging.NullHandler())
    logging.getLogger("sheaf").propagate = False
    last = Path(tempfile.gettempdir(), f"fuzz-{name}.last")
    print(f"{name}: the last input is in {last}", flush=True)
    count = fuzz(load(name), seconds, last)
    print(f"{name}: {count} inputs in {seconds:g} s, no error", flush=True)


if __name__ == "__main__":
    sys.exit(main())
