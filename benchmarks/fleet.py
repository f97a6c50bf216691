"""Measure the overhead of a real fleet: a cloud and three devices on loopback, against NVIDIA FLARE alone.

A round of sheaf is a complete train task of zero epochs on every device at once: the weights are sent,
loaded into the network, stored on the device's disk, encoded and returned; the cloud checks them and stores
them on disk. A round of the baseline, in the same run, is a FLARE call with the same bytes as tensors,
which the device returns unchanged. An empty round sends no weights. Memory is the proportional set size of
the cloud's processes after each round, with merging.

Run: python -m benchmarks.fleet rounds; python -m benchmarks.fleet memory; python -m benchmarks.fleet idle
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import torch

from benchmarks.fleet_echo import RESULT
from benchmarks.results import publish, published
from benchmarks.usage import MB, process_trees, pss
from sheaf.core.recipe import Recipe, Share
from sheaf.core.task import Task, Update
from sheaf.core.tensor_file import Blob
from sheaf.experiments import rehearse as rehearsal
from sheaf.experiments.config import load_experiment
from sheaf.experiments.setup import prepare
from sheaf.fleets.nvflare import link as nvflare
from sheaf.fleets.nvflare import processes as flare_process
from sheaf.fleets.nvflare import provision, session, site_config
from sheaf.fleets.nvflare.site_config import EDGE, RELAY
from sheaf.fleets.remote.fleet import RemoteFleet
from sheaf.fleets.remote.memory_trim import collect_and_trim
from sheaf.fleets.remote.messages import DataForm, Setup
from sheaf.merges.average import Contribution, average
from sheaf.models.build import ModelSettings, build_model

EDGES = 3
SIZES = {"empty": (0, 20), "10 MB": (10 * MB, 12), "100 MB": (100 * MB, 7)}
"""Name -> bytes of weights each way, rounds."""

ECHO = ("benchmarks.fleet_echo.EchoCloud", "benchmarks.fleet_echo.EchoEdge")


@contextmanager
def stage(folder: Path) -> Iterator[tuple[Path, list[int]]]:
    """Yield the fleet's folder and the process ids of its devices, which allow the echo job."""
    fleet = folder / "fleet"
    sets = [f"partition.edges={EDGES}", "data.limit=90", "fleet.threads=1"]
    prepared = prepare(load_experiment("ecavg-digits", sets))
    provision.init(fleet, "localhost", rehearsal.free_port(), list(prepared.edge_samples))
    workspace = provision.write_workspace(fleet, provision.read(fleet))
    allow(workspace, ECHO[0])
    path = {"PYTHONPATH": str(Path(__file__).parents[1]), RESULT: str(folder)}
    (folder / "plan.json").write_text(json.dumps(list(SIZES.values())))
    processes = [flare_process.start_cloud(workspace, path | {"SHEAF_FLEET": str(fleet)})]
    try:
        rehearsal.wait_for_cloud(fleet)
        from sheaf.fleets.nvflare.join import configure_device

        for edge in rehearsal.write_edges(prepared, folder):
            place = folder / edge
            name, state = configure_device(
                fleet / "kits" / f"{edge}.kit",
                place / "data.safetensors",
                place / "edge.toml",
                place / "state",
            )
            allow(state / "flare", ECHO[1])
            told = path | {"SHEAF_EDGE": str(state)}
            processes.append(flare_process.start_edge(state / "flare", name, told))
        yield fleet, [process.pid for process in processes]
    finally:
        for process in processes:
            flare_process.stop(process)


def allow(workspace: Path, name: str) -> None:
    """Add a class to those that a site's jobs may name."""
    path = workspace / "local" / "resources.json"
    resources = json.loads(path.read_text())
    resources["class_allow_list"].append(name)
    path.write_text(json.dumps(resources))


def floor(link: nvflare.FlareLink, folder: Path, sites: list[str]) -> dict[str, list[float]]:
    """Return bytes -> seconds of FLARE's own rounds."""
    job = folder / "echo"
    site_config.write_job(job, "echo", sites)
    for which, old, new in (
        ("server", RELAY, ECHO[0]),
        ("client", EDGE, ECHO[1]),
    ):
        config = job / "app" / "config" / f"config_fed_{which}.json"
        config.write_text(config.read_text().replace(old, new))
    link._session.submit_job(str(job))
    found = folder / "floor.json"
    while not found.exists():
        time.sleep(0.2)
    return json.loads(found.read_text())  # type: ignore[no-any-return]


def remote(link: nvflare.FlareLink, folder: Path, hidden: int) -> tuple[RemoteFleet, dict[str, torch.Tensor]]:
    """Return sheaf's fleet over the same devices, and a model with ``hidden`` units."""
    settings = ModelSettings(name="mlp", options={"hidden": hidden})
    theta = build_model(settings, 10, (1, 8, 8), 0).state_dict()
    setup = Setup(
        run=uuid.uuid4().hex,
        seed=0,
        model="mlp",
        options={"hidden": hidden},
        classes=[str(n) for n in range(10)],
        shape=(1, 8, 8),
        mean=[0.5],
        std=[0.25],
        held_out=0.1,
        form=DataForm(),
    )
    sites = [f"edge-{n}" for n in range(1, EDGES + 1)]
    size = 2 * Blob.of(theta).size
    fleet = RemoteFleet(
        sites, link, setup, lambda _: size, ((1, 8, 8), torch.uint8), 120.0, folder / "incoming"
    )
    return fleet, theta


