"""The command line of a real fleet: ``sheaf cloud`` on the cloud's machine, ``sheaf edge`` on each device."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from types import ModuleType
from typing import Annotated

import typer
from rich.table import Table

from sheaf.cli.console import console, resumable, show, title, unchanged
from sheaf.cli.options import Changes, Data, Out, Resume, Source


def _group(text: str) -> typer.Typer:
    return typer.Typer(help=text, no_args_is_help=True, rich_markup_mode=None)


cloud = _group("A real fleet, on the cloud's machine.")
pool = _group("The samples that devices shared in a run.")
cloud.add_typer(pool, name="pool")
edge = _group("A real fleet, on a device.")

FleetFolder = Annotated[
    Path, typer.Option("--fleet", envvar="SHEAF_FLEET", help="The fleet's folder.", show_default=True)
]
FLEET = Path("fleet")
Run = Annotated[Path, typer.Argument(metavar="RUN", help="A run's folder.")]


@cloud.command(epilog="Example: sheaf cloud init fleet --host cloud.example.org --edges shop-1,shop-2")
def init(
    folder: Annotated[Path, typer.Argument(metavar="FLEET", help="The fleet's new folder.")],
    host: Annotated[str, typer.Option(help="The name under which devices reach this machine.")],
    edges: Annotated[str, typer.Option(help="The devices' names, with commas between.")],
    port: Annotated[int, typer.Option(help="Where the cloud listens.")] = 8002,
) -> None:
    """Make a fleet: keys, certificates, and one kit file for each device."""
    provision = _provision()
    names = [name.strip() for name in edges.split(",") if name.strip()]
    provision.init(folder, host, port, names)
    to = console()
    for name in names:
        to.print(f"{folder / 'kits' / name}.kit", highlight=False, soft_wrap=True)
    to.print(
        "bring each device its kit, over a channel that keeps it secret, then: sheaf edge join KIT",
        highlight=False,
    )


@cloud.command(epilog="Example: sheaf cloud start fleet")
def start(
    folder: Annotated[Path, typer.Argument(metavar="FLEET", help="The fleet's folder.")] = FLEET,
) -> None:
    """Let the devices in; runs until it is stopped."""
    _provision()
    from sheaf.fleets.nvflare.serve import serve

    serve(folder, lambda text: console().print(text, highlight=False, soft_wrap=True))


@cloud.command(epilog="Example: sheaf cloud run ecavg-mnist --data ~/data --set method.pretrain.epochs=3")
def run(
    experiment: Source = "ecavg-digits",
    changes: Changes = None,
    data: Data = None,
    out: Out = None,
    resume: Resume = None,
    fleet: FleetFolder = FLEET,
    wait: Annotated[
        float, typer.Option(min=0, help="Seconds that devices are waited for at the start.")
    ] = 30.0,
) -> None:
    """Run an experiment on the fleet; leaves the folder that ``sheaf run`` leaves."""
    from sheaf.experiments import run as runs
    from sheaf.experiments import run_on_fleet as deployed
    from sheaf.experiments.config import load_experiment
    from sheaf.report.live import Live

    to, again = console(), "sheaf cloud run"
    if resume is not None:
        unchanged({"--set": changes, "--out": out})
        folder = resume
        with resumable(folder, again):
            deployed.resume(folder, data=data, wait=wait, observer=Live(to, f"resuming {folder}"))
    else:
        settings = load_experiment(experiment, changes or ())
        folder = out or runs.new_folder(experiment)
        watch = Live(to, title(experiment, settings))
        with resumable(folder, again):
            deployed.run(settings, fleet, data=data, out=folder, wait=wait, observer=watch)
    show(to, folder)


@cloud.command(epilog="Example: sheaf cloud status")
def status(fleet: FleetFolder = FLEET) -> None:
    """Say whether the cloud runs, and who is connected."""
    provision = _provision()
    from sheaf.fleets.nvflare.link import last_heard

    edges = provision.read(fleet).edges
    heard = last_heard(fleet)
    there = [name for name in edges if heard.get(name, 99.0) < 10]
    console().print(f"the cloud runs; {len(there)} of {len(edges)} devices are connected", highlight=False)


@cloud.command("edges", epilog="Example: sheaf cloud edges")
def edges_(fleet: FleetFolder = FLEET) -> None:
    """List the devices, and when each was last heard of."""
    provision = _provision()
    from sheaf.fleets.nvflare.link import last_heard

    found = provision.read(fleet)
    heard = last_heard(fleet)
    table = Table("device", "last heard of", box=None)
    for name in found.edges:
        table.add_row(name, f"{heard[name]:.0f} s ago" if name in heard else "not since the cloud started")
    for name in found.removed:
        table.add_row(name, "removed")
    console().print(table, highlight=False)


@cloud.command(epilog="Example: sheaf cloud add shop-4")
def add(name: Annotated[str, typer.Argument(help="The new device.")], fleet: FleetFolder = FLEET) -> None:
    """Make the kit of one more device; the cloud may go on running."""
    console().print(str(_provision().add(fleet, name)), highlight=False, soft_wrap=True)


@cloud.command(epilog="Example: sheaf cloud remove shop-4")
def remove(name: Annotated[str, typer.Argument(help="The device.")], fleet: FleetFolder = FLEET) -> None:
    """Revoke a device's kit: it is out at its next sign of life, and for good."""
    _provision().remove(fleet, name)
    from sheaf.fleets.nvflare.link import disable

    told = disable(fleet, name)
    console().print(
        f"{name} is removed" + ("" if told else "; the cloud does not run, and will know when it starts"),
        highlight=False,
    )


