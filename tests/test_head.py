"""Refitting the classifier is training a linear layer on the features, and touches nothing else."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from sheaf import head, training
from sheaf.seeds import generator
from sheaf.types import Recipe, Samples

PREPARE = training.Preparation((0.4,), (0.2,), torch.device("cpu"))
RECIPE = Recipe(epochs=4, batch_size=16, lr=0.01)


def samples() -> Samples:
    """700 examples, more than one batch of an evaluation, and not in order."""
    draws = generator(8)
    labels = torch.arange(700) % 3
    inputs = torch.randint(60, (700, 1, 8, 8), generator=draws, dtype=torch.uint8)
    inputs[torch.arange(700), 0, labels] += 150  # a bright row tells the class
    return Samples.of(inputs, labels).select(torch.randperm(700, generator=draws))


def network() -> Any:
    model = nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(144, 6), nn.Dropout(), nn.Linear(6, 3)
    )
    draws = generator(1)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.2, generator=draws)
    return model


def test_only_the_classifier_changes() -> None:
    model = network()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    losses = head.refit(model, model[5], samples(), RECIPE, PREPARE, 3)
    changed = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == {"5.weight", "5.bias"}
    assert len(losses) == 4
    assert losses[-1] < 0.9 * losses[0]


def test_it_is_a_linear_layer_trained_on_the_features() -> None:
    model, data = network(), samples()
    prepared = PREPARE(data.inputs[data.positions])
    with torch.no_grad():
        features = model[:5].eval()(prepared)
    alone = nn.Sequential(nn.Flatten(), nn.Linear(6, 3))
    alone[1].load_state_dict(model[5].state_dict())
    as_it_is = training.Preparation((0.0,), (1.0,), torch.device("cpu"))
    expected = training.train(alone, Samples.of(features[:, None, None], data.labels), RECIPE, as_it_is, 3)
    losses = head.refit(model, model[5], data, RECIPE, PREPARE, 3)
    assert losses == pytest.approx(expected, rel=1e-4)
    torch.testing.assert_close(model[5].weight, alone[1].weight, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(model[5].bias, alone[1].bias, rtol=1e-3, atol=1e-4)


def test_it_depends_on_its_seed_alone() -> None:
    def refitted(seed: int, global_seed: int) -> torch.Tensor:
        torch.manual_seed(global_seed)
        model = network()
        head.refit(model, model[5], samples(), RECIPE, PREPARE, seed)
        return model[5].weight.detach()

    assert torch.equal(refitted(3, 1), refitted(3, 2))
    assert not torch.equal(refitted(3, 1), refitted(4, 1))


def test_the_network_trains_on_afterwards() -> None:
    model = network()
    head.refit(model, model[5], samples(), RECIPE, PREPARE, 3)
    before = model[0].weight.detach().clone()
    training.train(model, samples(), Recipe(), PREPARE, 3)
    assert not torch.equal(model[0].weight, before)
    assert not model[5]._forward_pre_hooks


def test_augmentation_of_features_changes_nothing() -> None:
    plain, augmented = network(), network()
    augment = Recipe(epochs=1, batch_size=16, augment=("crop", "flip"))
    head.refit(plain, plain[5], samples(), Recipe(epochs=1, batch_size=16), PREPARE, 3)
    head.refit(augmented, augmented[5], samples(), augment, PREPARE, 3)
    assert torch.equal(plain[5].weight, augmented[5].weight)
