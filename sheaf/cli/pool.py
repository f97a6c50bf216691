"""The commands on the samples that devices sent: ``sheaf cloud pool``."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from sheaf.cli.console import output_console, print_line
from sheaf.cli.fleet import group
from sheaf.cli.options import Run

pool = group(
    "List and delete the samples that devices sent in a run.",
    "sheaf cloud pool ls runs/ecavg-digits-mlp-20260101-120000",
)


@pool.command("ls", epilog="Example: sheaf cloud pool ls runs/ecavg-digits-mlp-20260101-120000")
def pool_ls(run: Run) -> None:
    """List the files of samples that each device sent."""
    from sheaf.fleets.remote.sample_pool import Pool

    table = Table("device", "call", "samples", "file", box=None)
    for pooled in Pool(run / "pool").files():
        table.add_row(Text(pooled.edge), str(pooled.call), str(pooled.samples), Text(pooled.path.name))
    output_console().print(table, highlight=False)


@pool.command("rm", epilog="Example: sheaf cloud pool rm runs/ecavg-digits-mlp-20260101-120000 --edge shop-1")
def pool_rm(
    run: Run,
    device: Annotated[str, typer.Option("--edge", help="The device whose samples to delete.")],
) -> None:
    """Delete the samples of a device."""
    from sheaf.fleets.remote.sample_pool import remove_from_run

    count = remove_from_run(run, device)
    print_line(f"{count} samples of {device} are deleted")
