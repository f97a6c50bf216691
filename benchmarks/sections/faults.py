"""What a run does when something fails."""

from __future__ import annotations

from benchmarks.sections._tables import Rows, commits, table


def faults(rows: Rows) -> str:
    """What a run does when something fails."""
    lines = [
        (
            row["case"].replace("_", " "),
            row["what"],
            row["ended"],
            "-" if not row["weights"] else "yes" if row["equal"] else "no",
            f"{row['lost_s']:.0f}" if row["weights"] else "-",
            row["left_out"] or "-",
        )
        for row in rows
    ]
    at = commits((row["case"].replace("_", " "), row["commit"]) for row in rows)
    heading = ("case", "what happens", "how it ended", "same weights", "seconds lost", "left out")
    return (
        "## When something fails\n\nA rehearsed fleet of three devices, quorum 0.5. `same weights`: whether "
        "they are those of the undisturbed run, bit for bit; they cannot be where a device was left out of "
        "training. Seconds lost are over the undisturbed run, and include starting again. "
        + f"Each case at the last commit that it was run at: {at}.\n\n"
        + table(heading, lines)
    )
