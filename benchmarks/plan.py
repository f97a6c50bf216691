"""Compare a plan with the clock's run and with a rehearsed fleet whose devices get a fraction of a core each.

A device is a process tree that is stopped and continued (SIGSTOP, SIGCONT) so that it runs for its fraction
of the time. ``sheaf profile`` measures each device with one thread, all of them at once.
``sheaf plan --finish-within`` plans ECAvg for these devices, in less time than the experiment's own settings
need. The planned experiment then runs in one process, with the virtual clock, and on a rehearsed fleet with
the real transport. All of this is repeated ``REPETITIONS`` times, as the speed of a virtual machine varies:
on some days a process that is stopped again and again computes at a tenth of its speed. For the same reason
the profiles are measured a second time after each rehearsal: where they predict other seconds for the same
run, the machine has changed.

Run: SHEAF_DATA=… OMP_NUM_THREADS=1 python -m benchmarks.plan FOLDER
Takes about 12 minutes on two cores. Changes such as data.limit=600 after FOLDER try it with less
training; nothing is published then.
"""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import tomli_w

from benchmarks.results import publish
from sheaf.core.settings import plain
from sheaf.core.types import CLOUD
from sheaf.experiments import rehearse as rehearsal
from sheaf.experiments import run as runs
from sheaf.experiments import run_on_fleet
from sheaf.experiments.config import Experiment, load_experiment
from sheaf.experiments.plan_in_time import TimePlan, plan_in_time
from sheaf.experiments.plan_limits import Limits
from sheaf.experiments.setup import prepare
from sheaf.profiles.profile import LinkProfile, read_profile
from sheaf.runtime.result import Result

FRACTIONS = {"edge-1": 0.8, "edge-2": 0.5}
"""Edge -> the fraction of a core that its device gets.

One or two hundredths of a core go to the threads of the transport, which the profile does not see. Two
devices, as the machine has two cores: a third one would wait for a core beside the cloud.
"""

PERIOD = 0.2
"""Seconds in which a device runs once and is stopped once.

A message waits for the end of a stop: half a second with 1.0 and half a core. Training with 0.2 was slower
at times: 27 to 41 G multiply-adds in a second of processor time in six measurements, with 1.0 37 to 43 G.
Profiles and rehearsals have the same period.
"""

REPETITIONS = 5

NO_LIMIT = Limits(seconds=1e9)

FASTER = 0.6
"""The limit of the plan, as a fraction of the seconds that the experiment's own settings take."""

RECIPE = '{ epochs = %d, batch_size = 32, optimizer = "sgd", lr = 0.05 }'
SETTINGS = (
    "data={ name = 'mnist', limit = 3000, limit_test = 300 }",
    "partition={ name = 'iid', edges = 2 }",
    "model={ name = 'kws_cnn' }",
    f"method.pretrain={RECIPE % 16}",
    f"method.finetune={RECIPE % 2}",
    f"method.retrain={RECIPE % 10}",
    "method.share={ fraction = 0.1 }",
    "method.reference=false",
    "fleet.threads=1",
    "fleet.deadline=600.0",
)

MAIN = "from sheaf.cli.main import main; main()"

LOOPBACK = LinkProfile(up=2e8, down=2e8)
"""The link of a rehearsed device: the machine's loopback interface."""


def profiled(folder: Path, changes: list[str]) -> Experiment:
    """Write the profiles of the devices and of the cloud, and return the experiment that uses them."""
    folder.mkdir(parents=True, exist_ok=True)
    files = {site: folder / f"{site}.toml" for site in (*FRACTIONS, CLOUD)}
    devices = [_start_profile(files[site], changes) for site in FRACTIONS]
    with throttled(FRACTIONS):
        codes = [process.wait() for process in devices]
    codes.append(_start_profile(files[CLOUD], changes).wait())
    if any(codes):
        raise SystemExit(f"sheaf profile failed: exit codes {codes}")
    for site in FRACTIONS:
        own = replace(read_profile(str(files[site])), link=LOOPBACK)
        files[site].write_text(tomli_w.dumps(plain(own)))
    edges = ", ".join(f"{site} = '{files[site]}'" for site in FRACTIONS)
    fleet = f"fleet.devices={{ edges = {{ {edges} }}, cloud = '{files[CLOUD]}', jitter = 0 }}"
    return load_experiment("ecavg-digits", [*SETTINGS, *changes, fleet])


def _start_profile(out: Path, changes: list[str]) -> subprocess.Popen[bytes]:
    settings = [part for change in (*SETTINGS, *changes) for part in ("--set", change)]
    command = [sys.executable, "-c", MAIN, "profile", "ecavg-digits", *settings, "--out", str(out)]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL)


