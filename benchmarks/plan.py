"""Compare a plan with the clock's run and with a rehearsed fleet whose devices get a fraction of a core each.

``sheaf profile`` measures this machine with one thread; a device that gets a fraction of a core has this
fraction of its speed. ``sheaf plan --finish-within`` plans ECAvg for these devices, in less time than the
experiment's own settings need. The planned experiment then runs in one process, with the virtual clock, and
on a rehearsed fleet: the real transport, with a process tree for each device that is stopped and continued
(SIGSTOP, SIGCONT) so that it runs for its fraction of the time.

Run: SHEAF_DATA=… python -m benchmarks.plan FOLDER
Takes about 3 minutes on two idle cores. Changes such as data.limit=600 after FOLDER try it with less
training; nothing is published then.
"""

from __future__ import annotations

import contextlib
import signal
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
import torch

from benchmarks.results import publish
from sheaf.core.settings import plain
from sheaf.core.types import CLOUD
from sheaf.experiments import rehearse as rehearsal
from sheaf.experiments import run as runs
from sheaf.experiments import run_on_fleet
from sheaf.experiments.config import Experiment, load_experiment
from sheaf.experiments.measure_profile import measure_profile
from sheaf.experiments.plan_in_time import Limits, TimePlan, plan_in_time
from sheaf.experiments.setup import prepare
from sheaf.profiles.profile import LinkProfile, ProfileFile
from sheaf.runtime.result import Result

FRACTIONS = {"edge-1": 0.5, "edge-2": 0.35, "edge-3": 0.2}
"""Edge -> the fraction of a core that its device gets."""

PERIOD = 0.2
"""Seconds in which a device runs once and is stopped once."""

FASTER = 0.6
"""The limit of the plan, as a fraction of the seconds that the experiment's own settings take."""

RECIPE = '{ epochs = %d, batch_size = 32, optimizer = "sgd", lr = 0.05 }'
SETTINGS = (
    "data={ name = 'mnist', limit = 4500, limit_test = 300 }",
    "partition={ name = 'iid', edges = 3 }",
    "model={ name = 'kws_cnn' }",
    f"method.pretrain={RECIPE % 10}",
    f"method.finetune={RECIPE % 1}",
    f"method.retrain={RECIPE % 6}",
    "method.share={ fraction = 0.1 }",
    "method.reference=false",
    "fleet.threads=1",
    "fleet.deadline=600.0",
)

LOOPBACK = LinkProfile(up=2e8, down=2e8)
"""The link of a rehearsed device: the machine's loopback interface."""


def profiled(folder: Path, changes: list[str]) -> Experiment:
    """Write the profiles of the devices and of the cloud, and return the experiment that uses them."""
    torch.set_num_threads(1)
    own = measure_profile(prepare(load_experiment("ecavg-digits", [*SETTINGS, *changes])))
    assert own.device is not None
    names = {}
    for site, fraction in {**FRACTIONS, CLOUD: 1.0}.items():
        speeds = {name: fraction * speed for name, speed in own.device.macs_per_second.items()}
        device = replace(own.device, macs_per_second=speeds)
        link = None if site == CLOUD else LOOPBACK
        file = ProfileFile(title=f"{fraction:g} of a core", device=device, link=link)
        names[site] = folder / f"{site}.toml"
        names[site].write_text(tomli_w.dumps(plain(file)))
    edges = ", ".join(f"{site} = '{names[site]}'" for site in FRACTIONS)
    devices = f"fleet.devices={{ edges = {{ {edges} }}, cloud = '{names[CLOUD]}', jitter = 0 }}"
    return load_experiment("ecavg-digits", [*SETTINGS, *changes, devices])


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
    """Let the processes of a device run for a fraction of each period."""
    (device,) = (each for each in psutil.Process().children() if _is_of(each, edge))
    processes = [device, *device.children(recursive=True)]
    while not ended.is_set():
        began = time.monotonic()
        _send(processes, signal.SIGSTOP)
        time.sleep((1 - fraction) * PERIOD)
        _send(processes, signal.SIGCONT)
        continued = time.monotonic()
        runs_until = continued + (continued - began) * fraction / (1 - fraction)
        processes = [device, *device.children(recursive=True)]  # takes milliseconds
        ended.wait(max(0.0, runs_until - time.monotonic()))


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


def rows_of(plan: TimePlan, clocked: Result, measured: Result) -> list[dict[str, Any]]:
    """Return a row for the run, and one for each device."""
    assert clocked.time is not None
    assert measured.time is not None
    rows = [
        {
            "site": "run",
            "own": plan.own.spent.seconds,
            "plan": plan.time.spent.seconds,
            "clock": clocked.time.spent.seconds,
            "rehearsed": measured.time.spent.seconds,
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
                "waits_rehearsed": measured.time.sites[site].idle,
            }
        )
    return rows


def main() -> None:
    """Plan, run with the clock, rehearse, and publish ``plan.json``."""
    folder, changes = Path(sys.argv[1]).resolve(), sys.argv[2:]
    folder.mkdir(parents=True, exist_ok=True)
    given = profiled(folder, changes)
    own = plan_in_time(given, Limits(seconds=1e9)).time.spent.seconds
    plan = plan_in_time(given, Limits(seconds=FASTER * own))
    clocked = runs.run(plan.experiment, out=folder / "clock")
    measured = rehearsed(plan.experiment, folder)
    rows = rows_of(plan, clocked, measured)
    for row in rows:
        row["ratio"] = row["rehearsed"] / row["plan"]
        print(row, flush=True)
    if not changes:
        columns = ("site", "own", "plan", "clock", "rehearsed", "ratio")
        publish("plan", rows, plain(plan.experiment), 0, measured.provenance["data"], columns)


if __name__ == "__main__":
    main()