@cloud.command(epilog="Example: sheaf cloud rehearse ecavg-digits --edges 3")
def rehearse(
    experiment: Source = "ecavg-digits",
    edges: Annotated[
        int | None, typer.Option(min=1, help="How many devices [default: as the experiment says].")
    ] = None,
    changes: Changes = None,
    data: Data = None,
    out: Out = None,
) -> None:
    """Rehearse on this machine: a cloud and its devices in processes of their own, over TLS on loopback."""
    from sheaf.experiments import rehearse as rehearsal
    from sheaf.experiments import run as runs
    from sheaf.experiments import run_on_fleet as deployed
    from sheaf.experiments.config import load_experiment
    from sheaf.report.live import Live

    deployed.check_installed()
    to = console()
    more = [] if edges is None else [f"partition.edges={edges}"]
    settings = load_experiment(experiment, [*(changes or ()), *more])
    folder = out or runs.new_folder(experiment)
    with resumable(folder):
        rehearsal.rehearse(settings, folder, data, Live(to, f"{experiment}, rehearsed"))
    show(to, folder)


@pool.command("ls", epilog="Example: sheaf cloud pool ls runs/ecavg-digits-20260101-120000")
def pool_ls(run: Run) -> None:
    """List what each device shared."""
    from sheaf.fleets.remote.sample_pool import Pool

    table = Table("device", "call", "samples", "file", box=None)
    for pooled in Pool(run / "pool").files():
        table.add_row(pooled.edge, str(pooled.call), str(pooled.samples), pooled.path.name)
    console().print(table, highlight=False)


@pool.command("rm", epilog="Example: sheaf cloud pool rm runs/ecavg-digits-20260101-120000 --edge shop-1")
def pool_rm(
    run: Run, device: Annotated[str, typer.Option("--edge", help="Whose samples are deleted.")]
) -> None:
    """Delete what came from a device."""
    from sheaf.fleets.remote.sample_pool import remove_from_run

    count = remove_from_run(run, device)
    console().print(f"{count} samples of {device} are deleted", highlight=False)


@edge.command(epilog="Example: sheaf edge join shop-1.kit --data /srv/images")
def join(
    kit: Annotated[Path, typer.Argument(help="The device's kit file, of mode 0600.")],
    data: Annotated[Path, typer.Option(help="Its own data: a folder, or a .safetensors file.")],
    settings: Annotated[
        Path | None, typer.Option("--settings", help="Its own file (edge.toml): what it allows.")
    ] = None,
    state: Annotated[
        Path | None, typer.Option(help="Where it keeps what it holds [default: beside the kit].")
    ] = None,
) -> None:
    """Take part in a fleet until it is stopped; reconnects by itself."""
    _provision()
    from sheaf.fleets.nvflare.join import get_ready

    name, folder = get_ready(kit, data, settings, state)
    os.execv(sys.executable, [sys.executable, "-m", "sheaf.fleets.nvflare.wait", str(folder), name])


def _provision() -> ModuleType:
    """The module, imported when it is needed: it takes its time."""
    from sheaf.experiments.run_on_fleet import check_installed

    check_installed()
    from sheaf.fleets.nvflare import provision

    return provision
