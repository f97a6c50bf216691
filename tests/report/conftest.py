"""Real runs, made once, for the tests of reports."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from made_up import rewritten, strange
from support import QUICK

import sheaf
from sheaf.experiments.compare import compare
from sheaf.experiments.config import load_experiment

LEAST = (
    "data.limit=1200",
    "data.limit_test=60",
    "method.pretrain.epochs=1",
    "method.finetune.epochs=1",
    "method.retrain.epochs=1",
    "method.reference=false",
    "partition.name=support:Dealt",
    "model.options.hidden=8",
)


@pytest.fixture(scope="session")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for each kind of run, and ``several``, which compare left."""
    folder = tmp_path_factory.mktemp("runs")
    sheaf.run("ecavg-digits", changes=QUICK, out=folder / "ecavg")
    sheaf.run("ecavg-digits", changes=(*QUICK, "method.rounds=3"), out=folder / "rounds")
    sheaf.run("ecavg-digits", changes=(*QUICK, "method.name=ecavg_plus"), out=folder / "guarded")
    sheaf.run(
        "ecavg-digits",
        changes=("data.limit=400", "data.limit_test=100", "method=decoupled", "method.train.epochs=2"),
        out=folder / "decoupled",
    )
    compare(load_experiment("ecavg-digits", QUICK), ("ecavg", "fedavg", "decoupled"), 2, folder / "several")
    rewritten(folder / "ecavg", folder / "strange", strange)
    rewritten(folder / "several" / "fedavg-0", folder / "fedavg", lambda result: result)
    sheaf.run(
        "ecavg-digits", changes=(*LEAST[:2], "method=local", "method.train.epochs=2"), out=folder / "local"
    )
    return folder


@pytest.fixture(scope="session")
def of_many() -> Iterator[Callable[[int], Path]]:
    """The folder of a run with so many edges, made when it is first asked for.

    In memory where that can be: thousands of answers are synced to disk one by one, which is not tested here.
    """
    memory = Path("/dev/shm")
    folder = Path(tempfile.mkdtemp(dir=memory if os.access(memory, os.W_OK) else None))

    def make(edges: int) -> Path:
        place = folder / str(edges)
        if not place.exists():
            sheaf.run("ecavg-digits", changes=(*LEAST, f"partition.edges={edges}"), out=place)
        return place

    yield make
    shutil.rmtree(folder)
