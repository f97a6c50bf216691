"""The page of one run: the verdict and the edges' gains first, then data, sub-models, training and cost."""

from __future__ import annotations

from sheaf.report.accuracy_sections import (
    cloud_section,
    confusion_section,
    decisions_section,
    gain_section,
    verdict_section,
)
from sheaf.report.document import Page
from sheaf.report.formatting import format_count, format_number_of
from sheaf.report.load_runs import Run
from sheaf.report.paper_results import paper_section
from sheaf.report.provenance import commit_label, dataset_name, provenance_value, setting_value
from sheaf.report.run_name import run_name
from sheaf.report.time_section import time_section
from sheaf.report.training_sections import (
    cost_section,
    curves_section,
    replacements_section,
    settings_section,
    skipped_section,
    split_section,
    submodels_section,
)


def run_page(run: Run) -> Page:
    """Return the page of a run; sections without content are omitted."""
    result = run.result
    sections = (
        verdict_section(result),
        gain_section(result),
        decisions_section(result),
        cloud_section(result),
        paper_section([result]),
        confusion_section(result),
        split_section(result),
        submodels_section(result),
        curves_section(result),
        cost_section(result),
        time_section(result),
        skipped_section(result),
        replacements_section(result),
        settings_section(run),
    )
    return Page(
        title=run_name(result),
        facts=(
            ("experiment", str(setting_value(result, "title") or "-")),
            ("method", result.method),
            ("data", f"{dataset_name(result)}: {sum(map(sum, result.split.values())):,} training images, "
             f"{format_number_of(len(result.classes), 'class')}"),
            ("model", f"{setting_value(result, 'model', 'name')}: "
             f"{format_count(result.whole.parameters)} parameters, "
             f"{format_count(result.whole.macs_per_example)} multiply-adds per image"),
            ("seed", str(provenance_value(result, "seed"))),
            ("commit", commit_label(result)),
        ),
        sections=[section for section in sections if section is not None],
    )  # fmt: skip
