"""The commands for the cloud's machine of a real fleet: ``sheaf cloud``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.syntax import Syntax
from rich.table import Table
from rich.text import Text

from sheaf.cli.console import (
    output_console,
    print_line,
    reasons_printed,
    refuse_with_resume,
    resume_hint,
    run_title,
)
from sheaf.cli.fleet import FLEET, Edges, FleetFolder, StartFrom, Wait, group, provisioning
from sheaf.cli.observers import observer_factory, print_finished, refuse_with_dry_run
from sheaf.cli.options import (
    Changes,
    Data,
    Every,
    Json,
    Mlflow,
    Out,
    Quiet,
    Resume,
    Seed,
    Source,
    TensorBoard,
    split_names,
    with_seed,
)
from sheaf.cli.pool import pool
from sheaf.cli.service import serve
from sheaf.core.optional_imports import require

if TYPE_CHECKING:
    from sheaf.experiments.config import Experiment

cloud = group("Run a fleet of real devices: commands for the cloud's machine.", "sheaf cloud start fleet")
cloud.add_typer(pool, name="pool")
cloud.command(epilog="Example: sheaf cloud serve fedavg-fleet --every 24h --when 'new samples >= 500'")(serve)


@cloud.command(epilog="Example: sheaf cloud init fleet --host cloud.example.org --edges shop-1,shop-2")
def init(
    folder: Annotated[Path, typer.Argument(metavar="FLEET", help="The fleet's new folder.")],
    host: Annotated[str, typer.Option(help="Host name of this machine, as the devices resolve it.")],
    edges: Annotated[
        str, typer.Option(help="Names of the devices, NAME or GROUP/NAME, separated by commas.")
    ],
    port: Annotated[int, typer.Option(help="TCP port on which the cloud listens.")] = 8002,
) -> None:
    """Create a fleet: keys, certificates and a kit file per device."""
    provision = provisioning()
    names = split_names(edges)
    provision.init(folder, host, port, names)
    for name in names:
        print_line(f"{folder / 'kits' / name.rpartition('/')[2]}.kit")
    print_line("next: copy each kit to its device over a secure channel, then run there: sheaf edge join KIT")


@cloud.command(epilog="Example: sheaf cloud start fleet")
def start(
    folder: Annotated[Path, typer.Argument(metavar="FLEET", help="The fleet's folder.")] = FLEET,
) -> None:
    """Start the cloud's server; it runs until it is stopped."""
    provisioning()
    from sheaf.fleets.nvflare.serve import serve

    serve(folder, print_line)


@cloud.command(epilog="Example: sheaf cloud run fedavg-fleet --set data.name=/srv/test")
def run(
    experiment: Source = "fedavg-fleet",
    changes: Changes = None,
    seed: Seed = None,
    data: Data = None,
    out: Out = None,
    resume: Resume = None,
    fleet: FleetFolder = FLEET,
    edges: Edges = None,
    start: StartFrom = None,
    wait: Wait = 30.0,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Print the settings and which devices can take part; train nothing."),
    ] = False,
    every: Every = False,
    quiet: Quiet = False,
    as_json: Json = False,
    tensorboard: TensorBoard = False,
    mlflow: Mlflow = None,
) -> None:
    """Run an experiment on the fleet.

    Before anything is trained, each device is asked whether its data, limits, memory and disk fit. Those
    that do not fit are left out. The run's folder has the same content as after sheaf run.
    """
    changes = with_seed(changes, seed)
    from sheaf.experiments import run_on_fleet
    from sheaf.experiments.named_share import load_for_fleet
    from sheaf.experiments.run_folder import new_folder

    console, command = output_console(), "sheaf cloud run"
    observer_for = observer_factory(console, quiet, as_json, tensorboard, mlflow)
    if resume is not None:
        given = {"--seed": seed is not None, "--set": changes, "--out": out, "--dry-run": dry_run}
        refuse_with_resume(given | {"--edges": edges, "--from": start})
        folder = resume
        with resume_hint(folder, command):
            observer = observer_for(f"resuming {folder}", folder)
            run_on_fleet.resume(folder, data=data, wait=wait, observer=observer)
    elif dry_run:
        refuse_with_dry_run(quiet, as_json, tensorboard, mlflow)
        settings = load_for_fleet(experiment, changes or ())
        _print_survey(console, settings, fleet, data, wait, split_names(edges))
        return
    else:
        settings = load_for_fleet(experiment, changes or ())
        folder = out or new_folder(settings)
        options: dict[str, Any] = {"edges": split_names(edges), "start": start, "wait": wait}
        with resume_hint(folder, command), reasons_printed():
            observer = observer_for(run_title(experiment, settings), folder)
            run_on_fleet.run(settings, fleet, data=data, out=folder, observer=observer, **options)
    print_finished(console, folder, every, quiet, as_json)


def _print_survey(
    console: Console, settings: Experiment, fleet: Path, data: Path | None, wait: float, edges: list[str]
) -> None:
    from sheaf.experiments.run_on_fleet import survey_fleet
    from sheaf.report.devices_table import devices_table

    found = survey_fleet(settings, fleet, data=data, wait=wait, edges=edges)
    console.print(Syntax(settings.toml(), "toml", background_color="default", word_wrap=True))
    console.print(devices_table(found))
    for reason in found.reasons:
        console.print(Text(reason), soft_wrap=True)
    found.check_quorum(settings.fleet.quorum)


