"""Measure training beside other work: how OpenMP's threads block while the processor is shared.

A step splits each operation among the threads and waits for the last one. By default, GNU OpenMP's threads
spin for milliseconds while they wait, so that a thread that could compute finds no free core. One process per
setting trains; the parent lets them train in turns, first undisturbed and then beside one process that
computes without end, and reports the median. All settings with the same number of threads must end with the
same bits. Run it on an otherwise idle machine.

Run: python -m benchmarks.busy
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

SEED = 0
BATCH = 64
MODELS = {"mobilenet_v2": ((3, 32, 32), 6), "mlp": ((1, 28, 28), 200)}
"""Model -> the shape of its inputs, steps per turn."""

SETTINGS = {
    "300000 spins, libgomp's default": {"GOMP_SPINCOUNT": "300000"},
    "30000 spins": {"GOMP_SPINCOUNT": "30000"},
    "10000 spins": {"GOMP_SPINCOUNT": "10000"},
    "3000 spins": {"GOMP_SPINCOUNT": "3000"},
    "1000 spins": {"GOMP_SPINCOUNT": "1000"},
    "0 spins, as OMP_WAIT_POLICY=passive": {"GOMP_SPINCOUNT": "0"},
    "10000 spins, bound to cores": {"GOMP_SPINCOUNT": "10000", "OMP_PROC_BIND": "true"},
    "one thread": {"OMP_NUM_THREADS": "1"},
}
"""Name -> environment variables."""


def train_in_turns() -> None:
    """Train a model's steps for each line of the standard input; print seconds and hash of the weights."""
    import torch

    from sheaf.core.dataset import Samples
    from sheaf.core.recipe import Recipe
    from sheaf.core.seeds import generator
    from sheaf.models.build import ModelSettings, build_model
    from sheaf.training.one_site import train_model
    from sheaf.training.preparation import Preparation

    for line in sys.stdin:
        name = line.strip()
        shape, steps = MODELS[name]
        draws = generator(SEED)
        inputs = torch.randint(0, 256, (BATCH * steps, *shape), generator=draws, dtype=torch.uint8)
        samples = Samples.of(inputs, torch.randint(0, 10, (len(inputs),), generator=draws))
        prepare = Preparation((0.5,) * shape[0], (0.25,) * shape[0], torch.device("cpu"))
        model = build_model(ModelSettings(name=name), 10, shape, SEED)
        started = time.perf_counter()
        train_model(model, samples, Recipe(epochs=1, batch_size=BATCH, precision="float32"), prepare, SEED)
        seconds = time.perf_counter() - started
        digest = hashlib.sha256()
        for value in model.state_dict().values():
            digest.update(value.numpy().tobytes())
        print(json.dumps([seconds, digest.hexdigest(), torch.get_num_threads()]), flush=True)


@contextmanager
def trainers() -> Iterator[dict[str, subprocess.Popen[str]]]:
    """Start a process for each setting inside the block."""
    children = {}
    for name, variables in SETTINGS.items():
        children[name] = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.busy", "--train"],
            env=os.environ | variables,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
    try:
        yield children
    finally:
        for child in children.values():
            child.kill()
            child.wait()


@contextmanager
def spinning(count: int) -> Iterator[None]:
    """Run ``count`` processes that compute without end inside the block."""
    children = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for child in children:
            child.send_signal(signal.SIGKILL)
            child.wait()


def turn(child: subprocess.Popen[str], model: str) -> tuple[float, str, int]:
    """Let a process train; return seconds, hash of the weights and number of threads."""
    assert child.stdin is not None
    assert child.stdout is not None
    child.stdin.write(model + "\n")
    child.stdin.flush()
    seconds, digest, threads = json.loads(child.stdout.readline())
    return seconds, digest, threads


def measure(children: Mapping[str, subprocess.Popen[str]], model: str, rounds: int) -> dict[str, float]:
    """Return the median steps per second of each setting.

    Raises:
        AssertionError: settings with the same number of threads end with different weights.
    """
    seconds: dict[str, list[float]] = {name: [] for name in children}
    digests: dict[int, set[str]] = {}
    for _ in range(rounds):
        for name, child in children.items():
            took, digest, threads = turn(child, model)
            seconds[name].append(took)
            digests.setdefault(threads, set()).add(digest)
    assert all(len(equal) == 1 for equal in digests.values()), f"{model}: the weights differ: {digests}"
    return {name: MODELS[model][1] / statistics.median(values) for name, values in seconds.items()}


def main() -> None:
    """Measure every setting, and publish ``busy.json``."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--train", action="store_true", help="be a process that trains")
    parser.add_argument("--rounds", type=int, default=9, help="turns of each setting")
    arguments = parser.parse_args()
    if arguments.train:
        train_in_turns()
        return
    from benchmarks.results import publish

    rows = []
    with trainers() as children:
        for model in MODELS:
            measure(children, model, 2)  # warm up
            quiet = measure(children, model, arguments.rounds)
            with spinning(1):
                busy = measure(children, model, arguments.rounds)
            for name in SETTINGS:
                rows.append({"model": model, "setting": name, "quiet": quiet[name], "busy": busy[name]})
    settings = {"settings": SETTINGS, "batch": BATCH, "models": MODELS, "rounds": arguments.rounds}
    publish("busy", rows, settings, SEED, {}, tuple(rows[0]))


if __name__ == "__main__":
    main()
