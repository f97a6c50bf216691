"""A fleet's page as fragments of HTML, so that a browser receives only those that have changed."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timezone
from importlib.resources import files
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from sheaf.fleets.remote.status import CallLoss, Measurement
from sheaf.report.activities import ACTIVITY
from sheaf.report.fleet_page.snapshot import Reader, Snapshot
from sheaf.report.formatting import format_number_of, format_percent
from sheaf.report.stages import stage_label
from sheaf.runtime.time_record import TimeRecord

TEMPLATES = files("sheaf.report.fleet_page")

LABELS = {
    "training": "training",
    "waiting": "waiting",
    "done": "done",
    "skipped": "skipped",
    "idle": "connected",
    "gone": "gone",
    "new": "never connected",
    "unknown": "cloud not running",
    "removed": "removed",
}
"""State of a device -> its label, in the order of the page."""

MOST_SKIPPED = 20
"""Maximum number of skipped calls on the page: the latest."""

MOST_RUNS = 50
"""Maximum number of earlier runs on the page: the latest."""

DRAWING_PERIOD = 5.0
"""Minimum time between two drawings of the same pictures, in seconds."""


class _Drawn:
    """Pictures that are drawn when their values have changed, at most every ``DRAWING_PERIOD`` seconds.

    Args:
        draw: returns the pictures as SVG for the page.
    """

    def __init__(self, draw: Callable[..., Sequence[str]]) -> None:
        self._draw = draw
        self._values: tuple[object, ...] | None = None
        self._pictures: list[Markup] = []
        self._at = 0.0

    def pictures(self, now: float, ended: bool, *values: object) -> list[Markup]:
        """Return the pictures; those of a run that has ended are up to date."""
        if values != self._values and (now - self._at >= DRAWING_PERIOD or ended):
            self._pictures = [Markup(picture) for picture in self._draw(*values)]
            self._values, self._at = values, now
        return self._pictures


class FleetPage:
    """The page of one fleet. It keeps what it has rendered; one thread uses it at a time.

    Args:
        fleet: the fleet's folder.
        service: the folder of the fleet in service; by default ``service`` in the fleet's.

    Raises:
        FleetError: the folder has no fleet.
    """

    def __init__(self, fleet: Path, service: Path | None = None) -> None:
        self._reader = Reader(fleet, service or fleet / "service")
        self._rows: dict[str, tuple[object, str]] = {}  # id -> what it shows, and its HTML
        self._curves = _Drawn(_draw_curves)
        self._timeline = _Drawn(_draw_timeline)
        environment = jinja2.Environment(
            autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
        )
        environment.filters |= {"iso": _iso, "utc": _utc, "percent": format_percent, "stage": stage_label}
        environment.filters["name"] = lambda path: Path(path).name
        self._page = environment.from_string(_read("page.html.jinja"))
        self._macros: Any = environment.from_string(_read("fragments.html.jinja")).module
        self._host = self._reader.snapshot(time.time()).fleet.host

    def fragments(self) -> dict[str, str]:
        """Return the fragments of the page: the id of an element -> its HTML."""
        snapshot = self._reader.snapshot(time.time())
        view, macros = view_of(snapshot), self._macros
        ended, run = snapshot.run_state != "running", snapshot.run
        curves, timeline = list[Markup](), list[Markup]()
        if run is not None and (run.measured or run.losses):
            curves = self._curves.pictures(snapshot.now, run.ended is not None, run.measured, run.losses)
        if run is not None and run.time is not None:
            timeline = self._timeline.pictures(snapshot.now, run.ended is not None, run.time)
        fragments = {
            "summary": macros.summary(snapshot, view),
            "run-now": macros.run(snapshot, view),
            "skipped": macros.skipped(run, MOST_SKIPPED),
            "states": macros.states(snapshot, LABELS),
            "rounds": macros.rounds(snapshot.rounds),
            "history": macros.history(snapshot.history, MOST_RUNS),
            "timeline": macros.timeline(timeline),
            "curves": macros.curves(curves),
        }
        rows: dict[str, tuple[object, str]] = {}
        for number, device in enumerate(snapshot.devices):
            id = f"device-{number}"
            old = self._rows.get(id)
            if old is None or old[0] != (device, ended):
                old = (device, ended), macros.device(number, device, LABELS, ended)
            rows[id] = old
        self._rows = rows
        return {id: str(html).strip() for id, html in fragments.items()} | {
            id: str(html).strip() for id, (_, html) in rows.items()
        }

    def main(self, fragments: Mapping[str, str]) -> str:
        """Return the page's ``main`` element."""
        devices = [id for id in fragments if id.startswith("device-")]
        safe = {id: Markup(html) for id, html in fragments.items()}
        return str(self._macros.main(safe, devices, round(time.time(), 1))).strip()

    def html(self, fragments: Mapping[str, str]) -> str:
        """Return the whole page."""
        return self._page.render(host=self._host, main=Markup(self.main(fragments)))


