"""Gradients that are applied site by site end with the bits of those that are applied together.

Fused updates may round otherwise.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
import torch
from torch import Tensor

from sheaf.training.cpu_graph import CpuGraphFunction
from sheaf.training.fused_update import FUSED
from sheaf.training.replay import Replay
from sheaf.training.update_by_site import LEAST_BYTES, PRODUCT

SITES, EXAMPLES, INPUTS, OUTPUTS = 3, 5, 784, 128


def stepper(
    momentum: float, *, returns_gradient: bool = False, clears_input: bool = False
) -> tuple[Tensor, Callable[..., tuple[Tensor, ...]], Callable[[], Sequence[Tensor]]]:
    """Return the weights of a stack of linear layers, and a step of SGD on them and on their biases.

    The last function returns the tensors that the step changes.
    """
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

    def changed() -> list[Tensor]:
        moments = [own.get("momentum_buffer") for own in optimizer.state.values()]
        return [weight, bias, *(each for each in moments if each is not None)]

    return weight, step, changed


def batches(count: int) -> list[tuple[Tensor, Tensor]]:
    draws = torch.Generator().manual_seed(1)
    return [
        (
            torch.randn(SITES, EXAMPLES, INPUTS, generator=draws),
            torch.randn(SITES, EXAMPLES, OUTPUTS, generator=draws),
        )
        for _ in range(count)
    ]


def fused_updates(repeated: CpuGraphFunction) -> int:
    (replay,) = repeated._by_shapes.values()
    assert isinstance(replay, Replay)
    return sum(each.operator is FUSED for each in replay._operations)


def products_of_one_site(repeated: CpuGraphFunction) -> int:
    """Count the recorded products of one site's gradient."""
    (replay,) = repeated._by_shapes.values()
    assert isinstance(replay, Replay)
    shape = (1, INPUTS, OUTPUTS)
    return sum(each.operator is PRODUCT and each.results.shape == shape for each in replay._operations)


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_bits_are_those_of_one_step_for_all_sites(momentum: float) -> None:
    plain, step, _ = stepper(momentum)
    recorded, *function = stepper(momentum)
    repeated = CpuGraphFunction(*function)
    for x, y in batches(6):
        assert torch.equal(step(x, y)[0], repeated(x, y)[0])
    assert torch.equal(plain, recorded)
    assert products_of_one_site(repeated) == SITES


def test_a_fused_step_differs_by_rounding() -> None:
    plain, step, _ = stepper(0.0)
    recorded, *function = stepper(0.0)
    repeated = CpuGraphFunction(*function, exact=False)
    for x, y in batches(6):
        torch.testing.assert_close(repeated(x, y)[0], step(x, y)[0])
    torch.testing.assert_close(recorded, plain, rtol=0, atol=1e-6)
    assert fused_updates(repeated) == 1
    assert products_of_one_site(repeated) == 0


@pytest.mark.parametrize(
    ("momentum", "options"),
    [(0.9, {}), (0.0, {"returns_gradient": True}), (0.0, {"clears_input": True})],
)
def test_only_plain_steps_are_fused(momentum: float, options: dict[str, bool]) -> None:
    plain, step, _ = stepper(momentum, **options)
    recorded, *function = stepper(momentum, **options)
    repeated = CpuGraphFunction(*function, exact=False)
    for x, y in batches(4):
        assert torch.equal(step(x, y)[0], repeated(x, y)[0])
    assert torch.equal(plain, recorded)
    assert fused_updates(repeated) == 0


def test_a_gradient_that_is_read_after_the_step_is_computed_for_all_sites() -> None:
    _, step, _ = stepper(0.0, returns_gradient=True)
    _, *function = stepper(0.0, returns_gradient=True)
    repeated = CpuGraphFunction(*function)
    for x, y in batches(6):
        for plain, recorded in zip(step(x, y), repeated(x, y), strict=True):
            assert torch.equal(plain, recorded)
    assert products_of_one_site(repeated) == 0


def test_a_product_whose_input_changes_before_the_step_stays_where_it_is() -> None:
    plain, step, _ = stepper(0.0, clears_input=True)
    recorded, *function = stepper(0.0, clears_input=True)
    repeated = CpuGraphFunction(*function)
    for x, y in batches(6):
        assert torch.equal(step(x, y)[0], repeated(x, y)[0])
    assert torch.equal(plain, recorded)
    assert products_of_one_site(repeated) == 0
