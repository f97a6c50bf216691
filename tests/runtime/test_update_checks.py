"""Updates that cannot be merged are refused, and the reason is recorded."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from rig import RECIPE, SITES, Fleet, Rig, not_finite, theta, too_wide, workers

from sheaf.core.errors import QuorumError
from sheaf.core.recipe import Statistic
from sheaf.core.task import Task, Update
from sheaf.core.tensor_file import Blob
from sheaf.fleets.local.fleet import LocalFleet
from sheaf.merges.rules.mean import Mean
from sheaf.merges.rules.regmean import Regmean


@pytest.mark.parametrize(
    ("spoiled", "why"),
    [
        ({".gram.1.weight": torch.full((16, 16), torch.inf)}, "1.weight has values that are not finite"),
        ({".gram.1.weight": torch.eye(4)}, "1.weight has shape (4, 4) instead of (16, 16)"),
        ({".gram.1.weight": torch.eye(16).double()}, "1.weight is torch.float64 instead of torch.float32"),
        ({".gram.1.weight": None}, "1.weight is missing"),
        ({".x": torch.eye(16)}, "x is not a parameter of the model"),
    ],
)
def test_an_update_with_an_unusable_statistic_is_refused(tmp_path: Path, spoiled, why: str) -> None:
    class Spoils(LocalFleet):
        def run(self, tasks: Mapping[str, Task], call: Mapping[str, Task] | None = None) -> Iterator[Update]:
            for update in super().run(tasks, call):
                if update.site == "a" and update.blob is not None:
                    sent = update.blob.open() | spoiled
                    blob = Blob.of({name: value for name, value in sent.items() if value is not None})
                    update = replace(update, blob=blob)
                yield update

    with Rig(tmp_path, Spoils(workers(tmp_path / "sites"))) as rig:
        usable = rig.edges.train(theta(), RECIPE, statistic=Statistic("gram"))
        assert [update.site for update in usable] == ["c", "d", "b"]
        assert [(one.site, one.why) for one in rig.calls.refused] == [("a", f"its gram statistic: {why}")]
        merged = rig.edges.merge(Regmean(), theta(), usable)
        assert all(torch.isfinite(value).all() for value in merged.values())


def test_updates_that_cannot_be_merged_are_refused_and_the_call_continues(tmp_path: Path) -> None:
    with Rig(tmp_path, Fleet(tmp_path / "sites", says={"a": not_finite, "d": too_wide})) as rig:
        usable = rig.edges.train(theta(), RECIPE)
        assert [update.site for update in usable] == ["c", "b"]
        assert [(one.call, one.site, one.why) for one in rig.calls.refused] == [
            (1, "a", "1.weight has values that are not finite"),
            (1, "d", "1.bias has shape (1,) instead of (8,)"),
        ]
        merged = rig.edges.merge(Mean(), theta(), usable)
    assert all(torch.isfinite(value).all() for value in merged.values())
    with Rig(tmp_path) as again:
        found = again.edges.merge(Mean(), theta(), again.edges.train(theta(), RECIPE))
        assert Blob.of(found).sha256 == Blob.of(merged).sha256
        assert [told for told in rig.observer.told if told[0] in SITES and len(told) == 2] == [
            (one.site, one.why) for one in rig.calls.refused
        ]
        assert again.calls.refused == rig.calls.refused, "a resumed run refuses the same updates"


def test_a_training_in_memory_that_diverges_is_refused(tmp_path: Path) -> None:
    with Rig(tmp_path) as rig, pytest.raises(QuorumError, match="has values that are not finite"):
        rig.edges.train(theta(), replace(RECIPE, lr=1e38))
