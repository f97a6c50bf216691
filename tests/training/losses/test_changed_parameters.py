"""Losses of changed parameters, and of a linear term, against their papers' formulas."""

from __future__ import annotations

import math

import pytest
import torch
from striped_digits import PREPARE
from torch import Tensor, nn
from torch.nn import functional as F
from toy_training import CPU, parts

from sheaf.core.recipe import Recipe
from sheaf.core.seeds import generator, seed_for
from sheaf.methods.fiarse import threshold_of
from sheaf.submodels.dependency_graph import trace
from sheaf.submodels.nesting import levels
from sheaf.submodels.scheme import SiteNeeds
from sheaf.submodels.schemes.prefix import Prefix
from sheaf.training import loop
from sheaf.training.batches import Job
from sheaf.training.losses.control_variate import ControlVariate
from sheaf.training.losses.importance_mask import ImportanceMask
from sheaf.training.losses.ordered_dropout import OrderedDropout
from sheaf.training.losses.proximal import Proximal
from sheaf.training.one_site import OneSite
from sheaf.training.step import LossContext
from sheaf.training.vectorized import Stack

SHAPE = (1, 8, 8)


def network() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 6), nn.Linear(6, 4)
    )


STRUCTURE = trace(network(), SHAPE)


def start() -> dict[str, Tensor]:
    draws = generator(1)
    return {
        name: torch.randn(value.shape, generator=draws).mul(0.2) + ("running_var" in name)
        if value.is_floating_point()
        else value
        for name, value in network().state_dict().items()
    }


def train(recipe: Recipe, jobs: list[Job], stacked: bool) -> list[dict[str, Tensor]]:
    if stacked:
        trained = loop.train(Stack(network(), len(jobs), recipe, CPU), jobs, recipe, PREPARE)
    else:
        trained = [loop.train(OneSite(network(), recipe), [job], recipe, PREPARE)[0] for job in jobs]
    return [{name: value.clone() for name, value in each.params.items()} for each in trained]


def jobs(constants: list[dict[str, Tensor]]) -> list[Job]:
    samples = parts((16, 16), SHAPE)
    return [Job(start(), samples[site], 7 + site, own) for site, own in enumerate(constants)]


def step_of(samples, seed: int) -> tuple[Tensor, Tensor]:
    """Return the only mini-batch of a job."""
    order = torch.randperm(len(samples), generator=generator(seed))
    return PREPARE(samples.inputs[samples.positions[order]]), samples.labels[order]


def level_drawn(seed: int, count: int) -> int:
    """Return the level that the first step of a job draws."""
    return math.floor(torch.rand((), generator=generator(seed_for(seed, "steps"))).item() * count)


ONE_STEP = Recipe(epochs=1, batch_size=16, optimizer="sgd", lr=0.1, momentum=0.0)


@pytest.mark.parametrize("stacked", [False, True])
def test_a_step_of_ordered_dropout_is_a_step_of_the_narrower_sub_model(stacked: bool) -> None:
    """With batch norm; the other parameters stay (FjORD, section 3.1)."""
    widths = (0.25, 0.5, 1.0)
    cut = Prefix()(STRUCTURE, [SiteNeeds("a", (0,), 1.0)], 0)["a"]
    found = levels(STRUCTURE, cut, widths)
    trained = {name for name, _ in network().named_parameters()}
    own = {f"level{dim} {name}": level for (name, dim), level in found.items() if name in trained}
    seeds = [next(seed for seed in range(99) if level_drawn(seed, 3) == level) for level in (0, 1)]
    given = [
        Job(start(), samples, seed, own | {"widths": torch.tensor(3.0)})
        for samples, seed in zip(parts((16, 16), SHAPE), seeds, strict=True)
    ]
    ended = train(Recipe(**vars(ONE_STEP) | {"loss": OrderedDropout()}), given, stacked)
    for job, width, params in zip(given, widths[:2], ended, strict=True):
        narrow = STRUCTURE.submodel(Prefix()(STRUCTURE, [SiteNeeds("a", (0,), width)], 0)["a"])
        inside = Job(narrow.take(start()), job.samples, job.seed)
        (expected,) = loop.train(OneSite(narrow.module(), ONE_STEP), [inside], ONE_STEP, PREPARE)
        whole = start()
        narrow.place(whole, expected.params)
        for name in trained:
            torch.testing.assert_close(params[name], whole[name], rtol=1e-4, atol=1e-6)


def test_levels_of_a_sub_model_are_those_of_its_channels() -> None:
    cut = Prefix()(STRUCTURE, [SiteNeeds("a", (0,), 0.5)], 0)["a"]
    found = levels(STRUCTURE, cut, (0.25, 0.5))
    assert found["0.weight", 0].tolist() == [0, 1]  # two of four channels
    assert found["4.weight", 0].tolist() == [0, 0, 1]  # three of six, of which 0.25 has two
    assert found["4.weight", 1].tolist() == [0] * 36 + [1] * 36
    assert set(found["5.weight", 0].tolist()) == {0}  # classes


