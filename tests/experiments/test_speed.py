"""Estimates of a run's time from measured steps."""

from __future__ import annotations

from dataclasses import replace

import torch

from sheaf.experiments.config import Experiment
from sheaf.experiments.setup import prepare
from sheaf.experiments.speed import estimate


def test_an_estimate_covers_the_run_and_its_baselines_and_alters_nothing(quick: Experiment) -> None:
    setup = prepare(replace(quick, baselines=("local", "central"), fleet=replace(quick.fleet, threads=1)))
    start, threads = setup.theta, torch.get_num_threads()
    found = estimate(setup)
    assert torch.get_num_threads() == threads
    assert all(torch.equal(value, setup.theta[name]) for name, value in start.items())
    assert found.seconds.keys() == found.sites.keys() == {*setup.edge_samples, "cloud"}
    assert 0 < found.seconds["cloud"] < 60
    edges = [site for site in found.sites if site != "cloud"]
    speeds = {found.sites[site].train_macs / found.seconds[site] for site in edges}
    assert max(speeds) - min(speeds) < 1e-6 * max(speeds)
    # local spends the edges' epochs, central those of edges and cloud together
    assert found.baselines > sum(found.seconds[site] for site in edges) > 0
    assert estimate(replace(setup, experiment=replace(quick, baselines=()))).baselines == 0
