"""A finished run as an object: its models, measurements and pictures."""

from __future__ import annotations

import html
import importlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from sheaf.api.notebook import notebook_shell
from sheaf.core.errors import UnknownNameError
from sheaf.core.optional_imports import extra, needs
from sheaf.core.types import CLOUD
from sheaf.experiments.export_run import export as export_model
from sheaf.experiments.run_check import compare_with_run, weights_file
from sheaf.export.model_file import LoadedModel
from sheaf.export.trained_model import WithNormalisation, build_trained, read_card
from sheaf.models.card import Card
from sheaf.report.formatting import MAX_LISTED
from sheaf.report.load_runs import Run as LoadedRun
from sheaf.report.run_name import run_name
from sheaf.report.stages import stage_label
from sheaf.report.verdict import verdict
from sheaf.runtime.result import Result, Row

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FEW = 5
"""Edges that the notebook's table lists if there are more than ``MAX_LISTED``."""

SCALARS = (
    *("site", "stage", "round", "reference", "accuracy", "precision", "recall", "f1", "macro_f1"),
    *("accuracy_all", "held_out", "loss", "examples"),
)
"""The fields of a measurement that are one value."""


class Run:
    """A finished run.

    Args:
        folder: the run's folder.

    Attributes:
        folder: likewise.
        result: the content of ``result.json``.

    Raises:
        RunFolderError: the folder holds no finished run.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.result = Result.read(folder)

    @property
    def rows(self) -> list[Row]:
        """The measurements, in order."""
        return self.result.rows

    @property
    def sites(self) -> tuple[str, ...]:
        """The sites that have a model."""
        return tuple(self.result.weights)

    def card(self, site: str = CLOUD) -> Card:
        """Return the metadata of a site's model: its classes (``outputs``), ``in_shape``, ``mean``, …."""
        return read_card(weights_file(self.folder, site))

    def model(self, site: str = CLOUD, *, normalised: bool = False) -> nn.Module:
        """Return a site's final model, in evaluation mode on the CPU; for a cut, its sub-model.

        Args:
            site: an edge or ``"cloud"``.
            normalised: whether the model normalises its inputs itself. Then it takes images as bytes, 0 to
                255, (N, C, H, W); otherwise normalised values.

        Raises:
            UnknownNameError: the run has no model of this site.
            ModelFileError: the model does not compute the logits that the run recorded.
            SheafError: its model is an object of another process, or its weights are damaged.
        """
        weights = weights_file(self.folder, site)
        model, card = build_trained(read_card(weights), weights)
        network = WithNormalisation(model, card).eval()
        compare_with_run(self.folder, site, weights, LoadedModel(card, torch.no_grad()(network)))
        return network if normalised else model

    def export(self, site: str = CLOUD, to: str = "onnx", out: str | Path | None = None) -> Path:
        """Write a site's model to one file and return its path, as ``sheaf export`` does.

        Args:
            site: an edge or ``"cloud"``.
            to: ``onnx``, ``pt2`` or ``safetensors``.
            out: the file; by default ``SITE.TO`` in the current folder.

        Raises:
            SheafError: any error that the caller can fix.
        """
        return export_model(self.folder, site, to, None if out is None else Path(out)).file

    def to_pandas(self) -> Any:
        """Return the measurements as a ``pandas.DataFrame``, without confusion matrices.

        Raises:
            MissingExtraError: pandas is not installed.
        """
        records = [{name: getattr(row, name) for name in SCALARS} for row in self.rows]
        return extra("pandas", "pandas").DataFrame(records, columns=SCALARS)

    def plot(self, name: str = "gain") -> Figure:
        """Return a picture of the report as a matplotlib figure.

        Args:
            name: as the files in ``report-figures/``: ``gain`` (each edge at each stage), ``curves``, ….

        Raises:
            UnknownNameError: the report has no such picture.
        """
        with needs("workstation"):
            from sheaf.report.run_page import run_page
            from sheaf.report.style import picture_style
        with picture_style():
            page = run_page(LoadedRun(self.folder, self.result))
        figures = {picture.name: picture.figure for part in page.sections for picture in part.pictures}
        if name not in figures:
            raise UnknownNameError("picture", name, figures)
        show_figures_in_notebook()
        return figures[name]

    def report(self, out: str | Path | None = None) -> Path:
        """Write the HTML report and return its path; by default ``report.html`` in the folder."""
        with needs("workstation"):
            from sheaf.report.page import write_report
        return write_report([self.folder], None if out is None else Path(out))

    def __repr__(self) -> str:
        return f"<Run {run_name(self.result)}: {verdict(self.result).short}; folder {str(self.folder)!r}>"

    def _repr_html_(self) -> str:
        finals = [row for site in (*self.result.split, CLOUD) if (row := self.result.final(site))]
        listed = finals if len(finals) <= MAX_LISTED else [*finals[:FEW], *finals[-1:]]
        rows = [
            [
                row.site,
                stage_label(row.stage),
                *("" if score is None else f"{score:.4f}" for score in (row.accuracy, row.accuracy_all)),
            ]
            for row in listed
        ]
        left_out = len(finals) - len(listed)
        findings = verdict(self.result).findings
        return (
            f"<div><b>{html.escape(run_name(self.result))}</b></div><ul>"
            + "".join(f"<li>{html.escape(f'{each.topic}: {each.text}')}</li>" for each in findings)
            + "</ul>"
            + html_table(("site", "stage", "accuracy", "on all classes"), rows)
            + f"<div>{left_out:,} sites are not listed</div>" * (left_out > 0)
            + f"<div>folder: <code>{html.escape(str(self.folder))}</code></div>"
        )


def show_figures_in_notebook() -> None:
    """Make a notebook show a figure that a cell returns, as after ``%matplotlib inline``."""
    if (shell := notebook_shell()) is not None:
        pylabtools = importlib.import_module("IPython.core.pylabtools")
        pylabtools.select_figure_formats(shell, {"png"})


def html_table(headings: tuple[str, ...], rows: list[list[str]]) -> str:
    """Return an HTML table of text cells."""
    head = "".join(f"<th>{html.escape(cell)}</th>" for cell in headings)
    body = "".join(
        "<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in rows
    )
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