@contextmanager
def throttled(fractions: Mapping[str, float]) -> Iterator[None]:
    """Stop and continue the process trees of the rehearsed devices inside the block."""
    ended = threading.Event()
    threads = [threading.Thread(target=_throttle, args=(*each, ended)) for each in fractions.items()]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        ended.set()
        for thread in threads:
            thread.join()


def _throttle(edge: str, fraction: float, ended: threading.Event) -> None:
    """Let the processes of a device run for a fraction of each period, until the device has ended."""
    (device,) = (each for each in psutil.Process().children() if _is_of(each, edge))
    with contextlib.suppress(psutil.NoSuchProcess):
        while not ended.is_set():
            began = time.monotonic()
            processes = [device, *device.children(recursive=True)]  # takes milliseconds
            stopped = time.monotonic()
            _send(processes, signal.SIGSTOP)
            time.sleep((1 - fraction) * PERIOD)
            _send(processes, signal.SIGCONT)
            continued = time.monotonic()
            # Until the next stop: the rest of the time to run, less the listing of the processes.
            runs_for = (continued - stopped) * fraction / (1 - fraction)
            ended.wait(max(0.0, runs_for - (stopped - began)))


def _is_of(process: psutil.Process, edge: str) -> bool:
    with contextlib.suppress(psutil.Error):
        return any(edge in part for part in process.cmdline())
    return False


def _send(processes: list[psutil.Process], number: int) -> None:
    for process in processes:
        with contextlib.suppress(psutil.Error):
            process.send_signal(number)


def rehearsed(planned: Experiment, folder: Path) -> Result:
    """Run the planned experiment on a fleet of throttled devices."""
    with rehearsal.stage(prepare(planned), folder) as fleet, contextlib.ExitStack() as stack:
        # Connect at full speed: the start of the processes is no part of a run's time.
        run_on_fleet.survey_fleet(planned, fleet, wait=120.0)
        stack.enter_context(throttled(FRACTIONS))
        return run_on_fleet.run(planned, fleet, out=folder / "rehearsed", wait=120.0)


def rows_of(plan: TimePlan, clocked: Result, measured: Result, later: TimePlan) -> list[dict[str, Any]]:
    """Return a row for the run, and one for each device.

    Args:
        later: of the planned experiment, by profiles measured after the rehearsal.
    """
    assert clocked.time is not None
    assert measured.time is not None
    rows = [
        {
            "site": "run",
            "own": plan.own.spent.seconds,
            "plan": plan.time.spent.seconds,
            "clock": clocked.time.spent.seconds,
            "rehearsed": measured.time.spent.seconds,
            "plan_later": later.own.spent.seconds,
        }
    ]
    for site, fraction in FRACTIONS.items():
        own = plan.own.sites[site]
        rows.append(
            {
                "site": site,
                "fraction": fraction,
                "work": plan.experiment.fleet.work.get(site, 1.0),
                "own": own.computing,
                "waits_own": own.idle,
                "waits": plan.time.sites[site].idle,
                "plan": plan.time.sites[site].computing,
                "clock": clocked.time.sites[site].computing,
                "rehearsed": measured.time.sites[site].computing,
                "plan_later": later.own.sites[site].computing,
                "waits_rehearsed": measured.time.sites[site].idle,
            }
        )
    return rows


def repeat(folder: Path, changes: list[str]) -> tuple[list[dict[str, Any]], Result, Experiment]:
    """Measure profiles, plan, run with the clock and rehearse; return the rows and the rehearsed result."""
    given = profiled(folder, changes)
    own = plan_in_time(given, NO_LIMIT).time.spent.seconds
    plan = plan_in_time(given, Limits(seconds=FASTER * own))
    clocked = runs.run(plan.experiment, out=folder / "clock")
    measured = rehearsed(plan.experiment, folder)
    devices = profiled(folder / "later", changes).fleet.devices
    later = plan_in_time(
        replace(plan.experiment, fleet=replace(plan.experiment.fleet, devices=devices)), NO_LIMIT
    )
    return rows_of(plan, clocked, measured, later), measured, plan.experiment


def main() -> None:
    """Repeat the comparison, and publish ``plan.json``."""
    folder, changes = Path(sys.argv[1]).resolve(), sys.argv[2:]
    rows: list[dict[str, Any]] = []
    for repetition in range(REPETITIONS):
        found, measured, planned = repeat(folder / str(repetition), changes)
        for row in found:
            ratios = {
                "ratio": row["rehearsed"] / row["plan"],
                "ratio_to_both": 2 * row["rehearsed"] / (row["plan"] + row["plan_later"]),
            }
            rows.append({"repetition": repetition} | row | ratios)
            print(rows[-1], flush=True)
    if not changes:
        columns = ("repetition", "site", "own", "plan", "clock", "rehearsed", "plan_later", "ratio")
        publish("plan", rows, plain(planned), 0, measured.provenance["data"], columns)


if __name__ == "__main__":
    main()
