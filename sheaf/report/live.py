"""Show the progress of a run on the terminal: a live table, and a line for each measurement."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from rich import box
from rich import live as rich_live
from rich.console import Console
from rich.table import Table
from rich.text import Text

from sheaf.report.activities import ACTIVITY
from sheaf.report.fitted_table import SUMMARIZED
from sheaf.report.formatting import MAX_LISTED, format_number_of
from sheaf.report.live_timeline import LEGEND, LiveTimeline
from sheaf.report.stages import Repetition, stage_label
from sheaf.report.terminal_tables import row_line
from sheaf.runtime.result import Row
from sheaf.runtime.timeline import Timeline

WINDOW = 10.0
"""Seconds over which speed is averaged."""

LINE_INTERVAL = 30.0
"""Without a terminal: seconds between two progress lines of a training."""

FINISHED = ("done", "refused", "absent")
"""States of a site that is finished with the current call."""

COLUMNS = ("step", "loss", "images/s", "time left")
"""Columns of the table on a site's training."""

NARROW = 100
"""Width of a terminal below which the timeline is short, and replaces the images per second."""

LEGEND_HEIGHT = 10
"""Least height of a terminal for the legend of the timeline."""

LISTED_FIRST = ("training", "refused", "absent")
"""States of the sites that the table lists when not all sites fit."""


@dataclass
class _Site:
    """The progress of a site in its latest call.

    Attributes:
        state: idle, waiting, training, done, refused or absent.
        done, steps: training steps done, and in total.
        loss: of the latest step.
        history: (time, steps done, examples done) over the last ``WINDOW`` seconds.
    """

    state: str = "idle"
    done: int = 0
    steps: int = 0
    loss: float | None = None
    history: deque[tuple[float, int, int]] = field(default_factory=deque)

    def step(self, done: int, steps: int, loss: float, examples: int, now: float) -> None:
        self.state, self.done, self.steps, self.loss = "training", done, steps, loss
        if self.history and done <= self.history[-1][1]:
            self.history.clear()  # a new training
        self.history.append((now, done, examples))
        while len(self.history) > 2 and now - self.history[1][0] > WINDOW:
            self.history.popleft()

    @property
    def speed(self) -> float | None:
        """Examples per second."""
        if len(self.history) < 2 or self.history[-1][0] == self.history[0][0]:
            return None
        (start, _, before), (now, _, after) = self.history[0], self.history[-1]
        return (after - before) / (now - start)

    @property
    def seconds_left(self) -> float | None:
        """Estimated seconds until the training ends."""
        if self.speed is None:
            return None
        (start, before, _), (now, after, _) = self.history[0], self.history[-1]
        return (self.steps - self.done) * (now - start) / (after - before)

    def cells(self) -> dict[str, str]:
        """Return the texts of ``COLUMNS``."""
        if not self.steps:
            return dict.fromkeys(COLUMNS, "")
        speed = "" if self.speed is None else f"{self.speed:,.0f}"
        left = _clock(self.seconds_left) if self.state == "training" else ""
        total = f"{self.steps:,}"
        texts = f"{self.done:{len(total)},}/{total}", f"{self.loss:.3f}", speed, left
        return dict(zip(COLUMNS, texts, strict=True))


