"""On a GPU: a captured function does what it does uncaptured, and so does what is trained by it."""

from __future__ import annotations

import pytest
import torch
import toys
from torch import Tensor, nn
from toy_training import train_stacked

from sheaf.core.dataset import Samples
from sheaf.core.recipe import Recipe
from sheaf.core.seeds import generator
from sheaf.training import loop
from sheaf.training.batches import Job
from sheaf.training.cuda_graph import WARM_UPS, CudaGraphFunction
from sheaf.training.one_site import train_model
from sheaf.training.preparation import Preparation

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA here")
GPU = torch.device("cuda")


@pytest.fixture(autouse=True)
def same_kernels_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a run."""
    monkeypatch.setattr(torch.backends.cudnn, "deterministic", True)


def network() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(288, 16), nn.Linear(16, 4)
    )


def samples(count: int = 90) -> Samples:
    inputs = torch.randint(256, (count, 1, 8, 8), generator=generator(2), dtype=torch.uint8)
    return Samples.of(inputs, torch.arange(count) % 4)


def test_it_does_the_same_for_every_shape_and_call() -> None:
    weight = torch.ones(3, device=GPU)

    def function(x: Tensor) -> tuple[Tensor, ...]:
        weight.add_(1)
        return (x * weight).sum(1), x.mean()

    captured, expected = CudaGraphFunction(function), 1.0
    for _ in range(WARM_UPS + 4):
        for n in (2, 5):
            x = torch.rand(n, 3, device=GPU)
            total, mean = captured(x)
            expected += 1
            torch.testing.assert_close(total, x.sum(1) * expected)
            torch.testing.assert_close(mean, x.mean())


def test_what_waits_for_the_gpu_is_called_as_it_is() -> None:
    def function(x: Tensor) -> tuple[Tensor, ...]:
        return (x * x.sum().item(),)

    captured = CudaGraphFunction(function)
    for k in range(WARM_UPS + 3):
        x = torch.full((2,), float(k), device=GPU)
        torch.testing.assert_close(captured(x)[0], 2.0 * k * x)


def dropping() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.Dropout(), nn.Linear(32, 4))


@pytest.mark.parametrize("make", [network, dropping])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_training_ends_with_the_bits_of_training_uncaptured(
    make, precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = Recipe(epochs=6, batch_size=8, augment=("flip",), average_last=0.3, precision=precision)
    prepare = Preparation((0.4,), (0.2,), GPU)
    ends = []
    for captured in (True, True, False):
        if not captured:
            monkeypatch.setattr(loop, "CudaGraphFunction", lambda function: function)
        model = toys.randomised(make())
        losses = train_model(model, samples(), recipe, prepare, 3)
        ends.append((losses, model.state_dict()))
    for losses, state in ends[1:]:
        assert losses == ends[0][0]
        assert all(torch.equal(value, ends[0][1][name]) for name, value in state.items())


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_stacked_sites_end_with_what_they_end_with_alone(optimizer: str) -> None:
    recipe = Recipe(epochs=6, batch_size=8, lr=0.01, optimizer=optimizer, precision="float32")
    prepare, model = Preparation((0.4,), (0.2,), GPU), toys.randomised(network())
    start = {name: value.clone() for name, value in model.state_dict().items()}
    jobs = [Job(start, samples(), seed) for seed in range(3)]
    for job, (params, losses) in zip(jobs, train_stacked(model, jobs, recipe, prepare), strict=True):
        model.load_state_dict(start)
        assert losses == pytest.approx(train_model(model, samples(), recipe, prepare, job.seed), rel=1e-3)
        for name, value in model.state_dict().items():
            torch.testing.assert_close(params[name], value.cpu(), rtol=1e-3, atol=1e-4)
