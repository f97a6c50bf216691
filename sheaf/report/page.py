"""One HTML file for one run or several, and its pictures beside it as PNG and SVG.

The file needs nothing but itself: pictures are inside, no address is ever asked for. Its content security
policy says so to the browser too, and lets no script run but the page's own.
"""

from __future__ import annotations

import base64
import hashlib
import io
from collections.abc import Sequence
from datetime import datetime, timezone
from importlib.resources import files
from pathlib import Path

import jinja2
from markupsafe import Markup

from sheaf.core.atomic_io import write_durably
from sheaf.core.errors import RunFolderError
from sheaf.report.comparison import comparison
from sheaf.report.document import Page, Picture
from sheaf.report.gather import gather
from sheaf.report.one_run import one_run
from sheaf.report.style import styled

HERE = files("sheaf.report")
PIXELS = 96
"""CSS pixels an inch."""


def write_report(folders: Sequence[Path], out: Path | None = None) -> Path:
    """Writes the report of these runs and returns where it is.

    Args:
        folders: of runs, or folders with runs in them.
        out: the HTML file; by default ``report.html`` in the folder if there is one, else here. The pictures
            go to a folder beside it: ``report-figures`` for ``report.html``.

    Raises:
        RunFolderError: there is no finished run in a folder, or ``out`` cannot be written.
    """
    runs, unfinished = gather(folders)
    place = out or (folders[0] if len(folders) == 1 else Path()) / "report.html"
    figures = place.with_name(f"{place.stem}-figures")
    with styled():
        page = one_run(runs[0]) if len(runs) == 1 else comparison(runs, unfinished)
        try:
            figures.mkdir(parents=True, exist_ok=True)
            drawn = {p.name: _save(p, figures) for section in page.sections for p in section.pictures}
            write_durably(place, _html(page, drawn, figures.name).encode())
        except OSError as error:
            raise RunFolderError(f"{error.filename or place}: {error.strerror or error}") from error
    return place


def _save(picture: Picture, folder: Path) -> str:
    """Writes both files; returns the SVG as an address that holds all of it."""
    picture.figure.savefig(folder / f"{picture.name}.png")
    drawn = io.BytesIO()
    picture.figure.savefig(drawn, format="svg", metadata={"Date": None})
    (folder / f"{picture.name}.svg").write_bytes(drawn.getvalue())
    return f"data:image/svg+xml;base64,{base64.b64encode(drawn.getvalue()).decode()}"


def _html(page: Page, drawn: dict[str, str], figures: str) -> str:
    script = HERE.joinpath("page.js").read_text(encoding="utf-8")
    allowed = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    return environment.from_string(HERE.joinpath("page.html.jinja").read_text(encoding="utf-8")).render(
        page=page,
        drawn=drawn,
        sizes={p.name: _pixels(p) for section in page.sections for p in section.pictures},
        figures=figures,
        style=Markup(HERE.joinpath("page.css").read_text(encoding="utf-8")),
        script=Markup(script),
        policy=f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{allowed}'",
        written=f"{datetime.now(timezone.utc):%Y-%m-%d %H:%M} UTC",
    )


def _pixels(picture: Picture) -> tuple[int, int]:
    width, height = picture.figure.get_size_inches()
    return round(width * PIXELS), round(height * PIXELS)