def bern(weights: Tensor, threshold: float) -> tuple[Tensor, Tensor]:
    """Return value and gradient of w M(w), with M' of Bern.backward in the authors' repository."""
    size = weights.abs()
    mask = (size >= threshold).float()
    slope = (2 * threshold / (size + threshold).square()).nan_to_num(0, 0, 0) * mask
    return weights * mask, mask + weights * slope * weights.sign()


def test_the_mask_of_importance_has_the_papers_value_and_gradient() -> None:
    weights = torch.tensor([-0.5, 0.1, 0.3, 0.0, 2.0, -0.29], requires_grad=True)
    for threshold in (0.3, 0.0):
        context = LossContext(constants={"threshold w": torch.tensor(threshold)})
        masked = ImportanceMask().effective({"w": weights, "other": weights}, context)
        (gradient,) = torch.autograd.grad(masked["w"].sum(), weights)
        value, slope = bern(weights.detach(), threshold)
        assert torch.equal(masked["w"].detach(), value)
        torch.testing.assert_close(gradient, slope)
        assert masked["other"] is weights


def test_the_mask_of_importance_is_that_of_fiarses_code() -> None:
    """At threshold 0.3, w.grad of (w * Bern.apply(|w|, 0.3)).sum() is printed as [1, 0, 1, 0, 1, 0].

    HarliWu/FIARSE, 281519c, with torch 2. The mask there is of type bool, through which autograd does not
    pass, so that the slope of the paper has no effect in the code. It is at most half.
    """
    weights = torch.tensor([-0.5, 0.1, 0.3, 0.0, 2.0, -0.29])
    context = LossContext(constants={"threshold w": torch.tensor(0.3)})
    masked = ImportanceMask().effective({"w": weights}, context)["w"]
    assert (masked / weights.where(weights != 0, 1)).tolist() == [1, 0, 1, 0, 1, 0]


def test_the_threshold_keeps_a_fraction_of_all_masked_parameters() -> None:
    theta = {"a": torch.tensor([[3.0, -1.0], [0.5, 2.0]]), "b": torch.tensor([4.0, -5.0, 0.1, 0.2])}
    assert threshold_of(theta, ["a", "b"], 0.5) == 2
    assert threshold_of(theta, ["a", "b"], 0.25) == 4
    assert threshold_of(theta, ["a", "b"], 1e-3) == 5
    assert threshold_of(theta, ["a", "b"], 1.0) == 0


@pytest.mark.parametrize("stacked", [False, True])
def test_a_control_variate_is_added_to_the_gradient(stacked: bool) -> None:
    """One step: theta - lr (g - c_i + c) (SCAFFOLD, algorithm 1, line 10)."""
    names = [name for name, _ in network().named_parameters()]
    shapes = start()
    draws = generator(3)
    corrections = [
        {name: torch.randn(shapes[name].shape, generator=draws) for name in names} for _ in range(2)
    ]
    given = jobs([{f"correction {name}": value for name, value in own.items()} for own in corrections])
    ended = train(Recipe(**vars(ONE_STEP) | {"loss": ControlVariate()}), given, stacked)
    for job, own, params in zip(given, corrections, ended, strict=True):
        model = network()
        model.load_state_dict(start())
        x, labels = step_of(job.samples, job.seed)
        F.cross_entropy(model.train()(x), labels).backward()
        for name, value in model.named_parameters():
            assert value.grad is not None
            expected = shapes[name] - 0.1 * (value.grad + own[name])
            torch.testing.assert_close(params[name], expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("stacked", [False, True])
def test_a_personal_model_is_drawn_to_the_anchor(stacked: bool) -> None:
    """One step: v - lr (g + lambda (v - w)) (Ditto, algorithm 1)."""
    names = [name for name, _ in network().named_parameters()]
    anchor = {name: torch.randn(start()[name].shape, generator=generator(4)) for name in names}
    given = jobs([{f"anchor {name}": value for name, value in anchor.items()}] * 2)
    ended = train(Recipe(**vars(ONE_STEP) | {"loss": Proximal(mu=0.5)}), given, stacked)
    for job, params in zip(given, ended, strict=True):
        model = network()
        model.load_state_dict(start())
        x, labels = step_of(job.samples, job.seed)
        F.cross_entropy(model.train()(x), labels).backward()
        for name, value in model.named_parameters():
            assert value.grad is not None
            expected = start()[name] - 0.1 * (value.grad + 0.5 * (start()[name] - anchor[name]))
            torch.testing.assert_close(params[name], expected, rtol=1e-4, atol=1e-6)
