"""Print a run's events as JSON lines, for other programs. docs/experiments.md documents the keys."""

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
from sheaf.runtime.timeline import Timeline


class JsonLines:
    """An observer that writes one line per event, without buffering.

    Args:
        out: the stream.
        run: the run's folder, a key of every line.
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

    def write(self, event: str, **fields: Any) -> None:
        """Write a line with the event, the run, the time and these fields."""
        line = {"event": event, "run": str(self._run), "time": round(time.time(), 3), **fields}
        print(json.dumps(line, allow_nan=False), file=self._out, flush=True)

    def note(self, text: str) -> None:
        """Write a ``note`` event."""
        self.write("note", text=text)

    def began(self, kind: str, sites: Sequence[str]) -> None:
        """Write a ``began`` event."""
        self.write("began", kind=kind, sites=list(sites))

    def step(self, site: str, done: int, steps: int, loss: float, examples: int) -> None:
        """Write a ``step`` event, at most one per site and second, and one for the last step."""
        if self._axis.step(site, done, steps):
            finite = loss if math.isfinite(loss) else None
            self.write("step", site=site, step=done, steps=steps, loss=finite, examples=examples)

    def answered(self, site: str) -> None:
        """Write an ``answered`` event."""
        self.write("answered", site=site)

    def absent(self, site: str, why: str) -> None:
        """Write a ``refused`` event."""
        self.refused(site, why)

    def refused(self, site: str, why: str) -> None:
        """Write a ``refused`` event."""
        self.write("refused", site=site, why=why)

    def timed(self, timeline: Timeline) -> None:
        """Write a ``timed`` event."""
        self.write("timed", virtual=timeline.virtual, **asdict(timeline.spent()))

    def row(self, row: Row) -> None:
        """Write a ``measured`` event."""
        fields = asdict(row)
        del fields["confusion"]  # 10,000 numbers for 100 classes; result.json contains it
        self.write("measured", **fields)
