"""The command ``sheaf cloud serve``: a fleet in service."""

from __future__ import annotations

import getpass
import shlex
import signal
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from sheaf.cli.console import output_console, print_line, reasons_printed
from sheaf.cli.fleet import FLEET, Edges, FleetFolder, StartFrom, Wait, provisioning
from sheaf.cli.observers import observer_factory
from sheaf.cli.options import (
    Changes,
    Data,
    Json,
    Mlflow,
    Quiet,
    Seed,
    Source,
    TensorBoard,
    split_names,
    with_seed,
)
from sheaf.core.errors import SheafError

UNIT = """\
[Unit]
Description=sheaf service
After=network-online.target sheaf-cloud.service
Wants=network-online.target

[Service]
User={user}
WorkingDirectory={folder}
ExecStart={command}
Restart=always
RestartSec=30
UMask=0077
NoNewPrivileges=true

[Install]
WantedBy=multi-user.target"""


def serve(
    experiment: Source = "fedavg-fleet",
    every: Annotated[
        str, typer.Option("--every", metavar="DURATION", help="Time between two rounds, as in 90s, 30m, 24h.")
    ] = "24h",
    when: Annotated[
        str | None,
        typer.Option(
            metavar="CONDITION",
            help="Run a round only if this holds, as in 'new samples >= 500 and devices >= 3'.",
        ),
    ] = None,
    tolerance: Annotated[
        float,
        typer.Option(min=0, max=1, help="Accuracy by which a new model may be worse than the current one."),
    ] = 0.0,
    max_size: Annotated[
        str, typer.Option(metavar="SIZE", help="Size of the runs' folders; the oldest are deleted.")
    ] = "10GB",
    rounds: Annotated[int | None, typer.Option(min=1, help="Stop after this number of rounds.")] = None,
    changes: Changes = None,
    seed: Seed = None,
    data: Data = None,
    out: Annotated[
        Path | None, typer.Option(help="The service's folder [default: service in the fleet's].")
    ] = None,
    fleet: FleetFolder = FLEET,
    edges: Edges = None,
    start: StartFrom = None,
    wait: Wait = 30.0,
    systemd: Annotated[
        bool, typer.Option("--systemd", help="Print a systemd unit that runs this command, and stop.")
    ] = False,
    quiet: Quiet = False,
    as_json: Json = False,
    tensorboard: TensorBoard = False,
    mlflow: Mlflow = None,
) -> None:
    """Repeat an experiment on the fleet, each time from the models of the last accepted run.

    A model that is worse on the cloud's test data is rejected. A killed service continues where it was.
    """
    provision = provisioning()
    from sheaf.cli.quantities import parse_bytes, parse_seconds
    from sheaf.experiments.named_share import load_for_fleet
    from sheaf.experiments.service import Service
    from sheaf.experiments.service_condition import Condition

    settings = load_for_fleet(experiment, with_seed(changes, seed))
    options: dict[str, Any] = {
        "every": parse_seconds("--every", every),
        "condition": Condition() if when is None else Condition.of(when),
        "max_bytes": parse_bytes("--max-size", max_size),
        "edges": split_names(edges),
    }
    provision.read(fleet).choose(options["edges"])
    if systemd:
        words = [str(Path(sys.argv[0]).resolve()), *(word for word in sys.argv[1:] if word != "--systemd")]
        print_line(
            UNIT.format(
                user=getpass.getuser(), folder=Path.cwd(), command=shlex.join(words).replace("%", "%%")
            )
        )
        return
    say = (lambda line: None) if quiet or as_json else print_line
    service = Service(
        settings,
        fleet,
        out or fleet / "service",
        observer_for=observer_factory(output_console(), quiet, as_json, tensorboard, mlflow, rows=False),
        say=say,
        data=data,
        start=start,
        tolerance=tolerance,
        wait=wait,
        **options,
    )
    terminated = False

    def stop(number: int, frame: object) -> None:
        nonlocal terminated
        terminated = True
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, stop)
    try:
        with reasons_printed():
            service.serve(rounds)
    except KeyboardInterrupt:
        raise typer.Exit(0 if terminated else 130) from None
    except OSError as error:
        place = error.filename or service.folder
        raise SheafError(f"{place}: {error.strerror or error}; resolve this, then start again") from error
