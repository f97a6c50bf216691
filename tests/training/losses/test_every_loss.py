"""Every loss serves every way of training; each one's formula."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from striped_digits import PREPARE, K, linear, samples
from torch import Tensor, nn
from torch.nn import functional as F
from toy_training import assert_alike, both, convolutional, parts

from sheaf.core import registry
from sheaf.core.dataset import Samples
from sheaf.core.recipe import Recipe
from sheaf.core.seeds import generator
from sheaf.core.settings import parse, plain
from sheaf.training.losses.cross_entropy import CrossEntropy
from sheaf.training.losses.distillation import Distillation
from sheaf.training.losses.proximal import Proximal
from sheaf.training.losses.restricted_softmax import RestrictedSoftmax
from sheaf.training.one_site import train_model
from sheaf.training.step import PADDING, LossContext

LOGITS = torch.tensor([[1.0, -2.0, 3.0, 0.5], [0.0, 4.0, -1.0, 2.0]])
CONTEXT = LossContext(
    torch.tensor([True, False, True, False]), {"w": torch.tensor([3.0, 1.0])}, {"w": torch.tensor([1.0, 1.0])}
)
every_loss = pytest.mark.parametrize("name", registry.describe("losses"))


@every_loss
def test_a_recipe_names_it_and_travels_as_json(name: str) -> None:
    recipe = Recipe(loss=name)
    assert type(recipe.loss) is registry.load("losses", name)
    assert parse(Recipe, plain(recipe)) == recipe
    assert hash(recipe) == hash(replace(recipe))


@every_loss
def test_padding_does_not_count(name: str) -> None:
    loss = Recipe(loss=name).loss
    padded = torch.cat([LOGITS, torch.full((3, 4), 7.0)])
    labels = torch.tensor([2, 0])
    assert torch.equal(
        loss(padded, F.pad(labels, (0, 3), value=PADDING), CONTEXT), loss(LOGITS, labels, CONTEXT)
    )


@every_loss
@pytest.mark.parametrize("make", [linear, convolutional])
@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_sites_in_a_stack_and_one_by_one_end_alike(name: str, make, optimizer: str) -> None:
    sizes = (40, 40, 40) if make is convolutional else (37, 50, 17, 8, 33)
    own = [without_class(samples, site % K) for site, samples in enumerate(parts(sizes, (1, 8, 8)))]
    if make is convolutional:  # batch norm: equal numbers
        own = [samples.select(torch.arange(min(map(len, own)))) for samples in own]
    recipe = Recipe(epochs=3, batch_size=8, lr=0.02, optimizer=optimizer, loss=name)
    assert_alike(*both(make(), own, recipe, torch.float64), 1e-9)


def without_class(samples: Samples, label: int) -> Samples:
    return samples.select(samples.labels != label)


def test_cross_entropy() -> None:
    labels = torch.tensor([2, 1])
    expected = -LOGITS.log_softmax(1)[[0, 1], labels].mean()
    torch.testing.assert_close(CrossEntropy()(LOGITS, labels, LossContext()), expected)


def test_a_restricted_softmax_scales_the_logits_of_absent_classes() -> None:
    labels = torch.tensor([2, 0])
    for alpha in (0.0, 0.5, 1.0):
        expected = F.cross_entropy(LOGITS * torch.tensor([1.0, alpha, 1.0, alpha]), labels)
        assert torch.equal(RestrictedSoftmax(alpha=alpha)(LOGITS, labels, CONTEXT), expected)


def test_a_masked_softmax_is_that_over_the_present_classes() -> None:
    expected = F.cross_entropy(LOGITS[:, [0, 2]], torch.tensor([1, 0]))
    masked = RestrictedSoftmax(alpha="mask")(LOGITS, torch.tensor([2, 0]), CONTEXT)
    torch.testing.assert_close(masked, expected)


@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0, "mask"])
def test_a_smaller_alpha_changes_absent_rows_of_the_classifier_less(alpha: float | str) -> None:
    inputs = torch.randint(256, (40, 1, 4, 4), generator=generator(3), dtype=torch.uint8)
    data = Samples.of(inputs, torch.arange(40) % 2)  # of four classes
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 4))
    nn.init.normal_(model[1].weight, generator=generator(1))
    before = model[1].weight.detach().clone()
    loss = RestrictedSoftmax(alpha=alpha)  # type: ignore[arg-type]
    train_model(model, data, Recipe(optimizer="sgd", lr=0.1, loss=loss), PREPARE, 5)
    moved = (model[1].weight - before).abs().sum(1)
    assert (moved[:2] > 0).all()
    assert (moved[2:] == 0).all() == (alpha in (0.0, "mask"))


def test_the_proximal_term() -> None:
    labels = torch.tensor([2, 0])
    expected = F.cross_entropy(LOGITS, labels) + 0.5 / 2 * 4.0  # ||(3, 1) - (1, 1)||^2
    torch.testing.assert_close(Proximal(mu=0.5)(LOGITS, labels, CONTEXT), expected)


def distance(mu: float) -> float:
    """How far training moves the weights from their start."""
    model = linear()
    before: dict[str, Tensor] = {name: value.clone() for name, value in model.state_dict().items()}
    recipe = Recipe(epochs=5, batch_size=10, optimizer="sgd", lr=0.1, loss=Proximal(mu=mu))
    train_model(model, samples(), recipe, PREPARE, 3)
    return sum(float((value - before[name]).square().sum()) for name, value in model.state_dict().items())


def test_a_larger_mu_keeps_the_weights_nearer_to_their_start() -> None:
    assert distance(1e-9) > 1.5 * distance(0.5) > 0


@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_distillation_is_the_divergence_from_the_teacher(temperature: float) -> None:
    teacher = torch.tensor([[0.0, 0.0, 1.0, 5.0], [2.0, 1.0, 0.0, -1.0], [1.0, 1.0, 1.0, 1.0]])
    rows = torch.tensor([2, 0])
    p, log_q = (teacher[rows] / temperature).softmax(1), (LOGITS / temperature).log_softmax(1)
    expected = temperature**2 * (p * (p.log() - log_q)).sum(1).mean()
    context = LossContext(constants={"teacher": teacher})
    loss = Distillation(temperature=temperature)
    torch.testing.assert_close(loss(LOGITS, rows, context), expected)
    padded = torch.cat([LOGITS, torch.ones(2, 4)])
    assert torch.equal(loss(padded, F.pad(rows, (0, 2), value=PADDING), context), loss(LOGITS, rows, context))
