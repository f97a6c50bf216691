"""Measure the speed of simulation: sheaf, a bare PyTorch loop and Flower, on the same clients.

Three variants alternate in one process: sheaf with default settings, sheaf with one site after another, and
a bare loop without a framework. Flower's simulation (its Ray backend) runs in its own environment. All
train FedAvg from the same initial weights on the same split, and evaluate the global model after each
round. The time of sheaf is that of a complete run with its journal and files. The bare loop has normalised
its images beforehand, and its time is the best over numbers of threads. The time of Flower excludes its
start. The bare loop and sheaf with one site after another use two threads only for the large network: on
batches of ten small images, two OpenMP threads spin for each other, which took minutes instead of seconds.

``others`` is the number of cores that other programs used during each run.

With ``--device cuda`` sheaf and the bare loop compute on the GPU, which also stores the loop's images, and
the rows go to ``simulation-cuda.json``.

Set up: python -m benchmarks.simulation setup --flower FOLDER
Run:    SHEAF_DATA=… python -m benchmarks.simulation run --flower FOLDER    (without --flower: without Flower)
"""

from __future__ import annotations

import copy
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import venv
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal
from unittest import mock

import psutil
import torch
import typer
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.results import FOLDER, publish
from sheaf.core.recipe import Recipe
from sheaf.core.task import Task, Update
from sheaf.core.tensor_file import Blob
from sheaf.core.types import CLOUD
from sheaf.data.partitions.iid import IID
from sheaf.data.settings import DataSettings
from sheaf.experiments import run as runs
from sheaf.experiments.config import Experiment, FleetSettings
from sheaf.experiments.provenance import provenance
from sheaf.experiments.setup import ExperimentSetup, prepare
from sheaf.merges.average import Contribution, average
from sheaf.methods.fedavg import FedAvg
from sheaf.models.build import ModelSettings
from sheaf.models.memory_layout import to_layout
from sheaf.runtime.journal import Journal
from sheaf.runtime.observer import NullObserver
from sheaf.runtime.result import Row
from sheaf.training.peak_memory import PeakMemory

SEED = 0
FLOWER = "flwr[simulation]==1.41.0"


@dataclass(frozen=True)
class Job:
    """The job that every variant does."""

    model: str
    data: str
    edges: int
    images: int
    batch_size: int
    rounds: int
    repeats: int
    flower: int
    """Repetitions of Flower, which takes longer."""
    one_by_one: int = 3
    """Repetitions of sheaf with one site after another."""
    threads: tuple[int, ...] = (1,)
    """Numbers of threads; the best for the bare loop, the last for sheaf with one site after another."""
    optimizer: Literal["sgd", "adam"] = "sgd"
    lr: float = 0.1
    tested: int | None = None
    """Test images; all by default."""

    def experiment(self, device: str, together: str = "auto", threads: int = 0) -> Experiment:
        """Return the job as an experiment."""
        recipe = Recipe(
            epochs=1,
            batch_size=self.batch_size,
            optimizer=self.optimizer,
            lr=self.lr,
            momentum=0.0,
            precision="float32",
        )
        return Experiment(
            seed=SEED,
            data=DataSettings(
                name=self.data, limit=self.edges * self.images, limit_test=self.tested, held_out=0.0
            ),
            partition=IID(edges=self.edges),
            model=ModelSettings(name=self.model),
            method=FedAvg(rounds=self.rounds, local=recipe),
            fleet=FleetSettings(together=together, threads=threads, device=device),  # type: ignore[arg-type]
        )


