"""How a run goes, on the terminal: one table while it runs, a line for each measurement."""

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

from sheaf.report.tables import MANY, row_line
from sheaf.runtime.result import Row

DOING = {
    "train": "training",
    "adopt": "handing the model to",
    "evaluate": "measuring",
    "share": "gathering samples from",
    "lend": "lending samples to",
    "restat": "estimating statistics in",
    "refit": "refitting the classifier in",
    "collect": "gathering the models of",
    "remember": "keeping the models of",
    "choose": "choosing in",
}
"""What a call does, said before the sites."""

WINDOW = 10.0
"""Speed is measured over so many seconds."""

PATIENCE = 30.0
"""Where there is no terminal, training says how far it is every so many seconds."""

DONE = ("done", "refused", "absent")
"""States of a site of which nothing more is to come in a call."""

BUSY = ("training", "refused", "absent")
"""Where there is no room for all sites: those in these states, furthest from done first."""


@dataclass
class _Site:
    """What is known of a site: of its latest call, and over the last ``WINDOW`` seconds."""

    state: str = "idle"
    done: int = 0
    steps: int = 0
    loss: float | None = None
    told: deque[tuple[float, int, int]] = field(default_factory=deque)  # time, steps done, examples

    def step(self, done: int, steps: int, loss: float, examples: int, now: float) -> None:
        self.state, self.done, self.steps, self.loss = "training", done, steps, loss
        if self.told and done <= self.told[-1][1]:
            self.told.clear()  # it begins anew
        self.told.append((now, done, examples))
        while len(self.told) > 2 and now - self.told[1][0] > WINDOW:
            self.told.popleft()

    @property
    def speed(self) -> float | None:
        """Examples a second."""
        if len(self.told) < 2 or self.told[-1][0] == self.told[0][0]:
            return None
        (began, _, before), (now, _, after) = self.told[0], self.told[-1]
        return (after - before) / (now - began)

    @property
    def seconds_left(self) -> float | None:
        """Until its training is done, at its speed."""
        if self.speed is None:
            return None
        (began, before, _), (now, after, _) = self.told[0], self.told[-1]
        return (self.steps - self.done) * (now - began) / (after - before)

    def cells(self) -> list[str]:
        """State, step, loss, images a second, time left."""
        if not self.steps:
            return [self.state, "", "", "", ""]
        speed = "" if self.speed is None else f"{self.speed:,.0f}"
        left = _clock(self.seconds_left) if self.state == "training" else ""
        total = f"{self.steps:,}"
        return [self.state, f"{self.done:{len(total)},}/{total}", f"{self.loss:.3f}", speed, left]


