"""The table of a fleet's devices before a run."""

from __future__ import annotations

from rich.table import Table
from rich.text import Text

from sheaf.experiments.survey import Survey


def devices_table(found: Survey) -> Table:
    """Return a row for each device: its data, its limits, and whether it can take part."""
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    for column in ("device", "examples", "classes", "width", "memory", "disk", "takes part"):
        table.add_column(column, justify="left" if column in ("device", "takes part") else "right")
    for edge in found.edges:
        if (info := found.infos.get(edge)) is None:
            cells = ["-"] * 5
        else:
            demands = found.demands.get(edge)
            memory, disk = (demands.memory, demands.disk) if demands else (0, 0)
            cells = [
                str(sum(info.counts)),
                str(sum(map(bool, info.counts))),
                f"{info.width:g}",
                f"{memory / 1e6:.0f} of {info.memory / 1e6:.0f} MB",
                f"{disk / 1e6:.0f} of {info.disk / 1e6:.0f} MB",
            ]
        state = "no: absent" if edge in found.absent else "no" if edge in found.misfits else "yes"
        table.add_row(Text(edge), *cells, state)
    return table
