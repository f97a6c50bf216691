"""The disk and the memory that a device needs."""

from __future__ import annotations

from benchmarks.sections._tables import Rows, table
from sheaf.report.formatting import format_bytes

LISTED = 4_000_000  # bytes from which a distribution has a line of its own


def footprint(rows: Rows) -> str:
    """Return the section."""
    names = sorted(
        {name for row in rows for name, size in row["packages"].items() if size >= LISTED},
        key=lambda name: -max(row["packages"].get(name, 0) for row in rows),
    )
    lines = [
        (name, *(format_bytes(size) if (size := row["packages"].get(name)) else "" for row in rows))
        for name in names
    ]
    rest = [row["bytes"] - sum(row["packages"].get(name, 0) for name in names) for row in rows]
    lines.append(("all others", *map(format_bytes, rest)))
    lines.append(("**sum**", *(format_bytes(row["bytes"]) for row in rows)))
    beyond = [row["bytes"] - row["torch"] for row in rows]
    lines.append(("without torch and its requirements", *map(format_bytes, beyond)))
    commands = "; ".join(f"*{row['installation']}* by `{row['command']}`" for row in rows)
    device = rows[-1]
    return (
        "## The footprint of a device\n\nThe files of each library after the installation of "
        f"{commands}.\n\n"
        + table(("library", *(row["installation"] for row in rows)), lines)
        + "\n\nMemory of the device (*small*) in a rehearsed fleet, as the sum of the resident memory of all "
        f"its processes: {format_bytes(device['idle'])} while it is connected and no run needs it, "
        f"{format_bytes(device['device'])} at the peak of a run that trains a small convolutional network. "
        f"A process that only imports torch has {format_bytes(device['import'])}; one that trains such a "
        f"network by plain torch has {format_bytes(device['train'])}."
    )
