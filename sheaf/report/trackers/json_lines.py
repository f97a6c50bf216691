"""A run as JSON lines, for programs that watch it. docs/experiments.md lists the keys."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, TextIO

from sheaf.report.trackers._axis import Axis
from sheaf.runtime.result import Row


class JsonLines:
    """Writes a line for each event, at once.

    Args:
        out: where they go.
        run: the folder of the run that they are of.
    """

    def __init__(self, out: TextIO, run: Path) -> None:
        self._out = out
        self._run = run
        self._axis = Axis()

    def __enter__(self) -> JsonLines:
        self.write("started")
        return self

    def __exit__(self, *error: object) -> None:
        self.write("ended", error=error[0].__name__ if isinstance(error[0], type) else None)

    def write(self, event: str, **said: Any) -> None:
        """One line."""
        line = {"event": event, "run": str(self._run), "time": round(time.time(), 3), **said}
        print(json.dumps(line, allow_nan=False), file=self._out, flush=True)

    def note(self, text: str) -> None:
        """``note``."""
        self.write("note", text=text)

    def began(self, kind: str, sites: Sequence[str]) -> None:
        """``began``."""
        self.write("began", kind=kind, sites=list(sites))

    def step(self, site: str, done: int, steps: int, loss: float, examples: int) -> None:
        """``step``, of each site once a second and at its end."""
        if self._axis.step(site, done, steps):
            finite = loss if math.isfinite(loss) else None
            self.write("step", site=site, step=done, steps=steps, loss=finite, examples=examples)

    def answered(self, site: str) -> None:
        """``answered``."""
        self.write("answered", site=site)

    def absent(self, site: str, why: str) -> None:
        """As what is refused."""
        self.refused(site, why)

    def refused(self, site: str, why: str) -> None:
        """``refused``."""
        self.write("refused", site=site, why=why)

    def row(self, row: Row) -> None:
        """``measured``."""
        figures = asdict(row)
        del figures["confusion"]  # of 100 classes it is 10,000 numbers; result.json has it
        self.write("measured", **figures)
