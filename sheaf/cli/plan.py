"""The command ``plan``: settings of devices within limits of their size, and of seconds, bytes and joules."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from sheaf.cli.console import command_line, output_console, print_line
from sheaf.cli.options import Changes, Data, Every, Seed, Source, with_seed

if TYPE_CHECKING:
    from sheaf.experiments.plan_in_time import TimePlan
    from sheaf.experiments.plan_limits import Limits

commands = typer.Typer(rich_markup_mode=None)

MOST = 20
"""Most changed devices whose settings are printed as options."""

EXAMPLE = """Example: sheaf plan ecavg-digits --set 'fleet.devices.mix={"raspberry-pi-4+lte" = 1}'
--finish-within 2h --data-cap 50MB --out planned.toml"""


@commands.command(epilog=EXAMPLE)
def plan(
    experiment: Source = "decoupled-cifar10",
    finish_within: Annotated[
        str | None,
        typer.Option("--finish-within", metavar="TIME", help="The run ends within this time, such as 2h30m."),
    ] = None,
    data_cap: Annotated[
        str | None,
        typer.Option("--data-cap", metavar="SIZE", help="Most bytes that each device sends and receives."),
    ] = None,
    joules: Annotated[
        str | None,
        typer.Option("--joules", metavar="ENERGY", help="Most energy that each device spends, such as 20kJ."),
    ] = None,
    changes: Changes = None,
    seed: Seed = None,
    data: Data = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Write the planned experiment to this TOML file, for sheaf run [default: print]."),
    ] = None,
    every: Every = False,
) -> None:
    """Plan the devices' settings: the widest sub-models that fit, or a run within limits.

    Without a limit, the setting fleet.budgets gives the size of each device, and the plan is the widest
    sub-model that fits. With --finish-within, --data-cap or --joules, fleet.devices gives the devices, and
    the plan lowers codecs, work, widths and shares of those that would exceed a limit.
    """
    from sheaf.core.atomic_io import write_durably
    from sheaf.experiments.config import load_experiment
    from sheaf.experiments.plan import plan as plan_cuts
    from sheaf.experiments.plan_in_time import plan_in_time
    from sheaf.report.terminal_costs import plan_table
    from sheaf.report.terminal_plan import time_plan_table

    console = output_console()
    changes = with_seed(changes, seed)
    given = load_experiment(experiment, changes)
    limits = _limits(finish_within, data_cap, joules)
    planned, repeated = given, None
    if limits is None or given.fleet.budgets:
        planned, rows = plan_cuts(given, data)
        console.print(plan_table(rows))
    if limits is not None:
        in_time = plan_in_time(planned, limits, data)
        console.print(time_plan_table(in_time, limits, every))
        repeated = _changes(in_time) if planned is given else None
        planned = in_time.experiment
    if out is not None:
        write_durably(out, planned.toml().encode())
        print_line(f"written: {out}; next: sheaf run {out}")
    elif repeated is not None:
        options: dict[str, Iterable[object]] = {"--set": [*changes, *repeated], "--data": [data]}
        print_line(command_line(["sheaf", "run", experiment], options))
    elif limits is not None:
        print_line("add --out FILE to write the planned experiment")
    else:
        console.print(Text(planned.toml()))


def _limits(finish_within: str | None, data_cap: str | None, joules: str | None) -> Limits | None:
    from sheaf.cli.quantities import parse_bytes, parse_joules, parse_seconds
    from sheaf.experiments.plan_limits import Limits

    if finish_within is None and data_cap is None and joules is None:
        return None
    return Limits(
        None if finish_within is None else parse_seconds("--finish-within", finish_within),
        None if data_cap is None else parse_bytes("--data-cap", data_cap),
        None if joules is None else parse_joules("--joules", joules),
    )


def _changes(planned: TimePlan) -> list[str] | None:
    """Return the changes of ``--set`` that give the planned experiment; None if they are too many."""
    from sheaf.core import registry
    from sheaf.experiments.plan_options import OWN

    if len(planned.changed) > MOST or any("." in site for site in planned.changed):
        return None
    fleet, cut = planned.experiment.fleet, getattr(planned.experiment.method, "cut", None)
    changes = []
    narrow = any(option.width < 1 for option in planned.changed.values())
    if narrow and cut is not None and getattr(cut, "by", None) == "width":
        changes += ["method.cut.by=width", f"method.cut.width={cut.width:.6g}"]
    for site, width in fleet.widths.items() if narrow else ():
        changes.append(f"fleet.widths.{site}={width:.6g}")
    for site, option in planned.changed.items():
        if option.codec:
            changes.append(f"fleet.codecs.{site}={registry.name_of(fleet.codecs[site])}")
        if option.work < OWN.work:
            changes.append(f"fleet.work.{site}={fleet.work[site]:.6g}")
        if option.share < OWN.share:
            changes.append(f"fleet.shares.{site}={fleet.shares[site]:.6g}")
    return changes