CNN = "benchmarks.simulation:small_cnn"
JOBS = {
    "100 edges, one hidden layer, MNIST": Job("mlp", "mnist", 100, 600, 10, 5, 5, 5),
    "the same, 60 images an edge": Job("mlp", "mnist", 100, 60, 10, 5, 5, 5),
    "the same, Adam, batches of 64": Job("mlp", "mnist", 100, 600, 64, 5, 5, 0, optimizer="adam", lr=1e-3),
    "20 edges, small CNN, MNIST": Job(CNN, "mnist", 20, 600, 10, 5, 5, 0),
    "10 edges, MobileNetV2, CIFAR-10": Job(
        "mobilenet_v2", "cifar10", 10, 1000, 32, 1, 5, 0, 1, (2,), tested=500
    ),
}
"""The first is FedAvg's own: 100 clients of 600 images, batches of 10, plain SGD (McMahan et al. 2017, 3)."""

GROWTH = (10, 100, 1000)
"""Numbers of edges, each with 60 training and 10 test images: the work of a round is proportional to it."""

PAIRS = 12
"""Repetitions of runs with and without the journal."""

MERGED, UPDATES = 2_500_000, 50
"""Parameters of an update, and updates of a merge."""


def small_cnn(num_classes: int, in_shape: tuple[int, int, int]) -> nn.Module:
    """Two convolutions of 8 and 16 channels."""
    return nn.Sequential(
        nn.Conv2d(in_shape[0], 8, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(8, 16, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(16 * (in_shape[1] // 4) * (in_shape[2] // 4), num_classes),
    )


class Rounds(NullObserver):
    """Records the time at the end of each round."""

    def __init__(self) -> None:
        self.ends: list[float] = []

    def row(self, row: Row) -> None:
        """Record the time."""
        if row.stage == "average":
            self.ends.append(time.perf_counter())


def sheaf(job: Job, device: str, together: str = "auto", threads: int = 0) -> dict[str, Any]:
    """Run a job on ``threads`` threads (0: the default); return the seconds of the run and of its rounds."""
    usual, rounds = torch.get_num_threads(), Rounds()
    with tempfile.TemporaryDirectory() as folder, PeakMemory(torch.device(device)) as peak:
        began = time.perf_counter()
        result = runs.run(
            job.experiment(device, together, threads), out=Path(folder) / "run", observer=rounds
        )
        seconds = time.perf_counter() - began
        final = result.final(CLOUD)
    torch.set_num_threads(usual)
    assert final is not None
    return {
        "seconds": seconds,
        "accuracy": final.accuracy,
        "memory": peak.bytes,
        "rounds": [end - start for start, end in pairwise(rounds.ends)],
    }


class Bare:
    """A hand-written loop, with images normalised beforehand."""

    def __init__(self, job: Job, device: str) -> None:
        self.job = job
        self.device = device
        self.prepared: ExperimentSetup = prepare(job.experiment(device))
        data = self.prepared.dataset
        mean, std = torch.tensor(data.mean).view(-1, 1, 1), torch.tensor(data.std).view(-1, 1, 1)
        self.x = ((data.train.inputs.float() / 255 - mean) / std).to(device)
        self.x_test = ((data.test.inputs[data.test.positions].float() / 255 - mean) / std).to(device)
        self.y, self.y_test = data.train.targets.to(device), data.test.labels.to(device)
        self.parts = [train.positions.to(device) for train, _ in self.prepared.edge_samples.values()]

    def __call__(self, threads: int) -> dict[str, float]:
        """Run FedAvg over all edges."""
        before = torch.get_num_threads()
        torch.set_num_threads(threads)
        torch.manual_seed(SEED)
        began = time.perf_counter()
        model = copy.deepcopy(self.prepared.network.model).to(self.device)
        if any(isinstance(layer, nn.Conv2d) for layer in model.modules()):
            to_layout(model, channels_last=True)
        theta = {name: value.clone() for name, value in model.state_dict().items()}
        accuracy = 0.0
        for _ in range(self.job.rounds):
            sums = {name: torch.zeros_like(value, dtype=torch.float64) for name, value in theta.items()}
            for positions in self.parts:
                model.load_state_dict(theta)
                self._train(model.train(), positions)
                for name, value in model.state_dict().items():
                    sums[name].add_(value, alpha=len(positions))
            total = sum(map(len, self.parts))
            theta = {name: (value / total).to(theta[name].dtype) for name, value in sums.items()}
            model.load_state_dict(theta)
            with torch.inference_mode():
                guessed = torch.cat([model.eval()(x).argmax(1) for x in torch.split(self.x_test, 256)])
            accuracy = (guessed == self.y_test).float().mean().item()
        seconds = time.perf_counter() - began
        torch.set_num_threads(before)
        return {"seconds": seconds, "accuracy": accuracy}

    def _train(self, model: nn.Module, positions: Tensor) -> None:
        kind = torch.optim.SGD if self.job.optimizer == "sgd" else torch.optim.Adam
        optimizer = kind(model.parameters(), self.job.lr, fused=True)
        for batch in torch.split(
            positions[torch.randperm(len(positions), device=self.device)], self.job.batch_size
        ):
            optimizer.zero_grad()
            F.cross_entropy(model(self.x[batch]), self.y[batch]).backward()  # type: ignore[no-untyped-call]
            optimizer.step()


def flower(bare: Bare, folder: Path) -> dict[str, float]:
    """Run Flower's simulation of the same clients."""
    content = {
        "model": bare.prepared.network.model,
        "x": bare.x.cpu(),
        "y": bare.y.cpu(),
        "x_test": bare.x_test.cpu(),
        "y_test": bare.y_test.cpu(),
        "parts": [positions.cpu() for positions in bare.parts],
        "optimizer": bare.job.optimizer,
        "lr": bare.job.lr,
        "batch_size": bare.job.batch_size,
        "rounds": bare.job.rounds,
    }
    with tempfile.TemporaryDirectory() as scratch:
        job, reply = Path(scratch) / "job.pt", Path(scratch) / "reply.json"
        torch.save(content, job)
        command = [
            str(folder.absolute() / "bin" / "python"),
            "-c",
            "import flower_side; flower_side.simulate()",
        ]
        here = str(Path(__file__).parent)
        environment = {
            "JOB": str(job),
            "REPLY": str(reply),
            "PYTHONPATH": here,
            "FLWR_TELEMETRY_ENABLED": "0",
        }
        log = Path(scratch) / "log.txt"
        with log.open("wb") as said:
            done = subprocess.run(
                command, stdout=said, stderr=subprocess.STDOUT, cwd=scratch, env={**os.environ, **environment}
            )
        if not reply.exists():
            raise RuntimeError(f"Flower ended with {done.returncode}:\n{log.read_text()[-2000:]}")
        answer: dict[str, float] = json.loads(reply.read_text())
    assert answer["rounds"] == bare.job.rounds
    return answer


def beside(side: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What a side measures, with the cores that other programs used meanwhile as ``others``."""

    def used() -> tuple[float, float]:
        machine, own = psutil.cpu_times(), os.times()
        return sum(machine) - machine.idle - machine.iowait - machine.guest - machine.guest_nice, sum(own[:4])

    before, began = used(), time.perf_counter()
    found = side()
    after, seconds = used(), time.perf_counter() - began
    return {**found, "others": max(0.0, (after[0] - before[0] - after[1] + before[1]) / seconds)}


def measured(name: str, environment: Path | None, device: str) -> dict[str, Any]:
    """Return the row of a job."""
    job, bare = JOBS[name], Bare(JOBS[name], device)
    sides = {
        "sheaf": lambda: sheaf(job, device),
        "one_by_one": lambda: sheaf(job, device, "never", job.threads[-1]),
    }
    for threads in job.threads:
        sides[f"bare_{threads}"] = partial(bare, threads)
    if environment is not None and job.flower:
        sides["flower"] = lambda: flower(bare, environment)
    found: dict[str, list[dict[str, float]]] = {side: [] for side in sides}
    turns = {"flower": job.flower, "one_by_one": job.one_by_one}
    for turn in range(job.repeats):
        for side in sides if turn % 2 else reversed(sides):
            if turn < turns.get(side, job.repeats):
                found[side].append(beside(sides[side]))
                print(f"{name}: {side} {found[side][-1]}", flush=True)
    medians = {side: statistics.median(one["seconds"] for one in each) for side, each in found.items()}
    best = min(seconds for side, seconds in medians.items() if side.startswith("bare"))
    return {
        "job": name,
        "vs_flower": medians["flower"] / medians["sheaf"] if "flower" in medians else None,
        "vs_bare": best / medians["sheaf"],
        "vs_one_by_one": medians["one_by_one"] / medians["sheaf"],
        "sides": {
            side: {
                "median_s": medians[side],
                "seconds": [one["seconds"] for one in each],
                "others": [one["others"] for one in each],
                "accuracy": statistics.median(one["accuracy"] for one in each),
            }
            for side, each in found.items()
        },
        "flower_with_start_s": [one["with_start"] for one in found.get("flower", [])],
        "settings": asdict(job),
    }


def grown(edges: int, device: str) -> dict[str, Any]:
    """Seconds of a run and of its rounds but the first, and memory, with so many edges of the same work."""
    job = Job("mlp", "mnist", edges, 60, 10, 6, 3, 0, tested=10 * edges)
    runs_of = [beside(lambda: sheaf(job, device)) for _ in range(job.repeats)]
    rounds = [seconds for one in runs_of for seconds in one["rounds"]]
    return {
        "job": f"{edges} edges of 60 images",
        "edges": edges,
        "median_s": statistics.median(one["seconds"] for one in runs_of),
        "round_s": statistics.median(rounds),
        "rounds_s": rounds,
        "seconds": [one["seconds"] for one in runs_of],
        "others": [one["others"] for one in runs_of],
        "memory_bytes": max(one["memory"] for one in runs_of),
        "settings": asdict(job),
    }


def merged() -> dict[str, Any]:
    """How fast updates are merged, against a plain copy of their bytes; from memory, and from files.

    A copy that writes each update to one and the same place, which stays in the cache, and one that writes
    them all to places of their own.
    """
    draws = torch.Generator().manual_seed(SEED)
    updates = [{"w": torch.randn(MERGED, generator=draws)} for _ in range(UPDATES)]
    theta, room = updates[0], torch.zeros(MERGED)
    rooms = [torch.zeros(MERGED) for _ in updates]

    def copied(threads: int, into: Sequence[Tensor]) -> None:
        before = torch.get_num_threads()
        torch.set_num_threads(threads)
        for update, place in zip(updates, into, strict=True):
            place.copy_(update["w"])
        torch.set_num_threads(before)

    with tempfile.TemporaryDirectory() as folder:
        blobs = [Blob.of(each).write(Path(folder) / str(at)) for at, each in enumerate(updates)]
        sides: dict[str, Callable[[], object]] = {
            "copy_1": partial(copied, 1, [room] * UPDATES),
            "copy_2": partial(copied, 2, [room] * UPDATES),
            "apart_1": partial(copied, 1, rooms),
            "apart_2": partial(copied, 2, rooms),
            "merge": lambda: average(theta, (Contribution(update, 1.0) for update in updates)),
            "merge_files": lambda: average(theta, (Contribution(blob.open(), 1.0) for blob in blobs)),
        }
        seconds: dict[str, list[float]] = {side: [] for side in sides}
        for _ in range(9):
            for side, work in sides.items():
                began = time.perf_counter()
                work()
                seconds[side].append(time.perf_counter() - began)
    medians = {side: statistics.median(each) for side, each in seconds.items()}
    copy, apart = (min(medians[f"{kind}_{threads}"] for threads in (1, 2)) for kind in ("copy", "apart"))
    return {
        "job": f"merging {UPDATES} updates of {MERGED * 4 // 10**6} MB",
        "vs_copy": copy / medians["merge"],
        "vs_copy_from_files": copy / medians["merge_files"],
        "vs_copy_apart": apart / medians["merge"],
        "sides": {side: {"median_s": medians[side], "seconds": seconds[side]} for side in sides},
    }


def journaled() -> dict[str, Any]:
    """Which share of the first job's run goes by while answers are journaled, and what a run loses by it."""
    job, spent = next(iter(JOBS.values())), [0.0]

    class Forgetful(Journal):
        """Return the update without recording it."""

        def record(self, task: Task, update: Update) -> Update:
            return update

    class Timed(Journal):
        """Counts every thread's seconds, those too in which others train."""

        def record(self, task: Task, update: Update) -> Update:
            began = time.perf_counter()
            try:
                return super().record(task, update)
            finally:
                spent[0] += time.perf_counter() - began

        def settle(self) -> None:
            began = time.perf_counter()
            try:
                super().settle()
            finally:
                spent[0] += time.perf_counter() - began

    shares, seconds, without = [], [], []

    def timed() -> None:
        spent[0] = 0.0
        with mock.patch.object(runs, "Journal", Timed):
            seconds.append(sheaf(job, "cpu")["seconds"])
        shares.append(spent[0] / seconds[-1])

    def forgetful() -> None:
        with mock.patch.object(runs, "Journal", Forgetful):
            without.append(sheaf(job, "cpu")["seconds"])

    for turn in range(PAIRS):
        for side in (timed, forgetful) if turn % 2 else (forgetful, timed):
            side()
    return {
        "job": "the journal's share of the first job",
        "share": statistics.median(shares),
        "shares": shares,
        "cost": statistics.median(own / other - 1 for own, other in zip(seconds, without, strict=True)),
        "seconds": seconds,
        "seconds_without": without,
    }


ALONE = {"merge": merged, "journal": journaled}

app = typer.Typer(add_completion=False)
Environment = Annotated[Path | None, typer.Option(help="The folder of Flower's environment.")]


@app.command()
def setup(flower: Annotated[Path, typer.Option(help="Where Flower's environment is made.")]) -> None:
    """Create an environment with Flower and the same version of torch."""
    venv.create(flower, with_pip=True)
    version = torch.__version__.partition("+")[0]
    pip = [str(flower / "bin" / "python"), "-m", "pip", "install"]
    subprocess.run([*pip, FLOWER, f"torch=={version}", "numpy"], check=True)


@app.command()
def run(
    flower: Environment = None,
    only: Annotated[
        list[str] | None, typer.Option(help="A job's name, growth, merge or journal; all by default.")
    ] = None,
    device: Annotated[str, typer.Option(help="Where sheaf and the bare loop compute: cpu or cuda.")] = "cpu",
) -> None:
    """Run the named jobs, and publish ``simulation.json``; other jobs keep their rows."""
    published = "simulation" if device == "cpu" else f"simulation-{device}"
    file = FOLDER / f"{published}.json"
    rows = {row["job"]: row for row in json.loads(file.read_text())["rows"]} if file.exists() else {}
    commit = {"commit": provenance({}, SEED, {}, torch.device(device))["commit"]}
    for name in only or [*JOBS, "growth", *(ALONE if device == "cpu" else ())]:
        if name == "growth":
            for edges in GROWTH:  # each in a process of its own, for its memory
                command = [sys.executable, "-m", "benchmarks.simulation", "grow", str(edges), device]
                said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
                row = json.loads(said.splitlines()[-1])
                rows[row["job"]] = row | commit
        else:
            row = ALONE[name]() if name in ALONE else measured(name, flower, device)
            rows[row["job"]] = row | commit
    fingerprints = {
        job.data: prepare(replace(job, edges=10).experiment(device)).dataset.fingerprint
        for job in JOBS.values()
    }
    rows = {name: rows[name] for name in JOBS if name in rows} | rows
    publish(published, list(rows.values()), {"flower": FLOWER}, SEED, fingerprints, device=device)
    for row in rows.values():
        print({key: value for key, value in row.items() if key not in ("sides", "settings")})


@app.command(hidden=True)
def grow(edges: int, device: str) -> None:
    """Print one point of the growth, as JSON."""
    print(json.dumps(grown(edges, device)))


if __name__ == "__main__":
    app()
