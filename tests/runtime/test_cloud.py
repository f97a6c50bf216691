"""The cloud's interface for methods."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from rig import (
    RECIPE,
    SITES,
    Rig,
    dataset,
    model,
    network,
    theta,
)
from support import one_line

from sheaf.core.errors import TrainingError
from sheaf.core.recipe import Recipe, Share
from sheaf.core.types import CLOUD
from sheaf.fleets.local.fleet import LocalFleet
from sheaf.models import flops
from sheaf.runtime.cloud import Cloud
from sheaf.runtime.worker import Worker


@pytest.fixture
def cloud(tmp_path: Path) -> Iterator[tuple[Rig, Cloud, Worker]]:
    data = dataset()
    nothing = data.train.select(torch.arange(0))
    worker = Worker(CLOUD, network(), replace(data, train=nothing), nothing, tmp_path / CLOUD)
    with Rig(tmp_path) as rig:
        yield rig, Cloud(rig.calls, worker, LocalFleet([worker])), worker


def test_the_cloud_trains_on_the_shared_samples_in_the_order_of_the_edges(
    cloud: tuple[Rig, Cloud, Worker],
) -> None:
    rig, centre, worker = cloud
    centre.pool(rig.edges.share(Share()))
    data = dataset().train
    assert torch.equal(worker.data.train.labels, data.labels)
    assert torch.equal(worker.data.train.inputs, data.inputs)
    before = rig.ledger.sites[CLOUD].train_macs
    trained = centre.train(theta(), RECIPE, counted=False)
    assert rig.ledger.sites[CLOUD].train_macs == before == 0
    again = centre.train(theta(), RECIPE)
    assert rig.ledger.sites[CLOUD].train_macs == 48 * flops.train_macs_per_example(model(), (1, 4, 4)) > 0
    assert not torch.equal(trained["1.weight"], again["1.weight"]), "another call has another seed"
    (measured,) = centre.evaluate(again)
    assert torch.tensor(measured.metrics["confusion"]).sum() == 48


def test_divergence_in_the_cloud_is_an_error(cloud: tuple[Rig, Cloud, Worker]) -> None:
    rig, centre, _ = cloud
    centre.pool(rig.edges.share(Share()))
    with pytest.raises(
        TrainingError, match=r"1\.(weight|bias) has values that are not finite; try a smaller"
    ) as error:
        centre.train(theta(), Recipe(epochs=3, lr=1e38, optimizer="sgd"))
    one_line(error)


@pytest.mark.parametrize("kind", ["restat", "refit"])
def test_restat_and_refit_change_only_their_parameters(cloud: tuple[Rig, Cloud, Worker], kind: str) -> None:
    rig, centre, _ = cloud
    centre.pool(rig.edges.share(Share()))
    changed = centre.restat(theta()) if kind == "restat" else centre.refit(theta(), RECIPE)
    names = {name for name, value in theta().items() if not torch.equal(value, changed[name])}
    statistics = {f"2.{name}" for name in ("running_mean", "running_var", "num_batches_tracked")}
    assert names == (statistics if kind == "restat" else {"3.weight", "3.bias"})
    forward = 48 * flops.macs_per_example(model(), (1, 4, 4))
    spent = rig.ledger.sites[CLOUD].train_macs
    assert spent == (forward if kind == "restat" else forward + 48 * 2 * 8 * 3)
    assert rig.ledger.sites[CLOUD].bytes_sent == sum(rig.ledger.sites[s].bytes_received for s in SITES)
