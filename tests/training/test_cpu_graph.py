"""What is replayed is what the function would have returned, or it is not replayed."""

from __future__ import annotations

import importlib
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.nn import functional as F

import sheaf.training
from sheaf.training import cpu_graph
from sheaf.training.cpu_graph import CpuGraphFunction, Recordings
from sheaf.training.replay import Replay


def replays(repeated: CpuGraphFunction) -> bool:
    return all(isinstance(known, Replay) for known in repeated._by_shapes.values())


def recorded(model: nn.Module, sites: int = 0) -> CpuGraphFunction:
    return CpuGraphFunction(*stepper(model, sites))


def stepper(model: nn.Module, sites: int = 0):
    """Return a step of a network or a stack of them, and a function that returns the tensors it changes.

    The step returns losses, gradients and buffers.
    """
    leaves = {
        name: (torch.stack([value] * sites) if sites else value).detach().clone().requires_grad_()
        for name, value in model.named_parameters()
    }
    others = {
        name: torch.stack([value] * sites) if sites else value.clone()
        for name, value in model.named_buffers()
    }

    def loss(leaves: dict[str, Tensor], others: dict[str, Tensor], x: Tensor, labels: Tensor) -> Tensor:
        return F.cross_entropy(functional_call(model, (leaves, others), (x,)), labels)

    def step(x: Tensor, labels: Tensor) -> tuple[Tensor, ...]:
        losses = (vmap(loss) if sites else loss)(leaves, others, x, labels)
        found = torch.autograd.grad(losses.sum(), list(leaves.values()))
        with torch.no_grad():
            for leaf, gradient in zip(leaves.values(), found, strict=True):
                leaf.sub_(gradient, alpha=0.1)
        return losses.detach(), *found, *(value.clone() for value in others.values())

    return step, lambda: [*leaves.values(), *others.values()]


def linear() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.ReLU(inplace=True), nn.Linear(16, 4))


def convolutional() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 6, 3, bias=False),
        nn.BatchNorm2d(6),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Linear(24, 4),
    )


@pytest.mark.parametrize("sites", [0, 3])
@pytest.mark.parametrize("make", [linear, convolutional])
def test_a_replay_has_the_bits_of_the_function(make, sites: int) -> None:
    torch.manual_seed(0)
    model = make()
    (plain, _), repeated = stepper(model, sites), recorded(model, sites)
    for step in range(8):
        for batch in (5, 3):  # replays of two shapes side by side
            shape = (sites, batch) if sites else (batch,)
            x, labels = torch.randn(*shape, 1, 8, 8), torch.randint(4, shape)
            before = x.clone()
            for found, expected in zip(repeated(x, labels), plain(x, labels), strict=True):
                assert torch.equal(found, expected), step
            assert torch.equal(x, before)
    assert replays(repeated)


def looks(x: Tensor) -> tuple[Tensor, ...]:
    return (x * 2 if x.sum().item() > 0 else x,)


def picks(x: Tensor) -> tuple[Tensor, ...]:
    return (x[x > 0],)


def drops(x: Tensor) -> tuple[Tensor, ...]:
    return (F.dropout(x),)


def many(x: Tensor) -> tuple[Tensor, ...]:
    return (x.expand(2**22, 5).clone().sum(0, keepdim=True),)


@pytest.mark.parametrize("function", [looks, picks, drops, many])
def test_what_differs_from_call_to_call_is_not_replayed(function) -> None:
    repeated = CpuGraphFunction(function)
    for k in range(6):
        x = torch.randn(1, 5) - (k % 2)
        torch.manual_seed(k)
        (found,) = repeated(x)
        torch.manual_seed(k)
        assert torch.equal(found, function(x)[0])
    assert not replays(repeated)


def test_a_function_that_changes_its_mind_is_not_replayed() -> None:
    calls = 0

    def changes(x: Tensor) -> tuple[Tensor, ...]:
        nonlocal calls
        calls += 1
        return (x * calls,)

    repeated = CpuGraphFunction(changes)
    assert [repeated(torch.ones(1))[0].item() for _ in range(3)] == [4, 5, 6]  # after three recordings