def _draw_curves(measured: Sequence[Measurement], losses: Sequence[CallLoss]) -> list[str]:
    from sheaf.report.fleet_page.curves import curves  # imports matplotlib, which takes a second

    return curves(measured, losses)


def _draw_timeline(record: TimeRecord) -> list[str]:
    from sheaf.report.pictures.timeline import draw_timeline
    from sheaf.report.style import picture_style
    from sheaf.report.svg import figure_svg, inline_svg

    with picture_style():
        picture = draw_timeline(record)
        return [inline_svg(figure_svg(picture.figure), picture.name, picture.alt)]


def view_of(snapshot: Snapshot) -> dict[str, Any]:
    """Return the sentences and numbers on the run that the page shows."""
    run, state = snapshot.run, snapshot.run_state
    view: dict[str, Any] = {"run_state": RUN_STATES[state], "progress": None, "remedy": ""}
    if run is None:
        return view | {
            "finding": "No run has used this fleet yet; start one with: sheaf cloud run EXPERIMENT"
        }
    called = {site: entry for site, entry in run.sites.items() if entry.call == run.call}
    done = sum(entry.state == "done" for entry in called.values())
    absent = sum(entry.state in ("absent", "refused") for entry in called.values())
    skipped = f", {absent:,} skipped" if absent else ""
    if state == "running" and run.kind:
        sites = next(iter(called)) if len(called) == 1 else format_number_of(len(called), "site")
        activity = f"{ACTIVITY.get(run.kind, run.kind)} {sites}"
        view["finding"] = f"{activity[0].upper()}{activity[1:]}: {done:,} of {len(called):,} done{skipped}."
        if steps := sum(entry.steps for entry in called.values()):
            trained = sum(entry.done for entry in called.values())
            view["progress"] = (trained, steps)
            view["progress_text"] = (
                f"{100 * trained // steps}\u00a0% of the steps of sites that have reported"
            )
    elif state == "running":
        view["finding"] = "The run is starting."
    elif state == "ended":
        left_out = len({skip.site for skip in run.skipped})
        view["finding"] = "The latest run has ended" + (
            f"; {format_number_of(left_out, 'device')} missed a call." if left_out else "."
        )
    else:
        view["finding"] = (
            f"The latest run has failed: {run.error}"
            if state == "failed"
            else "The process of the latest run has ended without a report."
        )
        view["remedy"] = f"sheaf cloud run --resume {run.run}"
    return view


RUN_STATES = {
    "none": "none yet",
    "running": "running",
    "ended": "ended",
    "failed": "failed",
    "lost": "its process is gone",
}
"""State of the run -> its label."""


def changes(old: Mapping[str, str], new: Mapping[str, str]) -> dict[str, str] | None:
    """Return the fragments of ``new`` that differ from ``old``; None if they are of other elements."""
    if old.keys() != new.keys():
        return None
    return {id: html for id, html in new.items() if old[id] != html}


def style() -> str:
    """Return the page's style sheet: that of reports, and the rules of this page."""
    report = files("sheaf.report").joinpath("page.css").read_text(encoding="utf-8")
    return report + _read("page.css")


def script() -> str:
    """Return the page's script."""
    return _read("page.js")


def _read(name: str) -> str:
    return TEMPLATES.joinpath(name).read_text(encoding="utf-8")


def _iso(at: float) -> str:
    return datetime.fromtimestamp(at, timezone.utc).isoformat(timespec="seconds")


def _utc(at: float) -> str:
    return f"{datetime.fromtimestamp(at, timezone.utc):%Y-%m-%d %H:%M:%S}"