class Live:
    """An observer that prints a run's progress on a console; without a terminal it prints plain lines.

    Args:
        console: where to print.
        title: the first line.
        rows: whether to print a line for each measurement.
    """

    def __init__(self, console: Console, title: str, rows: bool = True) -> None:
        self._console = console
        self._title = title
        self._rows = rows
        self._measured: list[Row] = []
        self._is_repeated = Repetition()
        self._sites: dict[str, _Site] = {}
        self._absent: set[str] = set()
        self._called: tuple[str, ...] = ()
        self._timeline = LiveTimeline(console.is_terminal, 22 if console.width < NARROW else 32)
        self._activity = "starting"
        self._began = self._last_line = time.monotonic()
        # rich redraws a few times per second, independent of the number of events
        self._live = rich_live.Live(get_renderable=self._table, console=console, transient=True)

    def __enter__(self) -> Live:
        self._console.print(Text(self._title, style="bold"))
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._print_measured()
        self._live.stop()

    def note(self, text: str) -> None:
        """Print the note."""
        self._print(f"note: {text}")

    def began(self, kind: str, sites: Sequence[str]) -> None:
        """Show the called sites as waiting; without a terminal, print a line for a training."""
        self._print_measured()
        self._activity = f"{ACTIVITY.get(kind, kind)} {_site_or_number(sites)}"
        self._began = self._last_line = time.monotonic()
        for name, site in self._sites.items():
            site.state = "absent" if name in self._absent else "idle"
        for name in sites:
            self._sites[name] = _Site("waiting")
        self._called = tuple(sites)  # last, as rich draws from another thread
        if kind == "train" and self._rows and not self._console.is_terminal:
            self._print(self._activity)

    def step(self, site: str, done: int, steps: int, loss: float, examples: int) -> None:
        """Update the site's progress; without a terminal, print it every ``LINE_INTERVAL`` seconds."""
        now = time.monotonic()
        self._sites.setdefault(site, _Site()).step(done, steps, loss, examples, now)
        if now - self._last_line > LINE_INTERVAL and self._rows and not self._console.is_terminal:
            self._last_line = now
            step, loss_text, speed, left = self._sites[site].cells().values()
            self._print(
                f"{site:<12} step {step}, loss {loss_text}, {speed} images/s, {left} left; {self._progress()}"
            )

    def answered(self, site: str) -> None:
        """Show the site as done."""
        self._absent.discard(site)
        self._sites.setdefault(site, _Site()).state = "done"

    def absent(self, site: str, why: str) -> None:
        """Show the site as absent until its next answer; print the reason once per absence."""
        self._sites.setdefault(site, _Site()).state = "absent"
        if site not in self._absent:
            self._print(f"absent: {site}: {why}")
        self._absent.add(site)

    def refused(self, site: str, why: str) -> None:
        """Show the site as refused, and print the reason."""
        self._sites.setdefault(site, _Site()).state = "refused"
        self._print(f"refused: {site}: {why}")

    def timed(self, timeline: Timeline) -> None:
        """Show the run's time and, on a terminal, the timeline of the devices."""
        self._timeline.update(timeline)

    def row(self, row: Row) -> None:
        """Collect a measurement; measurements of one stage are printed together."""
        if self._measured and (self._measured[0].stage, self._measured[0].round) != (row.stage, row.round):
            self._print_measured()
        self._measured.append(row)

    def _print_measured(self) -> None:
        """Print a line for each site's measurement, or one summary line for many sites."""
        rows, self._measured = self._measured, []
        if not rows or not self._rows or self._is_repeated(rows):
            return
        if len(rows) >= SUMMARIZED:
            mean = sum(row.accuracy for row in rows) / len(rows)
            worst = min(rows, key=lambda row: row.accuracy)
            self._print(
                f"{format_number_of(len(rows), 'edge'):<12} {stage_label(worst.stage):<18} "
                f"accuracy {mean:.4f} mean, "
                f"{worst.accuracy:.4f} worst ({worst.site})"
            )
        else:
            for row in rows:
                self._print(row_line(row))
        if self._timeline.spent:
            self._print(self._timeline.spent)

    def _print(self, text: str) -> None:
        self._console.print(Text(text), soft_wrap=True)

    def _progress(self) -> str:
        done = sum(self._sites[name].state in FINISHED for name in self._called)
        return f"{done:,} of {len(self._called):,} done"

    def _table(self) -> Table:
        sites = list(self._sites.items())
        lines = self._timeline.lines
        title = f"{self._activity}, {self._progress()}, {_clock(time.monotonic() - self._began)}"
        title += self._timeline.title
        table = Table(box=box.SIMPLE_HEAD, title=Text(title), title_justify="left", pad_edge=False)
        table.caption_justify = "left"
        table.add_column("site")
        table.add_column("state")
        is_narrow = bool(lines) and self._console.width < NARROW
        columns = [column for column in COLUMNS if not (is_narrow and column == "images/s")]
        for column in columns:
            table.add_column(column, justify="right", min_width=8)
        if lines:
            table.add_column(self._timeline.heading, no_wrap=True, overflow="crop")
        notes = [LEGEND] if lines and self._console.height >= LEGEND_HEIGHT else []
        room = min(MAX_LISTED, max(1, self._console.height - 8 - len(notes)))
        listed = sites
        if len(sites) > room:
            first = [(name, site) for name, site in sites if site.state in LISTED_FIRST]
            order = {name: (name not in lines, site.done - site.steps) for name, site in first}
            listed = sorted(first, key=lambda item: order[item[0]])[:room]
        for name, site in listed:
            cells = site.cells()
            line = [lines.get(name, "")] if lines else []
            style = "" if site.state == "training" else "dim"
            table.add_row(Text(name), site.state, *(cells[column] for column in columns), *line, style=style)
        names = {name for name, _ in listed}
        if hidden := Counter(site.state for name, site in sites if name not in names):
            states = ", ".join(f"{count:,} {state}" for state, count in sorted(hidden.items()))
            notes.append(f"and {hidden.total():,} more: {states}")
        if notes:
            table.caption = Text("\n".join(notes))
        return table


def _site_or_number(sites: Sequence[str]) -> str:
    return sites[0] if len(sites) == 1 else f"{len(sites):,} sites"


def _clock(seconds: float | None) -> str:
    """Return ``1:02:03``, or ``2:03`` below an hour."""
    if seconds is None:
        return ""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