def hidden_of(size: int) -> int:
    """Return the hidden units of a perceptron on digits of about that size in bytes."""
    return max(1, size // 4 // (64 + 1 + 10))


def ask(fleet: RemoteFleet, task: Task) -> list[Update]:
    """Return all answers, and check that no device is absent."""
    answers = list(fleet.run(dict.fromkeys(fleet.names(), task)))
    assert all(isinstance(answer, Update) for answer in answers), answers
    return [answer for answer in answers if isinstance(answer, Update)]


def rounds() -> list[dict[str, Any]]:
    """Return a row for each size: median seconds of sheaf and of FLARE, and their ratio."""
    rows = []
    with tempfile.TemporaryDirectory(prefix="sheaf-fleet-") as scratch:
        folder = Path(scratch)
        with stage(folder) as (fleet_folder, _), nvflare.open_link(fleet_folder) as link:
            sites = [f"edge-{n}" for n in range(1, EDGES + 1)]
            while set(link.connected()) != set(sites):
                time.sleep(0.5)
            floors = floor(link, folder, sites)
            call = 0
            for name, (size, repeats) in SIZES.items():
                fleet, theta = remote(link, folder, hidden_of(size))
                fleet.devices()
                seconds = []
                for _ in range(repeats):
                    call += 1
                    blob = Blob.of({key: value + call for key, value in theta.items()})
                    task = Task("train", call, 0, blob, Recipe(epochs=0))
                    if not size:
                        task = Task("share", call, 0, share=Share(count=1))
                    began = time.perf_counter()
                    ask(fleet, task)
                    seconds.append(time.perf_counter() - began)
                low = floors[str(size)]
                rows.append(
                    {
                        "name": name,
                        "round_s": statistics.median(seconds[1:]),
                        "floor_s": statistics.median(low[1:]),
                        "ratio": statistics.median(seconds[1:]) / statistics.median(low[1:]),
                        "rounds": len(seconds) - 1,
                        "all_round_s": seconds,
                        "all_floor_s": low,
                    }
                )
    return rows


def memory() -> list[dict[str, Any]]:
    """Return the memory of the cloud's processes after each of 40 rounds of 100 MB with three devices.

    The run's process gives back what lies free before it is looked at, as it does before the next round.
    """
    rows = []
    with tempfile.TemporaryDirectory(prefix="sheaf-fleet-") as scratch:
        folder = Path(scratch)
        with stage(folder) as (fleet_folder, pids), nvflare.open_link(fleet_folder) as link:
            while len(link.connected()) < EDGES:
                time.sleep(0.5)
            fleet, theta = remote(link, folder, hidden_of(100 * MB))
            for call in range(1, 41):
                answers = ask(fleet, Task("train", call, 0, Blob.of(theta), Recipe(epochs=0)))
                theta = average(theta, (Contribution(answer.params, 1.0) for answer in answers))
                del answers
                collect_and_trim()
                server = psutil.Process(pids[0])
                rows.append(
                    {
                        "name": f"round {call}",
                        "run_mb": pss(os.getpid()),
                        "server_mb": pss(server.pid),
                        "job_mb": sum(pss(below.pid) for below in server.children(recursive=True)),
                    }
                )
                print(rows[-1], flush=True)
    return rows


def idle() -> list[dict[str, Any]]:
    """Return the memory of an idle device, all of its processes together."""
    with tempfile.TemporaryDirectory(prefix="sheaf-fleet-") as scratch:
        prepared = prepare(load_experiment("ecavg-digits", ["data.limit=90"]))
        with rehearsal.stage(prepared, Path(scratch)) as fleet:
            while len(session.seconds_since_heartbeat(fleet)) < len(prepared.edge_samples):
                time.sleep(0.5)
            time.sleep(5)
            devices, _ = process_trees()
            each = [sum(pss(process.pid) for process in device) for device in devices]
            return [{"name": "idle device", "idle_mb": max(each), "devices": len(each)}]


def main() -> None:
    """Run the named measurement, and publish ``fleet.json``; earlier measurements stay."""
    parts = {"rounds": rounds, "memory": memory, "idle": idle}
    wanted = sys.argv[1:] or list(parts)
    before, _, _ = published("fleet")
    measured = {part: [row for row in before if row["part"] == part] for part in parts}
    for part in wanted:
        measured[part] = [{"part": part, **row} for row in parts[part]()]
    rows = [row for found in measured.values() for row in found]
    for row in rows:
        print({key: value for key, value in row.items() if not key.startswith("all_")})
    publish("fleet", rows, {"edges": EDGES, "sizes": SIZES}, 0, {})


if __name__ == "__main__":
    main()