def test_torchscript_is_as_it_was_after_replays_side_by_side() -> None:
    was = torch._C._get_graph_executor_optimize()

    def train(_: int) -> bool:
        repeated = recorded(linear())
        for _ in range(50):
            repeated(torch.ones(5, 1, 8, 8), torch.zeros(5, dtype=torch.long))
        return replays(repeated)

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(train, range(8)))
    assert torch._C._get_graph_executor_optimize() == was


def test_without_a_private_part_of_torch_the_function_is_called_as_it_is(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """If this fails with a new torch, the parts named in ``cpu_graph``'s docstring have changed."""
    assert replays(used(recorded(linear())))
    monkeypatch.delattr(torch._C, "_create_function_from_graph")
    cpu_graph._log_once.cache_clear()
    with caplog.at_level("INFO", "sheaf"):
        assert not replays(used(recorded(linear())))
    assert "training steps are not recorded" in caplog.text


def test_a_missing_import_leaves_the_function_as_it_is(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "torch._ops", None)  # importing from it fails
    for name in ("operation", "update_by_site", "fused_update", "replay", "cpu_graph"):
        monkeypatch.delattr(sheaf.training, name)
        monkeypatch.delitem(sys.modules, f"sheaf.training.{name}")
    other = importlib.import_module("sheaf.training.cpu_graph")
    function = other.CpuGraphFunction(*stepper(linear()))
    with caplog.at_level("INFO", "sheaf"):
        assert len(function(torch.ones(5, 1, 8, 8), torch.zeros(5, dtype=torch.int64))) > 1
    assert "training steps are not recorded: import of torch._ops halted" in caplog.text


def used(function: CpuGraphFunction) -> CpuGraphFunction:
    for _ in range(5):
        function(torch.ones(5, 1, 8, 8), torch.zeros(5, dtype=torch.int64))
    return function


def test_numbers_as_tensors_are_constants() -> None:
    """``sum`` starts from the number 0, which ``vmap`` makes a tensor of."""

    def total(x: Tensor) -> tuple[Tensor, ...]:
        return (vmap(lambda row: sum(value * 2 for value in row.unbind()))(x),)

    function = CpuGraphFunction(total)
    for k in range(6):
        assert torch.equal(function(torch.full((3, 2), float(k)))[0], torch.full((3,), 4.0 * k))
    assert replays(function)


def test_an_ambiguous_overload_is_not_replayed() -> None:
    """TorchScript takes ``max(x, out)`` for the element-wise maximum."""
    repeated = CpuGraphFunction(lambda x: (x.max(), x * x.max()))
    for _ in range(4):
        x = torch.randn(3, 4)
        largest, product = repeated(x)
        assert torch.equal(largest, x.max())
        assert torch.equal(product, x * x.max())
    assert not replays(repeated)


def test_a_number_is_taken_for_a_tensor() -> None:
    repeated = CpuGraphFunction(lambda x: (x + 1, x * 2))
    for _ in range(4):
        x = torch.randn(3, 4)
        assert all(map(torch.equal, repeated(x), (x + 1, x * 2)))
    assert replays(repeated)


def test_a_recording_serves_other_memory() -> None:
    """The second function replays the first one's recording on its own parameters and buffers."""
    recordings, model = Recordings(), convolutional()
    (plain, expected), (_, own) = stepper(model, 3), stepper(model, 3)
    x, labels = torch.randn(3, 5, 1, 8, 8), torch.randint(4, (3, 5))
    other = CpuGraphFunction(*stepper(model, 3), recordings=recordings)
    for _ in range(2):  # the parameters of both differ from now on
        other(x, labels)

    def must_not_run(*inputs: Tensor) -> tuple[Tensor, ...]:
        raise AssertionError("recorded again")

    shared = CpuGraphFunction(must_not_run, own, recordings=recordings)
    for _ in range(3):
        for found, wanted in zip(shared(x, labels), plain(x, labels), strict=True):
            assert torch.equal(found, wanted)
    assert all(map(torch.equal, own(), expected()))
