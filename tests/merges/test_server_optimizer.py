"""The server's optimizer against the papers' formulas, and its state from round to round."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from sheaf.merges.server_optimizer import ServerOptimizer
from sheaf.training.network import Network

NETWORK = Network(
    nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(8, 3)), (1, 4, 4)
)
ROUNDS = 4


def params(seed: int) -> dict[str, Tensor]:
    """Return random parameters, positive variances and a counter."""
    draws = torch.Generator().manual_seed(seed)
    return {
        name: torch.rand(value.shape, generator=draws) if value.is_floating_point() else torch.tensor(seed)
        for name, value in NETWORK.model.state_dict().items()
    }


def run(server: ServerOptimizer) -> list[dict[str, Tensor]]:
    """Return theta after each round, where the edges' mean in round n is ``params(n)``."""
    theta, state = params(0), {}
    models = []
    for n in range(1, ROUNDS + 1):
        theta, state = server.step(theta, params(n), state, NETWORK)
        models.append(theta)
    return models


def trained() -> list[str]:
    return [name for name, _ in NETWORK.model.named_parameters()]


@pytest.mark.parametrize(("lr", "momentum"), [(1.0, 0.9), (0.3, 0.5), (1.0, 0.0)])
def test_fedavgm_is_the_papers_formula(lr: float, momentum: float) -> None:
    """v <- beta v + delta, w <- w - lr v, with delta = w - mean (Hsu, Qi, Brown 2019, section 4.3)."""
    models = run(ServerOptimizer(optimizer="sgd", lr=lr, momentum=momentum))
    for name in trained():
        w, v = params(0)[name].double().numpy(), 0.0
        for n, theta in enumerate(models, start=1):
            v = momentum * v + w - params(n)[name].double().numpy()
            w = w - lr * v
            np.testing.assert_allclose(theta[name], w, rtol=1e-5, atol=1e-6)


def test_fedadam_is_the_papers_formula_with_adams_bias_correction() -> None:
    """m, v of algorithm 2 (Reddi et al. 2021), divided by 1 - beta^t as in Kingma and Ba, algorithm 1."""
    lr, eps, b1, b2 = 0.05, 1e-2, 0.9, 0.99
    models = run(ServerOptimizer(optimizer="adam", lr=lr, eps=eps, betas=(b1, b2)))
    for name in trained():
        x, m, v = params(0)[name].double().numpy(), 0.0, 0.0
        for t, theta in enumerate(models, start=1):
            delta = params(t)[name].double().numpy() - x
            m, v = b1 * m + (1 - b1) * delta, b2 * v + (1 - b2) * delta**2
            x = x + lr * (m / (1 - b1**t)) / (np.sqrt(v / (1 - b2**t)) + eps)
            np.testing.assert_allclose(theta[name], x, rtol=1e-5, atol=1e-6)


def test_the_figures_of_flowers_test_of_fedavgm() -> None:
    """Two rounds of equal clients, rate 1 + 1e-9, momentum 1e-9 (flwr's fedavgm_test.py)."""
    zeros = nn.ParameterList([torch.zeros(2, 3), torch.zeros(4)])
    network = Network(zeros, (1, 1, 3))
    mean = {"0": torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]), "1": torch.tensor([7.0, 8.0, 9.0, 10.0])}
    theta, state = zeros.state_dict(), {}
    for _ in range(2):
        theta, state = ServerOptimizer(lr=1.0 + 1e-9, momentum=1e-9).step(theta, mean, state, network)
    for name, value in mean.items():
        np.testing.assert_almost_equal(theta[name].numpy(), value.numpy())


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_statistics_and_counters_are_those_of_the_mean(optimizer: str) -> None:
    for n, theta in enumerate(run(ServerOptimizer(optimizer=optimizer, lr=2.0)), start=1):  # type: ignore[arg-type]
        for name in ("1.running_mean", "1.running_var", "1.num_batches_tracked"):
            assert torch.equal(theta[name], params(n)[name])
        assert not any(value.requires_grad for value in theta.values())


def test_a_frozen_parameter_is_that_of_the_mean() -> None:
    network = Network(nn.Linear(3, 2), (1, 1, 3))
    network.model.requires_grad_(False)
    mean = {"weight": torch.rand(2, 3), "bias": torch.rand(2)}
    step = ServerOptimizer().step({"weight": torch.ones(2, 3), "bias": torch.zeros(2)}, mean, {}, network)
    assert step.state == {}
    assert all(torch.equal(step.theta[name], mean[name]) for name in mean)
