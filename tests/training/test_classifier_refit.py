"""Refitting the classifier is training a linear layer on the features, and touches nothing else."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from sklearn.linear_model import Ridge as SklearnRidge
from torch import nn
from torch.nn import functional as F

from sheaf.core.dataset import Samples
from sheaf.core.recipe import Recipe, Ridge
from sheaf.core.seeds import generator
from sheaf.training import classifier_refit
from sheaf.training.one_site import train_model
from sheaf.training.preparation import Preparation

PREPARE = Preparation((0.4,), (0.2,), torch.device("cpu"))
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
    losses = classifier_refit.refit(model, model[5], samples(), RECIPE, PREPARE, 3)
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
    as_it_is = Preparation((0.0,), (1.0,), torch.device("cpu"))
    expected = train_model(alone, Samples.of(features[:, None, None], data.labels), RECIPE, as_it_is, 3)
    losses = classifier_refit.refit(model, model[5], data, RECIPE, PREPARE, 3)
    assert losses == pytest.approx(expected, rel=1e-4)
    torch.testing.assert_close(model[5].weight, alone[1].weight, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(model[5].bias, alone[1].bias, rtol=1e-3, atol=1e-4)


def test_it_depends_on_its_seed_alone() -> None:
    def refitted(seed: int, global_seed: int) -> torch.Tensor:
        torch.manual_seed(global_seed)
        model = network()
        classifier_refit.refit(model, model[5], samples(), RECIPE, PREPARE, seed)
        return model[5].weight.detach()

    assert torch.equal(refitted(3, 1), refitted(3, 2))
    assert not torch.equal(refitted(3, 1), refitted(4, 1))


def test_the_network_trains_on_afterwards() -> None:
    model = network()
    classifier_refit.refit(model, model[5], samples(), RECIPE, PREPARE, 3)
    before = model[0].weight.detach().clone()
    train_model(model, samples(), Recipe(), PREPARE, 3)
    assert not torch.equal(model[0].weight, before)
    assert not model[5]._forward_pre_hooks


def test_augmentation_of_features_changes_nothing() -> None:
    plain, augmented = network(), network()
    augment = Recipe(epochs=1, batch_size=16, augment=("crop", "flip"))
    classifier_refit.refit(plain, plain[5], samples(), Recipe(epochs=1, batch_size=16), PREPARE, 3)
    classifier_refit.refit(augmented, augmented[5], samples(), augment, PREPARE, 3)
    assert torch.equal(plain[5].weight, augmented[5].weight)


def features_of(model: Any, data: Samples) -> torch.Tensor:
    with torch.no_grad():
        return model[:5].eval()(PREPARE(data.inputs[data.positions]))


def test_ridge_regression_is_scikit_learns() -> None:
    model, data = network(), samples()
    features = features_of(model, data).double()
    centred = features - features.mean(0)
    # Ridge here weighs against F^T F of the features as they are; scikit-learn is told the same number.
    weighs = 0.01 * (features**2).sum(0).mean().item()
    by_sklearn = SklearnRidge(alpha=weighs).fit(centred.numpy(), F.one_hot(data.labels).numpy())
    classifier_refit.refit_by_ridge(model, model[5], data, Ridge(ridge=0.01, rescale=False), PREPARE)
    expected = torch.from_numpy(by_sklearn.coef_).float()
    torch.testing.assert_close(model[5].weight.detach(), expected, rtol=1e-3, atol=1e-5)
    logits = model[5](features.float()).detach()
    foreseen = torch.from_numpy(by_sklearn.predict(centred.numpy())).float()
    torch.testing.assert_close(logits, foreseen, rtol=1e-3, atol=1e-4)


def test_rescaled_ridge_decides_alike_with_less_loss() -> None:
    data = samples()
    small, scaled = network(), network()
    classifier_refit.refit_by_ridge(small, small[5], data, Ridge(rescale=False), PREPARE)
    classifier_refit.refit_by_ridge(scaled, scaled[5], data, Ridge(), PREPARE)
    one, other = (model[5](features_of(model, data)).detach() for model in (small, scaled))
    assert torch.equal(one.argmax(1), other.argmax(1))
    loss = F.cross_entropy(other, data.labels)
    assert loss < F.cross_entropy(one, data.labels)
    for nearby in (0.98, 1.02):
        assert F.cross_entropy(nearby * other, data.labels) >= loss - 1e-6, "no better scale is near"


def test_ridge_leaves_rows_of_absent_classes_and_the_rest_of_the_network() -> None:
    model, data = network(), samples()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    classifier_refit.refit_by_ridge(model, model[5], data.select(data.labels < 2), Ridge(), PREPARE)
    after = model.state_dict()
    assert {name for name in before if not torch.equal(before[name], after[name])} == {"5.weight", "5.bias"}
    assert torch.equal(after["5.weight"][2], before["5.weight"][2])
    assert torch.equal(after["5.bias"][2], before["5.bias"][2])


def test_ridge_does_not_mind_features_that_are_never_on() -> None:
    model, data = network(), samples()
    with torch.no_grad():
        model[3].weight[2:] = 0
        model[3].bias[2:] = 0
    classifier_refit.refit_by_ridge(model, model[5], data, Ridge(ridge=1e-12), PREPARE)
    assert torch.isfinite(model[5].weight).all()
