"""Statistics of a device's samples: its owner allows them, and its noise is its own."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from device_rig import SHAPE, Rig, absent, theta
from torch import Tensor

from sheaf.core.cut import Cut
from sheaf.core.privacy import spent
from sheaf.core.recipe import Noise, Statistic
from sheaf.core.task import Task, Update
from sheaf.core.tensor_file import Blob
from sheaf.fleets.remote.device_settings import EdgeFile, EdgeSettings, ShareSettings
from sheaf.fleets.remote.noise_key import KEY, noise_key
from sheaf.fleets.remote.privacy_record import PrivacyRecord
from sheaf.merges.average import Contribution, average
from sheaf.models.build import ModelSettings, build_model
from sheaf.submodels.scheme import SiteNeeds
from sheaf.submodels.schemes.by_class import ByClass
from sheaf.training.network import Network

ALLOWED = dict.fromkeys(("left", "right"), EdgeFile(share=ShareSettings(statistics=True)))
NOISE = Noise(clip=1.0, multiplier=2.0, delta=1e-5)


def summarized(rig: Rig, call: int, noise: Noise | None = None) -> dict[str, dict[str, Tensor]]:
    """Return site -> its statistic."""
    task = Task("summarize", call, 5, Blob.of(theta()), statistic=Statistic("features", noise=noise))
    results = rig.run(task)
    assert all(isinstance(result, Update) for result in results.values()), results
    return {site: dict(result.statistics) for site, result in results.items() if isinstance(result, Update)}


def test_a_device_sends_moments_of_its_training_samples(tmp_path: Path) -> None:
    rig = Rig(tmp_path, ALLOWED)
    for site, sent in summarized(rig, 1).items():
        info = rig.fleet.devices()[site]
        assert sent["counts"].tolist() == info.counts  # type: ignore[union-attr]
        assert sent["sums"].shape == (3, 8)
        assert sent["moment"].dtype == torch.float64
        assert sent["moment"].min() >= 0, "features of a ReLU"


def test_a_device_multiplies_by_the_blocks_of_a_bound_model(tmp_path: Path) -> None:
    """A limit that the dense model exceeds admits it, and the statistic is that of the dense model."""
    network = Network(build_model(ModelSettings(name="mlp", options={"hidden": 8}), 3, SHAPE, 0), SHAPE)
    needs = [SiteNeeds("left", (0, 1)), SiteNeeds("right", (2,))]
    cuts = tuple(ByClass()(network.structure, needs, 0).values())
    parts = [Contribution(network.submodel(cut).take(theta()), 1.0, network.submodel(cut)) for cut in cuts]
    bound = average(theta(), parts, unheld="zero")
    dense = Task("summarize", 1, 5, Blob.of(bound), statistic=Statistic("features"))
    packed = replace(dense, call=2, blob=Blob.of(network.bound(cuts).pack(bound)), blocks=cuts)
    assert network.blocks(cuts) == cuts
    expected = Rig(tmp_path, ALLOWED).run(dense)["left"]
    assert isinstance(expected, Update)

    limit = network.macs(None, cuts).forward
    assert limit < network.macs().forward
    own = EdgeFile(share=ShareSettings(statistics=True), edge=EdgeSettings(macs=limit))
    limited = Rig(tmp_path, dict.fromkeys(("left", "right"), own))
    assert "multiply-adds exceed [edge] macs" in absent(limited.run(replace(dense, call=3))["left"])
    update = limited.run(packed)["left"]
    assert isinstance(update, Update), update
    assert update.cost.macs_per_example == limit
    for name, value in expected.statistics.items():
        torch.testing.assert_close(update.statistics[name], value, rtol=1e-6, atol=1e-6)
    broken = replace(packed, call=4, blob=Blob.of(bound))
    assert "the packed model has no tensor" in absent(limited.run(broken)["left"])
    wrong = replace(packed, call=5, blocks=(Cut((("no such", ((0, 1),)),)),))
    assert "no group 'no such'" in absent(limited.run(wrong)["left"])


def test_the_privacy_loss_is_limited_over_all_runs(tmp_path: Path) -> None:
    """The limit allows one release, not two."""
    limit = 1.1 * spent([NOISE])
    own = dict.fromkeys(("left", "right"), EdgeFile(share=ShareSettings(statistics=True, max_epsilon=limit)))
    task = Task("summarize", 1, 5, Blob.of(theta()), statistic=Statistic("features", noise=NOISE))
    exact = replace(task, statistic=Statistic("features"))
    assert "without noise exceeds [share] max_epsilon" in absent(Rig(tmp_path, own).run(exact)["left"])
    for _ in range(2):  # a repeated request counts once
        assert isinstance(Rig(tmp_path, own).run(task)["left"], Update)
    assert PrivacyRecord(tmp_path / "left" / "state").epsilon == pytest.approx(spent([NOISE]))
    other = replace(task, call=2, blob=Blob.of({name: value + 1 for name, value in theta().items()}))
    assert "above [share] max_epsilon" in absent(Rig(tmp_path, own).run(other)["left"])
    (tmp_path / "left" / "state" / "statistics.json").write_text("{")
    assert "is damaged" in absent(Rig(tmp_path, own).run(task)["left"])


def test_the_noise_of_a_device_is_repeatable_and_its_own(tmp_path: Path) -> None:
    rig = Rig(tmp_path, ALLOWED)
    exact, noised = summarized(rig, 1), summarized(rig, 2, NOISE)
    again = summarized(Rig(tmp_path, ALLOWED), 3, NOISE)  # restarted, in another run
    for site in noised:
        assert all(torch.equal(noised[site][name], again[site][name]) for name in noised[site])
    noise = [noised[site]["counts"] - exact[site]["counts"] for site in noised]
    assert not torch.equal(noise[0], noise[1])
    key = tmp_path / "left" / "state" / KEY
    assert key.stat().st_mode & 0o777 == 0o600
    assert key.read_bytes() == noise_key(key.parent)
    assert key.read_bytes() != (tmp_path / "right" / "state" / KEY).read_bytes()
