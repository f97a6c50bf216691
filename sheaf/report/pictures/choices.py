"""Picture of guarded edges' decisions: keep their own model, take the offered one, or mix both."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes

from sheaf.report.document import Picture
from sheaf.report.formatting import MAX_LISTED, format_number_of
from sheaf.report.style import BLUE, FAINT, INK, new_figure, printable_name, text_column
from sheaf.report.svg import set_tooltip
from sheaf.runtime.result import Choice, Row


def draw_choices(rows: Sequence[Row]) -> Picture:
    """Draw a panel for each decision.

    Args:
        rows: a row with choices for each edge.
    """
    panels = max(len(row.choices) for row in rows)
    few = len(rows) <= MAX_LISTED
    figure, axes = new_figure(0.34 * len(rows) + 1.1 if few else 2.6, 1, panels, sharey=True)
    for n, panel in enumerate(axes):
        decided = [(row.site, row.choices[n]) for row in rows if len(row.choices) > n]
        panel.set_title(f"decision {n + 1}" if panels > 1 else "")
        if few:
            _each(panel, decided)
        else:
            panel.hist(
                [choice.mixture for _, choice in decided], bins=20, range=(0, 1), color=BLUE, rwidth=0.9
            )
            panel.set_ylabel("edges" if n == 0 else "")
            panel.grid(axis="y", color=FAINT, linewidth=0.6)
        panel.set_xticks([0, 0.5, 1], ["0\nown", "0.5\nmixed", "1\noffered"])
        panel.set_axisbelow(True)
    values = "; ".join(f"{row.site} {', then '.join(map(str, row.choices))}" for row in rows[:MAX_LISTED])
    return Picture(
        "choices",
        f"Decisions of the edges: {values}.",
        "Weight of the offered model in each edge's choice: 0 keeps its own model, 1 takes the offered one. "
        + (
            "Right: accuracy on the held-out examples of the own, the offered and the chosen model."
            if few
            else ""
        ),
        figure,
    )


def _each(axes: Axes, decided: Sequence[tuple[str, Choice]]) -> None:
    for y, (site, choice) in enumerate(decided):
        (line,) = axes.plot([0, choice.mixture], [y, y], color=BLUE, linewidth=2)
        (marker,) = axes.plot(
            choice.mixture, y, marker="o", markersize=8, color=BLUE, markeredgewidth=1.5,
            markerfacecolor="white" if choice.mixture == 0 else BLUE, clip_on=False,
        )  # fmt: skip
        for artist in (line, marker):
            set_tooltip(
                artist, f"{site}: {choice}, on {format_number_of(choice.examples, 'held-out example')}"
            )
    text_column(
        axes, "own, offered: chosen", [(y, _scores(choice), INK) for y, (_, choice) in enumerate(decided)]
    )
    axes.set_yticks(range(len(decided)), [printable_name(site) for site, _ in decided])
    axes.set_ylim(len(decided) - 0.5, -0.5)
    axes.set_xlim(0, 1)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x", color=FAINT, linewidth=0.6)


def _scores(choice: Choice) -> str:
    """Return ``0.962, 0.970: 0.981``: accuracy of the own, the offered and the chosen model."""
    own, offered, chosen = (
        "-" if score is None else f"{score:.3f}" for score in (choice.had, choice.got, choice.chosen)
    )
    return f"{own}, {offered}: {chosen}"
