"""A classifier fitted to moments is the one that is fitted to the samples."""

from __future__ import annotations

from typing import Any, Literal

import pytest
import torch
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from torch import nn

from sheaf.core.dataset import Samples
from sheaf.core.privacy import noise_for
from sheaf.core.recipe import FromStatistics, Privacy, Recipe, Ridge
from sheaf.core.seeds import generator
from sheaf.training import class_moments, classifier_from_moments
from sheaf.training.class_moments import ClassMoments
from sheaf.training.classifier_refit import refit_by_ridge
from sheaf.training.evaluation import forward
from sheaf.training.preparation import Preparation

K, WIDTH = 3, 6
PREPARE = Preparation((0.0,), (1.0,), torch.device("cpu"))


def network() -> Any:
    model = nn.Sequential(nn.Flatten(), nn.Linear(WIDTH, K))
    draws = generator(1)
    for parameter in model.parameters():
        nn.init.normal_(parameter, generator=draws)
    return model


def samples(count: int = 300, classes: int = K) -> Samples:
    """Correlated features, and classes of unequal size."""
    draws = generator(3)
    labels = (torch.arange(count) % 7).clamp(max=classes - 1)
    mixed = torch.randn(count, WIDTH, generator=draws) @ torch.randn(WIDTH, WIDTH, generator=draws)
    mixed[torch.arange(count), labels] += 4
    return Samples.of(mixed.reshape(count, 1, 1, WIDTH), labels)


def fitted(how: FromStatistics, data: Samples) -> Any:
    model = network()
    moments = ClassMoments.of(class_moments.compute(model, model[1], data, PREPARE, None, b""))
    classifier_from_moments.fit(model[1], moments, how, PREPARE, 5)
    return model[1]


@pytest.mark.parametrize("shrinkage", [0.0, 0.1, 1.0])
def test_lda_is_that_of_scikit_learn(shrinkage: float) -> None:
    data = samples()
    last = fitted(FromStatistics(statistics="lda", shrinkage=shrinkage), data)
    theirs = LinearDiscriminantAnalysis(solver="lsqr", shrinkage=shrinkage)
    theirs.fit(data.inputs.reshape(-1, WIDTH).double().numpy(), data.labels.numpy())
    torch.testing.assert_close(last.weight.double(), torch.from_numpy(theirs.coef_), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(last.bias.double(), torch.from_numpy(theirs.intercept_), rtol=1e-5, atol=1e-6)


def test_ridge_is_that_of_the_samples() -> None:
    data, model = samples(), network()
    refit_by_ridge(model, model[1], data, Ridge(ridge=0.01, rescale=False), PREPARE)
    last = fitted(FromStatistics(statistics="ridge", ridge=0.01), data)
    torch.testing.assert_close(last.weight, model[1].weight)
    torch.testing.assert_close(last.bias, model[1].bias)


@pytest.mark.parametrize("statistics", ["lda", "ridge", "gaussian"])
def test_a_class_without_examples_keeps_its_row(statistics: Literal["lda", "ridge", "gaussian"]) -> None:
    last = fitted(FromStatistics(statistics=statistics, train=Recipe(epochs=0)), samples(classes=2))
    same = (last.weight == network()[1].weight).all(1)
    assert bool(same[2])
    assert last.bias[2] == network()[1].bias[2]


def test_training_on_drawn_features_learns_the_classes() -> None:
    data = samples()
    train = Recipe(epochs=40, lr=0.05)
    how = FromStatistics(statistics="gaussian", shrinkage=0.0, draws=200, train=train)
    accuracies = {}
    for name, last in (("start", network()[1]), ("fitted", fitted(how, data))):
        logits = forward(nn.Sequential(nn.Flatten(), last), data, PREPARE)
        accuracies[name] = (logits.argmax(1) == data.labels).double().mean().item()
    bayes = fitted(FromStatistics(statistics="lda", shrinkage=0.0), data)
    logits = forward(nn.Sequential(nn.Flatten(), bayes), data, PREPARE)
    best = (logits.argmax(1) == data.labels).double().mean().item()
    assert accuracies["start"] < best - 0.2
    assert accuracies["fitted"] > best - 0.03


def test_it_depends_on_its_seed_alone() -> None:
    how = FromStatistics(statistics="gaussian", draws=50)
    assert torch.equal(fitted(how, samples()).weight, fitted(how, samples()).weight)


def test_with_little_noise_the_classifier_of_directions_is_as_accurate() -> None:
    """Features far above the clip: their directions are fitted, and the weights serve unclipped features."""
    data, model = samples(3000), network()
    data = Samples.of(data.inputs * 100, data.labels)
    how = FromStatistics(statistics="lda", privacy=Privacy(epsilon=100.0))
    sent = class_moments.compute(model, model[1], data, PREPARE, noise_for(how.privacy, 1), b"key")
    accuracies = {}
    for name, last in (("exact", fitted(FromStatistics(statistics="lda"), data)), ("noised", model[1])):
        if name == "noised":
            classifier_from_moments.fit(last, ClassMoments.of(sent), how, PREPARE, 5)
        logits = forward(nn.Sequential(nn.Flatten(), last), data, PREPARE)
        accuracies[name] = (logits.argmax(1) == data.labels).double().mean().item()
    assert accuracies["noised"] > accuracies["exact"] - 0.1
    assert accuracies["noised"] > 0.75
