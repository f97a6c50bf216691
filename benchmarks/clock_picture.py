"""Draw ``timelines.svg``: the timelines of methods on the same devices, until each reaches the accuracy."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from sheaf.report.pictures.timeline import add_legend, draw_devices
from sheaf.report.style import INK, new_figure, picture_style
from sheaf.runtime.time_record import TimeRecord

FILE = Path(__file__).parents[1] / "docs" / "pictures" / "timelines.svg"


def draw_timelines(runs: Mapping[str, tuple[TimeRecord, float]], target: float, file: Path = FILE) -> None:
    """Draw a panel for each run, all with the same axis, which ends after the second slowest one.

    Args:
        runs: method -> the time of its run, and the seconds until its cloud reached the accuracy.
        target: the accuracy.
        file: the picture.
    """
    end = 1.12 * sorted(seconds for _, seconds in runs.values())[-2]
    with picture_style():
        figure, panels = new_figure(2.75 * len(runs), len(runs), 1, sharex=True)
        for axes, (method, (record, seconds)) in zip(panels, runs.items(), strict=True):
            until = min(seconds, end)
            tasks = [task for task in record.tasks if task.start < until]
            draw_devices(axes, record, tasks)
            axes.set_title(f"{method}: {target:.2f} after {seconds:.1f} s")
            if seconds < end:
                axes.axvline(seconds, color=INK, linewidth=1.2, linestyle=(0, (4, 2)))
        panels[-1].set_xlabel("virtual time in seconds")
        panels[-1].set_xlim(0, end)
        add_legend(figure, away=False)
        figure.savefig(file, metadata={"Date": None})
