"""Write a report: one self-contained HTML file, and its pictures next to it as PNG and SVG.

The HTML file contains its pictures, style and script, and loads nothing. Its content security policy forbids
other sources and other scripts.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from importlib.resources import files
from pathlib import Path

import jinja2
from markupsafe import Markup

from sheaf.core.atomic_io import write_durably
from sheaf.core.errors import RunFolderError
from sheaf.report.comparison_page import comparison_page
from sheaf.report.document import Page, Picture
from sheaf.report.load_runs import load_runs
from sheaf.report.run_page import run_page
from sheaf.report.style import picture_style
from sheaf.report.svg import figure_svg, inline_svg, svg_file

TEMPLATES = files("sheaf.report")


def write_report(folders: Sequence[Path], out: Path | None = None) -> Path:
    """Write the report of these runs and return the HTML file's path.

    Args:
        folders: runs' folders, or folders that contain runs' folders.
        out: the HTML file; by default ``report.html``, in the folder if there is one, else in the current
            folder. The pictures go to a folder next to it: ``report-figures`` for ``report.html``.

    Raises:
        RunFolderError: a folder contains no finished run, or ``out`` cannot be written.
    """
    runs, unfinished = load_runs(folders)
    page_file = out or (folders[0] if len(folders) == 1 else Path()) / "report.html"
    figures = page_file.with_name(f"{page_file.stem}-figures")
    with picture_style():
        page = run_page(runs[0]) if len(runs) == 1 else comparison_page(runs, unfinished)
        try:
            figures.mkdir(parents=True, exist_ok=True)
            drawings = {p.name: _save(p, figures) for section in page.sections for p in section.pictures}
            write_durably(page_file, _html(page, drawings, figures.name).encode())
        except OSError as error:
            raise RunFolderError(f"{error.filename or page_file}: {error.strerror or error}") from error
    return page_file


def _save(picture: Picture, folder: Path) -> Markup:
    """Write the picture as PNG and SVG, and return the SVG for the page."""
    picture.figure.savefig(folder / f"{picture.name}.png")
    svg = figure_svg(picture.figure)
    (folder / f"{picture.name}.svg").write_bytes(svg_file(svg))
    return Markup(inline_svg(svg, picture.name, picture.alt))


def _html(page: Page, drawings: Mapping[str, Markup], figures: str) -> str:
    script = TEMPLATES.joinpath("page.js").read_text(encoding="utf-8")
    script_hash = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    template = environment.from_string(TEMPLATES.joinpath("page.html.jinja").read_text(encoding="utf-8"))
    return template.render(
        page=page,
        drawings=drawings,
        figures=figures,
        style=Markup(TEMPLATES.joinpath("page.css").read_text(encoding="utf-8")),
        script=Markup(script),
        policy="default-src 'none'; img-src data:; style-src 'unsafe-inline'; "
        f"script-src 'sha256-{script_hash}'",
        written=f"{datetime.now(timezone.utc):%Y-%m-%d %H:%M} UTC",
    )
