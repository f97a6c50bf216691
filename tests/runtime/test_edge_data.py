"""Statistics that edges send: their sum over the edges, the blocks of a bound model, refusals."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from rig import RECIPE, SITES, Fleet, Partial, Rig, dataset, network, theta, workers

from sheaf.codecs.float32 import Float32
from sheaf.codecs.int8 import Int8
from sheaf.core.coding import Codec
from sheaf.core.recipe import Statistic, StatisticKind
from sheaf.core.task import Task, Update
from sheaf.core.tensor_file import Blob
from sheaf.merges.average import Contribution, average
from sheaf.runtime.cloud_coding import CloudCoding
from sheaf.submodels.scheme import SiteNeeds
from sheaf.submodels.schemes.by_class import ByClass


def test_statistics_are_those_of_the_pooled_samples(tmp_path: Path) -> None:
    with Rig(tmp_path) as rig:
        found = rig.edges.statistics(theta(), Statistic("features"))
        calls = rig.calls.count
    with Rig(tmp_path) as rig:  # a resumed run reads the sum from the journal
        again = rig.edges.statistics(theta(), Statistic("features"))
        assert rig.fleet.asked == []
    worker = workers(tmp_path / "pooled")[0]
    worker.pool(dataset().train)
    task = Task("summarize", 1, 0, Blob.of(theta()), statistic=Statistic("features"))
    pooled = worker.do(task).statistics
    assert calls == 1
    for name, value in pooled.items():
        torch.testing.assert_close(found[name], value, rtol=1e-6, atol=1e-6)
        assert torch.equal(again[name], found[name])
    assert found["counts"].tolist() == [16, 16, 16]


@pytest.mark.parametrize("codec", [Float32(), Int8()], ids=["float32", "int8"])
@pytest.mark.parametrize("kind", ["features", "batch_norm"])
def test_statistics_of_a_bound_model_take_its_blocks_only(
    kind: StatisticKind, codec: Codec, tmp_path: Path
) -> None:
    """They are those of the dense computation, for fewer bytes and multiply-adds."""
    needs = [SiteNeeds(site, (0, 1) if site in "ca" else (2,)) for site in SITES]
    fleet = Partial(tmp_path / "sites", {})
    with Rig(tmp_path, fleet, needs=needs, coding=CloudCoding(network(), codec)) as rig:
        cuts = rig.edges.cut(ByClass())
        submodels = [network().submodel(cut) for cut in cuts.values()]
        parts = [Contribution(submodel.take(theta()), 1.0, submodel) for submodel in submodels]
        bound = average(theta(), parts, unheld="zero")
        dense = rig.edges.statistics(bound, Statistic(kind))
        blockwise = rig.edges.statistics(bound, Statistic(kind), bound=cuts)
    tasks = {task.call: task for _, task in fleet.tasks}
    assert [len(tasks[call].blocks) for call in (1, 2)] == [0, 2]
    costs = [fleet.workers["a"].cost_of(tasks[call]) for call in (1, 2)]
    assert costs[1].train_macs < costs[0].train_macs
    assert costs[1].macs_per_example < costs[0].macs_per_example
    assert costs[1].parameters < costs[0].parameters
    rounding = 1e-6 if isinstance(codec, Float32) else 0.1
    for name, value in dense.items():
        scale = value.abs().max().item()
        torch.testing.assert_close(blockwise[name], value, rtol=0, atol=rounding * scale)


class Lying(Fleet):
    """A fleet whose edge "a" falsifies its statistic."""

    def run(self, tasks: Mapping[str, Task], call: Mapping[str, Task] | None = None) -> Iterator[Update]:
        for update in super().run(tasks, call):
            if update.site == "a" and update.kind == "summarize" and update.blob is not None:
                content = update.blob.open()
                content[".features.counts"] = content[".features.counts"] * 1000
                update = replace(update, blob=Blob.of(content))
            yield update


def test_a_statistic_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    with Rig(tmp_path, Lying(tmp_path / "sites")) as rig:
        found = rig.edges.statistics(theta(), Statistic("features"))
        assert found["counts"].sum() == 36, "the three others"
        assert [refusal.site for refusal in rig.calls.refused] == ["a"]
        assert "counts other examples" in rig.calls.refused[0].why
        rig.edges.train(theta(), RECIPE)
        assert rig.edges.evaluate(), "it trains on as before"


def test_a_statistic_of_no_layer_needs_no_call(tmp_path: Path) -> None:
    with Rig(tmp_path) as rig:
        rig.edges._network.model[2].requires_grad_(False)  # the only batch norm is frozen
        assert rig.edges.statistics(theta(), Statistic("batch_norm")) == {}
        assert rig.calls.count == 0
