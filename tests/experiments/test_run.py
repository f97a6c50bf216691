"""What a run does to the process that it is in and undoes, and what it leaves in its folder."""

from __future__ import annotations

import gc
from pathlib import Path

import pytest
import safetensors.torch
import torch

from sheaf.experiments import run as runs
from sheaf.experiments.config import Experiment, load_experiment
from sheaf.runtime.observer import NullObserver


@pytest.mark.parametrize("already", [False, True])
def test_the_collector_passes_over_what_was_there_and_only_meanwhile(
    already: bool, quick: Experiment, tmp_path: Path
) -> None:
    """And what somebody else has frozen before stays frozen."""
    meanwhile: list[int] = []

    class Watching(NullObserver):
        def began(self, kind: str, sites: tuple[str, ...]) -> None:
            meanwhile.append(gc.get_freeze_count())

    assert gc.get_freeze_count() == 0
    try:
        if already:
            gc.freeze()
        runs.run(quick, out=tmp_path / "run", observer=Watching())
        assert min(meanwhile) > 1000
        assert (gc.get_freeze_count() > 0) == already
    finally:
        gc.unfreeze()


@pytest.mark.parametrize("method", ["fedavg", "local"])
def test_sites_that_end_with_the_same_share_a_file(method: str, tmp_path: Path) -> None:
    changes = ["data.limit=200", "partition.edges=3", f"method={method}"]
    result = runs.run(load_experiment("ecavg-digits", changes), out=tmp_path / "run")
    files = {site: tmp_path / "run" / file for site, file in result.weights.items()}
    models = {site: safetensors.torch.load_file(file) for site, file in files.items()}
    edges = [site for site in files if site != "cloud"]
    assert len(edges) == 3
    assert all(file.is_file() for file in files.values())
    assert len({files[site].stat().st_ino for site in edges}) == (1 if method == "fedavg" else 3)
    if method == "fedavg":
        assert all(torch.equal(value, models["cloud"][name]) for name, value in models["edge-1"].items())
