"""The remedies of ``ecavg_plus`` for the paper's drop on MNIST."""

from __future__ import annotations

from benchmarks.sections._tables import Rows, table
from sheaf.report.formatting import format_mean

COLUMNS = {
    "after update": "after update",
    "worst": "after update, worst",
    "after retraining": "after retraining",
    "all classes": "after retraining, all classes",
    "cloud": "cloud, averaged weights",
}
"""Heading -> key of a row."""


def remedies(rows: Rows) -> str:
    """Return the section."""
    lines = []
    for start in dict.fromkeys(row["start"] for row in rows):
        for name in dict.fromkeys(row["remedy"] for row in rows):
            of = [row for row in rows if (row["start"], row["remedy"]) == (start, name)]
            keys = COLUMNS | ({"cloud": "cloud, central"} if name == "central" else {})
            cells = (format_mean([row[key] for row in of if key in row]) for key in keys.values())
            lines.append((start, name, *cells))
    return (
        "## Remedies for the drop\n\n"
        f"The drop's setting with {rows[0]['hidden']} units (edges Adam 1e-3, the cloud one epoch of SGD "
        "1e-2), with one remedy of `ecavg_plus` at a time. Edges: mean and worst on their own classes, and "
        "the mean on all classes after retraining. *central* trains the same network on all images for as "
        f"many epochs: no remedy can pass it on ten classes.\n\n{table(('start', 'remedy', *COLUMNS), lines)}"
    )
