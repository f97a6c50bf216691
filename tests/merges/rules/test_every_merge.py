"""Whatever lies in sheaf/merges: means of what the sites hold."""

from __future__ import annotations

import weakref
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from sheaf.core import registry
from sheaf.core.task import Cost, Update
from sheaf.core.tensor_file import Blob
from sheaf.merges import average, coordinatewise
from sheaf.merges.check import misfit
from sheaf.merges.merge import statistic_of
from sheaf.merges.rules.mean import Mean
from sheaf.merges.rules.weighted_mean import WeightedMean
from sheaf.training.merge_statistics import blank
from sheaf.training.network import Network

NAMES = list(registry.describe("merges"))
BETWEEN = [name for name in NAMES if name not in ("regmean", "aligned")]
"""Those that stay within the values of each coordinate: a least-squares fit may leave them, and a
permutation changes which coordinate it is."""
DTYPES = (torch.float32, torch.float16, torch.bfloat16)
every_merge = pytest.mark.parametrize("name", NAMES)


class Mixed(nn.Sequential):
    """A convolution and linear layers, buffers of other types, and a number without dimensions."""

    def __init__(self) -> None:
        super().__init__(
            nn.Conv2d(2, 3, 2), nn.BatchNorm2d(3), nn.Flatten(), nn.Linear(27, 4), nn.ReLU(), nn.Linear(4, 2)
        )
        self.scale = nn.Parameter(torch.ones(()))
        self.register_buffer("wide", torch.zeros(4, dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * self.scale


NETWORK = Network(Mixed(), (2, 4, 4))


def params(seed: int, dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    draws = torch.Generator().manual_seed(seed)
    made = {}
    for name, value in NETWORK.model.state_dict().items():
        if not value.is_floating_point():
            made[name] = torch.randint(100, value.shape, generator=draws)
        elif value.dtype == torch.float64:
            made[name] = torch.randn(value.shape, generator=draws, dtype=torch.float64)
        else:
            drawn = torch.randn(value.shape, generator=draws)
            made[name] = (drawn.abs() if name.endswith("var") else drawn).to(dtype)
    return made


def update(site: int, sent: dict[str, Tensor], examples: int = 10, merge: object = None) -> Update:
    """With the statistic that ``merge`` asks for, drawn at random."""
    statistic, draws = statistic_of(merge), torch.Generator().manual_seed(site)
    if statistic is not None:
        for name, value in blank(NETWORK.model, statistic.kind).items():
            drawn = torch.randn(value.shape, generator=draws)
            found = drawn.T @ drawn if statistic.kind == "gram" else drawn.square().sub(0.1).clamp_min(0)
            sent = sent | {f".{statistic.kind}.{name}": found}
    return Update(f"edge-{site}", "train", Blob.of(sent), (examples, 1), {}, Cost())


@every_merge
@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 99), sizes=st.lists(st.integers(1, 10**6), min_size=1, max_size=6))
def test_the_mean_of_identical_models_is_that_model(name: str, seed: int, sizes: list[int]) -> None:
    merge = registry.load("merges", name)()
    for dtype in DTYPES:
        same = params(seed, dtype)
        merged = merge(params(99, dtype), [update(k, same, n, merge) for k, n in enumerate(sizes)], NETWORK)
        assert list(merged) == list(same)
        for key, value in same.items():
            assert merged[key].dtype == value.dtype
            assert merged[key].shape == value.shape
            if value.dtype == torch.float64:
                torch.testing.assert_close(merged[key], value, rtol=1e-14, atol=0)
            elif name == "regmean":  # solves equations
                torch.testing.assert_close(merged[key], value, rtol=torch.finfo(dtype).eps, atol=1e-6)
            else:
                assert torch.equal(merged[key], value)


@every_merge
@settings(max_examples=25, deadline=None)
@given(sizes=st.lists(st.integers(1, 1000), min_size=2, max_size=6), random=st.randoms(use_true_random=False))
def test_the_order_of_updates_hardly_matters(name: str, sizes: list[int], random) -> None:
    merge, theta = registry.load("merges", name)(), params(0)
    updates = [update(k, params(k), n, merge) for k, n in enumerate(sizes)]
    shuffled = random.sample(updates, len(updates))
    merged, otherwise = merge(theta, updates, NETWORK), merge(theta, shuffled, NETWORK)
    again = merge(theta, sorted(shuffled, key=lambda one: one.site), NETWORK)
    for key, value in theta.items():
        assert torch.equal(merged[key], again[key]), "the same order gives the same bits"
        if value.is_floating_point():
            torch.testing.assert_close(merged[key], otherwise[key], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", BETWEEN)
def test_a_merge_lies_between_what_it_merges(name: str) -> None:
    merge = registry.load("merges", name)()
    updates = [update(k, params(k), n, merge) for k, n in enumerate((1, 50, 7))]
    merged = merge(params(9), updates, NETWORK)
    for key, value in merged.items():
        if value.is_floating_point():
            sent = torch.stack([one.params[key] for one in updates])
            assert (sent.amin(0) <= value).all()
            assert (value <= sent.amax(0)).all()


@every_merge
def test_an_infinite_constant_is_kept(name: str) -> None:
    merge = registry.load("merges", name)()
    mask = torch.tensor([0.0, 1.0, -float("inf"), float("inf")], dtype=torch.float64)
    sent = [params(k) | {"wide": mask} for k in range(3)]
    theta = params(9) | {"wide": mask}
    merged = merge(theta, [update(k, one, 10, merge) for k, one in enumerate(sent)], NETWORK)
    assert torch.equal(merged["wide"], mask)
    assert misfit(theta, merged) is None


@every_merge
def test_integer_buffers_are_taken(name: str) -> None:
    merge, steps = registry.load("merges", name)(), "1.num_batches_tracked"
    sent = [params(k) | {steps: torch.tensor(count)} for k, count in enumerate((3, 8, 8))]
    merged = merge(params(9), [update(k, one, 10, merge) for k, one in enumerate(sent)], NETWORK)
    assert merged[steps].dtype == torch.int64
    assert merged[steps].item() == 3


@every_merge
def test_a_merge_holds_few_updates_at_a_time(name: str, tmp_path: Path, monkeypatch) -> None:
    merge, sites = registry.load("merges", name)(), 12
    updates = []
    for k in range(sites):
        sent = update(k, params(k), 10, merge)
        assert sent.blob is not None
        updates.append(Update.of(sent.header(), sent.blob.write(tmp_path / f"{k}.safetensors")))
    one = sum(value.nbytes for value in (*updates[0].params.values(), *updates[0].statistics.values()))
    held = Held()
    monkeypatch.setattr(coordinatewise, "ENTRIES", 64)
    monkeypatch.setattr(average, "WINDOW_BYTES", one)
    monkeypatch.setattr(Blob, "open", held.counted(Blob.open))
    monkeypatch.setattr(Blob, "rows", held.counted(Blob.rows))
    merged = merge(params(9), updates, NETWORK)
    assert merged.keys() == params(9).keys()
    assert held.opened >= sites, "what was counted is what is used"
    assert held.most <= 3 * one


class Held:
    """Bytes of tensors that were read and are still alive."""

    def __init__(self) -> None:
        self.now = self.most = self.opened = 0

    def counted(self, read):
        def reading(*args):
            found = read(*args)
            self.opened += 1
            for value in found.values() if isinstance(found, dict) else [found]:
                self.now += value.nbytes
                weakref.finalize(value, self._gone, value.nbytes)
            self.most = max(self.most, self.now)
            return found

        return reading

    def _gone(self, size: int) -> None:
        self.now -= size


@every_merge
def test_every_merge_describes_itself(name: str) -> None:
    assert registry.describe("merges")[name].endswith(".")


def test_the_mean_knows_no_weights() -> None:
    one, other = {"w": torch.tensor([1.0])}, {"w": torch.tensor([5.0])}
    updates = [update(1, one, examples=0), update(2, other, examples=2)]  # 1 and 3 examples
    assert Mean()(one, updates, NETWORK)["w"].item() == 3
    assert WeightedMean()(one, updates, NETWORK)["w"].item() == 4
