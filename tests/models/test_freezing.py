"""What is frozen stays as it is, wherever a model is trained; the rest is trained."""

from __future__ import annotations

import pytest
import torch
import toys
from torch import nn
from toy_training import CPU, assert_alike, both, parts

from sheaf.core.dataset import Samples
from sheaf.core.errors import SettingError
from sheaf.core.recipe import Recipe
from sheaf.models.build import ModelSettings, build_skeleton
from sheaf.models.freezing import freeze, into_training, is_frozen
from sheaf.models.names import model_names
from sheaf.training.batch_norm import reestimate_statistics
from sheaf.training.one_site import train_model
from sheaf.training.preparation import Preparation


def digits_cnn(frozen: int) -> nn.Module:
    model = toys.DigitsCNN(4)
    freeze(model, frozen)
    return model


@pytest.mark.parametrize(("frozen", "stay"), [(0, []), (1, ["0", "1"]), (2, ["0", "1", "3", "4"])])
def test_the_first_convolutions_and_their_norms(frozen: int, stay: list[str]) -> None:
    model = digits_cnn(frozen)
    assert [name for name, module in model.named_children() if is_frozen(module)] == stay
    into_training(model)
    assert [name for name, module in model.named_children() if not module.training] == stay[1::2]


def test_a_linear_layer_before_them_does_not_end_it() -> None:
    layers = nn.Linear(8, 8), nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(144, 4)
    model = nn.Sequential(*layers)
    freeze(model, 1)
    assert [name for name, module in model.named_children() if is_frozen(module)] == ["0", "1", "2"]


def test_more_than_there_are() -> None:
    with pytest.raises(SettingError, match=r"model\.frozen = 3 exceeds the 2 convolutions"):
        digits_cnn(3)
    with pytest.raises(SettingError, match=r"model\.frozen = 1 leaves no parameter to train"):
        freeze(nn.Sequential(nn.Conv2d(1, 4, 8), nn.Flatten()), 1)


@pytest.mark.parametrize("name", [name for name in model_names() if name != "mlp"])
def test_every_model_can_be_frozen_in_part(name: str) -> None:
    shape = (1 if name == "kws_cnn" else 3, 64, 64)
    given = ModelSettings(name=name, frozen=2)
    model = build_skeleton(given, 5, shape)
    convolutions = [is_frozen(module) for module in model.modules() if isinstance(module, nn.Conv2d)]
    assert convolutions == [True] * 2 + [False] * (len(convolutions) - 2)
    whole = build_skeleton(ModelSettings(name=name), 5, shape)
    assert model.state_dict().keys() == whole.state_dict().keys()


@pytest.mark.parametrize("tail", [0.0, 0.5])
def test_training_and_new_statistics_leave_it(tail: float) -> None:
    model = digits_cnn(1)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    draws = torch.Generator().manual_seed(0)
    data = Samples.of(torch.rand(40, 1, 8, 8, generator=draws), torch.arange(40) % 4)
    prepare = Preparation((0.5,), (0.5,), CPU)
    train_model(model, data, Recipe(epochs=2, batch_size=8, weight_decay=0.1, average_last=tail), prepare, 3)
    reestimate_statistics(model, data, prepare)
    after = model.state_dict()
    stay = [name for name in before if torch.equal(before[name], after[name])]
    assert stay == [name for name in before if name.startswith(("0.", "1."))]


def test_a_stack_leaves_it() -> None:
    model = toys.DigitsCNN(4)
    freeze(model, 1)
    recipe = Recipe(epochs=2, batch_size=8, optimizer="adamw", weight_decay=0.1, average_last=0.5)
    assert_alike(*both(model, parts((33, 33, 33), (1, 8, 8)), recipe, torch.float64), 1e-9)
