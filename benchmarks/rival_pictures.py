"""Pictures of accuracy against bytes and against epsilon, drawn by ``python -m benchmarks.document``."""

from __future__ import annotations

import statistics

from benchmarks.pictures import FOLDER
from benchmarks.sections._tables import Rows
from benchmarks.sections.rivals import MOST_BYTES, best_by_bytes
from sheaf.report.style import BLUE, COLOURS, FAINT, INK, new_figure, picture_style


def privacy(rows: Rows) -> None:
    """``privacy.svg``: accuracy of a head from statistics against epsilon; without noise as a line."""
    budgets = list(dict.fromkeys(row["epsilon"] for row in rows if row["epsilon"] is not None))
    values = [[row["refitted"] for row in rows if row["epsilon"] == epsilon] for epsilon in budgets]
    exact = statistics.mean(row["refitted"] for row in rows if row["epsilon"] is None)
    with picture_style():
        figure, (axes,) = new_figure(2.6)
        means = [statistics.mean(each) for each in values]
        spread = [statistics.stdev(each) for each in values]
        axes.errorbar(budgets, means, spread, color=BLUE, marker="o", capsize=3, label="with noise")
        axes.axhline(exact, color=INK, linewidth=0.8, linestyle=(0, (4, 2)), label="without noise")
        axes.set_xscale("log", base=2)
        axes.set_xticks(budgets, [f"{epsilon:g}" for epsilon in budgets])
        axes.minorticks_off()
        axes.set_xlabel("epsilon of the statistics, at delta 1e-5")
        axes.set_ylabel("accuracy of the cloud")
        axes.grid(color=FAINT, linewidth=0.6)
        axes.legend(loc="lower right")
        figure.savefig(FOLDER / "privacy.svg", metadata={"Date": None})


CURVES = {
    "A": (
        "ecavg, no images", "ecavg, no images, int8",
        "fedavg", "fedprox", "fedavgm", "fedadam", "scaffold", "fedbn", "ditto",
    ),
    "B-dirichlet": (
        "decoupled, no images", "decoupled, no images, int8",
        "heterofl", "fedrolex", "fjord", "fiarse", "fedavg, all edges",
    ),
}  # fmt: skip
"""Protocol -> the methods whose curves are drawn; the first two are ours."""


def rivals(rows: Rows) -> None:
    """``rivals.svg``: best accuracy of the cloud so far, against the bytes sent by all sites, up to 10 MB."""
    drawn = {protocol for protocol in CURVES if any(row["protocol"] == protocol for row in rows)}
    with picture_style():
        figure, panels = new_figure(2.9 * len(drawn), len(drawn), 1)
        for axes, protocol in zip(panels, sorted(drawn), strict=True):
            for method, colour in zip(CURVES[protocol], (COLOURS[0], *COLOURS), strict=False):
                own = [row for row in rows if (row["protocol"], row["method"]) == (protocol, method)]
                if own:
                    sent, accuracy = best_by_bytes(own)
                    ours = CURVES[protocol].index(method) < 2
                    axes.step(
                        [each / 1e6 for each in sent], accuracy, where="post", color=colour, label=method,
                        linewidth=2.2 if ours else 1.1, linestyle="--" if method.endswith("int8") else "-",
                    )  # fmt: skip
            axes.set_xlim(0, MOST_BYTES / 1e6)
            axes.set_title(f"protocol {protocol}")
            axes.set_ylabel("accuracy of the cloud")
            axes.grid(color=FAINT, linewidth=0.6)
            axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
        panels[-1].set_xlabel("sent by all sites, MB")
        figure.savefig(FOLDER / "rivals.svg", metadata={"Date": None})
