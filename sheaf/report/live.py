"""How a run goes, on the terminal: a bar for each training site, a line for each measurement."""

from __future__ import annotations

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)

from sheaf.record import Row
from sheaf.report.tables import row_line


class Live:
    """Shows a run on ``console``; on what is no terminal, plain lines and no bars.

    Args:
        title: said first.
        rows: whether each measurement gets a line.
    """

    def __init__(self, console: Console, title: str, rows: bool = True) -> None:
        self._console = console
        self._title = title
        self._rows = rows
        self._bars = Progress(
            TextColumn("{task.description:<14}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("steps, loss {task.fields[loss]:.3f}"),
            TimeRemainingColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._tasks: dict[str, TaskID] = {}

    def __enter__(self) -> Live:
        self._console.print(self._title, style="bold")
        self._bars.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._bars.stop()

    def note(self, text: str) -> None:
        """Prints it."""
        self._console.print(f"note: {text}", highlight=False)

    def began(self, kind: str, sites: int) -> None:
        """A line for a call that may take a while; bars of the call before go."""
        for task in self._tasks.values():
            self._bars.remove_task(task)
        self._tasks.clear()
        if kind == "train" and self._rows and not self._console.is_terminal:
            self._console.print(f"training on {sites} site{'s' * (sites > 1)}")

    def step(self, site: str, done: int, steps: int, loss: float) -> None:
        """Moves the site's bar."""
        if site not in self._tasks:
            self._tasks[site] = self._bars.add_task(site, total=steps, loss=loss)
        self._bars.update(self._tasks[site], completed=done, loss=loss)

    def row(self, row: Row) -> None:
        """Prints a measurement."""
        if self._rows:
            self._console.print(row_line(row), highlight=False)
