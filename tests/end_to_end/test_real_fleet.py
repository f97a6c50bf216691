"""A cloud and its devices in processes of their own, over TLS: the same results as in one process."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support import QUICK

import sheaf
from sheaf import deployed, rehearsal
from sheaf.config import Experiment, load_experiment
from sheaf.prepared import prepare

ONE_THREAD = (*QUICK, "fleet.threads=1")
Sheaf = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder of a fleet of two that waits for work; each device has its part of 400 digits."""
    folder = tmp_path_factory.mktemp("stage")
    with rehearsal.stage(prepare(load_experiment("ecavg-digits", ONE_THREAD)), folder) as found:
        yield found


def weights(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted((folder / "weights").iterdir())}


def decoupled() -> Experiment:
    changes = ("method=decoupled", "method.train.epochs=4", "method.share=0.5", "method.negatives=pooled")
    small = ("data.limit=400", "data.limit_test=100", "fleet.threads=1", "method.retrain.epochs=2")
    return load_experiment("ecavg-digits", (*changes, *small))


@pytest.mark.parametrize("method", ["ecavg", "decoupled"])
def test_the_real_fleet_ends_with_the_weights_of_the_one_in_process(
    fleet: Path, tmp_path: Path, method: str
) -> None:
    experiment = load_experiment("ecavg-digits", ONE_THREAD) if method == "ecavg" else decoupled()
    here = sheaf.run(experiment, out=tmp_path / "here")
    there = deployed.run(experiment, fleet, out=tmp_path / "there")
    assert weights(tmp_path / "here") == weights(tmp_path / "there")
    assert there.rows == here.rows
    assert there.split == here.split
    assert there.refused == []
    sent = {site: (cost.bytes_sent, cost.bytes_received) for site, cost in there.cost.items()}
    for site, cost in here.cost.items():  # but for seconds and memory in the headers
        assert sent[site] == pytest.approx((cost.bytes_sent, cost.bytes_received), rel=0.02)
    names = {path.name for path in (tmp_path / "here").iterdir()} | {"pool"}
    assert {path.name for path in (tmp_path / "there").iterdir()} == names - {"sites"}
