"""Gradients that are applied site by site end with the bits of those that are applied together."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from sheaf.training.cpu_graph import CpuGraphFunction
from sheaf.training.replay import Replay
from sheaf.training.update_by_site import LEAST_BYTES, PRODUCT

SITES, EXAMPLES, INPUTS, OUTPUTS = 3, 5, 784, 128


def stepper(
    momentum: float, *, returns_gradient: bool = False, clears_input: bool = False
) -> tuple[Tensor, Callable[..., tuple[Tensor, ...]]]:
    """Return the weights of a stack of linear layers, and a step of SGD on them and on their biases."""
    draws = torch.Generator().manual_seed(0)
    weight = torch.randn(SITES, INPUTS, OUTPUTS, generator=draws).requires_grad_()
    bias = torch.zeros(SITES, 1, OUTPUTS).requires_grad_()
    assert weight.nbytes > LEAST_BYTES
    optimizer = torch.optim.SGD([weight, bias], lr=0.1, momentum=momentum, fused=True)

    def step(x: Tensor, y: Tensor) -> tuple[Tensor, ...]:
        read = x.clone()  # by the product that computes the gradient
        losses = (torch.bmm(read, weight) + bias - y).square().mean((1, 2))
        weight.grad, bias.grad = torch.autograd.grad(losses.sum(), [weight, bias])
        if clears_input:
            read.zero_()
        optimizer.step()
        return (losses.detach(), weight.grad) if returns_gradient else (losses.detach(),)

    return weight, step


def batches(count: int) -> list[tuple[Tensor, Tensor]]:
    draws = torch.Generator().manual_seed(1)
    return [
        (
            torch.randn(SITES, EXAMPLES, INPUTS, generator=draws),
            torch.randn(SITES, EXAMPLES, OUTPUTS, generator=draws),
        )
        for _ in range(count)
    ]


def products_of_one_site(repeated: CpuGraphFunction) -> int:
    """Count the recorded products of one site's gradient."""
    (replay,) = repeated._by_shapes.values()
    assert isinstance(replay, Replay)
    shape = (1, INPUTS, OUTPUTS)
    return sum(each.operator is PRODUCT and each.results.shape == shape for each in replay._operations)


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_bits_are_those_of_one_step_for_all_sites(momentum: float) -> None:
    plain, step = stepper(momentum)
    recorded, function = stepper(momentum)
    repeated = CpuGraphFunction(function)
    for x, y in batches(6):
        assert torch.equal(step(x, y)[0], repeated(x, y)[0])
    assert torch.equal(plain, recorded)
    assert products_of_one_site(repeated) == SITES


def test_a_gradient_that_is_read_after_the_step_is_computed_for_all_sites() -> None:
    _, step = stepper(0.0, returns_gradient=True)
    _, function = stepper(0.0, returns_gradient=True)
    repeated = CpuGraphFunction(function)
    for x, y in batches(6):
        for plain, recorded in zip(step(x, y), repeated(x, y), strict=True):
            assert torch.equal(plain, recorded)
    assert products_of_one_site(repeated) == 0


def test_a_product_whose_input_changes_before_the_step_stays_where_it_is() -> None:
    plain, step = stepper(0.0, clears_input=True)
    recorded, function = stepper(0.0, clears_input=True)
    repeated = CpuGraphFunction(function)
    for x, y in batches(6):
        assert torch.equal(step(x, y)[0], repeated(x, y)[0])
    assert torch.equal(plain, recorded)
    assert products_of_one_site(repeated) == 0
