"""Successive calls in one have the bits of calls one by one."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor
from torch.nn import functional as F

from sheaf.training.cpu_graph import CpuGraphFunction
from sheaf.training.replay import Replay


def sgd(x: Tensor, labels: Tensor, weight: Tensor, moment: Tensor) -> tuple[Tensor, ...]:
    """Take a step of SGD with momentum, whose kernel writes to tensors in lists only."""
    loss = F.cross_entropy(x @ weight, labels)
    (gradient,) = torch.autograd.grad(loss, weight)
    with torch.no_grad():
        lists = [weight], [gradient], [moment]
        torch._fused_sgd_(
            *lists,
            weight_decay=0.0,
            momentum=0.9,
            lr=0.1,
            dampening=0.0,
            nesterov=False,
            maximize=False,
            is_first_step=False,
        )
    return (loss.detach(),)


def replay_of(weight: Tensor, moment: Tensor) -> Replay:
    step = CpuGraphFunction(lambda x, labels: sgd(x, labels, weight, moment))
    for _ in range(3):
        step(torch.ones(5, 8), torch.zeros(5, dtype=torch.int64))
    (replay,) = step._by_shapes.values()
    assert isinstance(replay, Replay)
    return replay


def test_successive_calls_in_one_have_the_bits_of_calls_one_by_one() -> None:
    weight, moment = torch.randn(8, 4).requires_grad_(), torch.zeros(8, 4)
    replay = replay_of(weight, moment)
    x, labels = torch.randn(7, 5, 8), torch.randint(4, (7, 5))
    start, moment_before = weight.detach().clone(), moment.clone()
    one_by_one = torch.stack([replay(*batch)[0].clone() for batch in zip(x, labels, strict=True)])
    end, moment_after = weight.detach().clone(), moment.clone()
    with torch.no_grad():
        weight.copy_(start)
        moment.copy_(moment_before)
    (losses,) = replay.successive(x, labels)
    assert len(one_by_one.unique()) == 7
    assert torch.equal(losses, one_by_one)
    assert torch.equal(weight, end)
    assert torch.equal(moment, moment_after)


def test_replays_on_several_threads_have_the_bits_of_one() -> None:
    """TorchScript's optimizer is turned off for each thread. It would drop a loop's writes into lists."""

    def train(_: int) -> Tensor:
        weight = torch.ones(8, 4).requires_grad_()
        replay = replay_of(weight, torch.zeros(8, 4))
        with torch.no_grad():
            weight.fill_(1.0)
        for _ in range(20):
            replay.successive(x, labels)
        return weight.detach()

    x, labels = torch.eye(8)[torch.arange(5)].expand(50, 5, 8), torch.arange(5).remainder(4).expand(50, 5)
    with ThreadPoolExecutor(2) as pool:
        trained = list(pool.map(train, range(4)))
    assert not torch.equal(trained[0], torch.ones(8, 4))
    assert all(torch.equal(each, trained[0]) for each in trained)