@cloud.command(epilog="Example: sheaf cloud status")
def status(fleet: FleetFolder = FLEET) -> None:
    """Print how many devices are connected."""
    provision = provisioning()
    from sheaf.fleets.nvflare.session import seconds_since_heartbeat
    from sheaf.fleets.remote.status import CONNECTED

    edges = provision.read(fleet).edges
    seconds = seconds_since_heartbeat(fleet)
    connected = [name for name in edges if seconds.get(name, float("inf")) < CONNECTED]
    print_line(f"the cloud is running; {len(connected)} of {len(edges)} devices are connected")


@cloud.command("edges", epilog="Example: sheaf cloud edges")
def edges_(fleet: FleetFolder = FLEET) -> None:
    """List the devices and the time since their last heartbeat."""
    provision = provisioning()
    from sheaf.fleets.nvflare.session import seconds_since_heartbeat

    configuration = provision.read(fleet)
    seconds = seconds_since_heartbeat(fleet)
    grouped = bool(configuration.groups or configuration.labels)
    table = Table("device", *(("group", "labels") if grouped else ()), "last heartbeat", box=None)
    for name in (*configuration.edges, *configuration.removed):
        heartbeat = f"{seconds[name]:.0f} s ago" if name in seconds else "none since the cloud started"
        if name in configuration.removed:
            heartbeat = "removed"
        group, labels = configuration.groups.get(name, ""), ", ".join(configuration.labels.get(name, ()))
        table.add_row(Text(name), *((Text(group), Text(labels)) if grouped else ()), heartbeat)
    output_console().print(table, highlight=False)


@cloud.command(epilog="Example: sheaf cloud page")
def page(
    fleet: FleetFolder = FLEET,
    host: Annotated[str, typer.Option(help="Address at which the page listens.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="TCP port; 0 for a free one.")] = 8003,
    service: Annotated[
        Path | None, typer.Option(help="Folder of sheaf cloud serve [default: service in the fleet's].")
    ] = None,
) -> None:
    """Serve a web page that shows the fleet; it runs until it is stopped.

    The page is read-only, and can be started and stopped at any time. Open the printed address in a browser.
    It contains the page's token, which the file page.token in the fleet's folder stores.
    """
    for module in ("aiohttp", "jinja2", "matplotlib"):
        require("cloud", module)
    from sheaf.fleets.nvflare import provision
    from sheaf.report.fleet_page.server import is_loopback, serve
    from sheaf.report.fleet_page.token import read_token

    provision.read(fleet)
    if not is_loopback(host):
        print_line(
            "note: the connection is not encrypted; see docs/deploy.md for a tunnel or a proxy with TLS"
        )
    serve(fleet, host, port, read_token(fleet), print_line, service)


@cloud.command(epilog="Example: sheaf cloud add shop-4")
def add(
    name: Annotated[str, typer.Argument(help="Name of the new device, NAME or GROUP/NAME.")],
    fleet: FleetFolder = FLEET,
) -> None:
    """Add a device: create its kit. The cloud can keep running."""
    print_line(str(provisioning().add(fleet, name)))


@cloud.command(epilog="Example: sheaf cloud label shop-4 --group berlin --add camera-v2")
def label(
    name: Annotated[str, typer.Argument(help="Name of the device.")],
    group: Annotated[str | None, typer.Option(help="Its new group; empty: no group.")] = None,
    add_: Annotated[list[str] | None, typer.Option("--add", help="A label to add.")] = None,
    drop: Annotated[list[str] | None, typer.Option("--drop", help="A label to remove.")] = None,
    fleet: FleetFolder = FLEET,
) -> None:
    """Change the group and the labels of a device, which --edges of a run selects."""
    changed = provisioning().label(fleet, name, group, add_ or (), drop or ())
    labels = ", ".join(changed.labels.get(name, ())) or "none"
    print_line(f"{name}: group {changed.groups.get(name, 'none')}, labels {labels}")


@cloud.command(epilog="Example: sheaf cloud remove shop-4")
def remove(
    name: Annotated[str, typer.Argument(help="Name of the device.")], fleet: FleetFolder = FLEET
) -> None:
    """Remove a device: revoke its kit permanently.

    A running cloud disconnects the device at its next heartbeat.
    """
    provisioning().remove(fleet, name)
    from sheaf.fleets.nvflare.session import disable_device

    reached = disable_device(fleet, name)
    print_line(
        f"{name} is removed" + ("" if reached else "; the cloud is not running, it applies this at its start")
    )


@cloud.command(epilog="Example: sheaf cloud rehearse ecavg-digits --edges 3")
def rehearse(
    experiment: Source = "ecavg-digits",
    edges: Annotated[
        int | None, typer.Option(min=1, help="Number of devices [default: the experiment's].")
    ] = None,
    changes: Changes = None,
    seed: Seed = None,
    data: Data = None,
    out: Out = None,
    every: Every = False,
    quiet: Quiet = False,
    as_json: Json = False,
    tensorboard: TensorBoard = False,
    mlflow: Mlflow = None,
) -> None:
    """Rehearse a fleet on this machine.

    The cloud and each device are separate processes, connected by TLS over loopback.
    """
    changes = with_seed(changes, seed)
    from sheaf.experiments import rehearse as rehearsal
    from sheaf.experiments.config import load_experiment
    from sheaf.experiments.run_folder import new_folder
    from sheaf.fleets.nvflare.processes import check_installed

    check_installed()
    console = output_console()
    observer_for = observer_factory(console, quiet, as_json, tensorboard, mlflow)
    more = [] if edges is None else [f"partition.edges={edges}"]
    settings = load_experiment(experiment, [*(changes or ()), *more])
    folder = out or new_folder(settings)
    with resume_hint(folder):
        rehearsal.rehearse(settings, folder, data, observer_for(f"{experiment}, rehearsed", folder))
    print_finished(console, folder, every, quiet, as_json)
