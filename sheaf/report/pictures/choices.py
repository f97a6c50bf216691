"""What guarded edges decided: to keep what they had, to take what they got, or a mixture of both."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes

from sheaf.report.document import Picture
from sheaf.report.style import BLUE, FAINT, GREY, INK, drawable, sheet
from sheaf.report.tables import MANY
from sheaf.runtime.result import Choice, Row


def choices(rows: Sequence[Row]) -> Picture:
    """``rows`` is one for each edge that decided; each of its decisions is a panel."""
    panels = max(len(row.choices) for row in rows)
    few = len(rows) <= MANY
    figure, axes = sheet(0.34 * len(rows) + 1.1 if few else 2.6, 1, panels, sharey=True)
    for n, here in enumerate(axes):
        decided = [(row.site, row.choices[n]) for row in rows if len(row.choices) > n]
        here.set_title(f"decision {n + 1}" if panels > 1 else "")
        if few:
            _each(here, decided)
        else:
            here.hist(
                [choice.mixture for _, choice in decided], bins=20, range=(0, 1), color=BLUE, rwidth=0.9
            )
            here.set_ylabel("edges" if n == 0 else "")
            here.grid(axis="y", color=FAINT, linewidth=0.6)
        here.set_xticks([0, 0.5, 1], ["0\nkept", "0.5\nmixed", "1\ntaken"])
        here.set_axisbelow(True)
    told = "; ".join(f"{row.site} {', then '.join(map(str, row.choices))}" for row in rows[:MANY])
    return Picture(
        "choices",
        f"What the edges decided: {told}.",
        "How far each edge went from what it had (0) to what it was offered (1), by its held-out examples. "
        + ("Beside it: its accuracy on these, had, offered, and what it chose." if few else ""),
        figure,
    )


def _each(axes: Axes, decided: Sequence[tuple[str, Choice]]) -> None:
    for y, (_, choice) in enumerate(decided):
        axes.plot([0, choice.mixture], [y, y], color=BLUE, linewidth=2)
        axes.plot(
            choice.mixture, y, marker="o", markersize=8, color=BLUE, markeredgewidth=1.5,
            markerfacecolor="white" if choice.mixture == 0 else BLUE,
        )  # fmt: skip
        axes.annotate(_scores(choice), (1.12, y), va="center", fontsize=8.5, color=INK)
    axes.set_yticks(range(len(decided)), [drawable(site) for site, _ in decided])
    axes.annotate("had, offered: chosen", (1.12, -0.75), va="center", fontsize=8.5, color=GREY)
    axes.set_ylim(len(decided) - 0.5, -1.1)
    axes.set_xlim(-0.08, 2.3)  # room for what was measured
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x", color=FAINT, linewidth=0.6)


def _scores(choice: Choice) -> str:
    """``0.962, 0.970: 0.981``: had, offered, chosen."""
    had, got, chosen = ("-" if s is None else f"{s:.3f}" for s in (choice.had, choice.got, choice.chosen))
    return f"{had}, {got}: {chosen}"