class Live:
    """Shows a run on ``console``; on what is no terminal, plain lines.

    Args:
        title: said first.
        rows: whether each measurement gets a line.
    """

    def __init__(self, console: Console, title: str, rows: bool = True) -> None:
        self._console = console
        self._title = title
        self._rows = rows
        self._measured: list[Row] = []
        self._sites: dict[str, _Site] = {}
        self._absent: set[str] = set()
        self._asked: tuple[str, ...] = ()
        self._doing = "starting"
        self._began = self._spoke = time.monotonic()
        # Drawn a few times a second, however often a site says something.
        self._live = rich_live.Live(get_renderable=self._table, console=console, transient=True)

    def __enter__(self) -> Live:
        self._console.print(Text(self._title, style="bold"))
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._show_measured()
        self._live.stop()

    def note(self, text: str) -> None:
        """Prints it."""
        self._print(f"note: {text}")

    def began(self, kind: str, sites: Sequence[str]) -> None:
        """The sites wait for their turn; where there is no terminal, training gets a line."""
        self._show_measured()
        self._doing = f"{DOING.get(kind, kind)} {_several(len(sites), sites[0])}"
        self._began = self._spoke = time.monotonic()
        for name, site in self._sites.items():
            site.state = "absent" if name in self._absent else "idle"
        for name in sites:
            self._sites[name] = _Site("waiting")
        self._asked = tuple(sites)  # only now: rich draws from a thread of its own
        if kind == "train" and self._rows and not self._console.is_terminal:
            self._print(self._doing)

    def step(self, site: str, done: int, steps: int, loss: float, examples: int) -> None:
        """The site is that far."""
        now = time.monotonic()
        self._sites.setdefault(site, _Site()).step(done, steps, loss, examples, now)
        if now - self._spoke > PATIENCE and self._rows and not self._console.is_terminal:
            self._spoke = now
            _, step, shown, speed, left = self._sites[site].cells()
            self._print(
                f"{site:<12} step {step}, loss {shown}, {speed} images/s, {left} left; {self._progress()}"
            )

    def answered(self, site: str) -> None:
        """The site is done."""
        self._absent.discard(site)
        self._sites.setdefault(site, _Site()).state = "done"

    def absent(self, site: str, why: str) -> None:
        """Prints it, where that is news, and shows the site as absent until it answers again."""
        self._sites.setdefault(site, _Site()).state = "absent"
        if site not in self._absent:
            self._print(f"absent: {site}: {why}")
        self._absent.add(site)

    def refused(self, site: str, why: str) -> None:
        """Prints it."""
        self._sites.setdefault(site, _Site()).state = "refused"
        self._print(f"refused: {site}: {why}")

    def row(self, row: Row) -> None:
        """Prints a measurement, when those of all sites are there."""
        if self._measured and (self._measured[0].stage, self._measured[0].round) != (row.stage, row.round):
            self._show_measured()
        self._measured.append(row)

    def _show_measured(self) -> None:
        """A line for each site's measurement at one stage, or one for all where they are many."""
        rows, self._measured = self._measured, []
        if not self._rows:
            return
        if len(rows) > MANY:
            mean = sum(row.accuracy for row in rows) / len(rows)
            worst = min(rows, key=lambda row: row.accuracy)
            self._print(
                f"{len(rows):,} sites  {worst.stage}  accuracy {mean:.4f} mean, "
                f"{worst.accuracy:.4f} worst ({worst.site})"
            )
            return
        for row in rows:
            self._print(row_line(row))

    def _print(self, text: str) -> None:
        self._console.print(text, highlight=False, markup=False, soft_wrap=True)

    def _progress(self) -> str:
        done = sum(self._sites[name].state in DONE for name in self._asked)
        return f"{done:,} of {len(self._asked):,} done"

    def _table(self) -> Table:
        sites = list(self._sites.items())
        title = f"{self._doing}, {self._progress()}, {_clock(time.monotonic() - self._began)}"
        table = Table(box=box.SIMPLE_HEAD, title=Text(title), title_justify="left", pad_edge=False)
        table.caption_justify = "left"
        table.add_column("site")
        table.add_column("state")
        for heading in ("step", "loss", "images/s", "time left"):
            table.add_column(heading, justify="right", min_width=8)
        room = min(MANY, max(1, self._console.height - 8))
        if len(sites) > room:
            busy = [(name, site) for name, site in sites if site.state in BUSY]
            shown = sorted(busy, key=lambda item: item[1].done - item[1].steps)[:room]
        else:
            shown = sites
        for name, site in shown:
            table.add_row(name, *site.cells(), style="" if site.state == "training" else "dim")
        names = {name for name, _ in shown}
        if hidden := Counter(site.state for name, site in sites if name not in names):
            what = ", ".join(f"{count:,} {state}" for state, count in sorted(hidden.items()))
            table.caption = Text(f"and {hidden.total():,} more: {what}")
        return table


def _several(count: int, one: str) -> str:
    return one if count == 1 else f"{count:,} sites"


def _clock(seconds: float | None) -> str:
    """``1:02:03``, or ``2:03`` below an hour."""
    if seconds is None:
        return ""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
