"""A model of a user that cannot be trained is refused before training, with the line of the user's code."""

import sys
import types
from collections import namedtuple

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from sheaf.core.errors import SettingError
from sheaf.models.build import ModelSettings, build_model, build_skeleton

SHAPE = (3, 6, 6)


class HardSize(nn.Module):
    def __init__(self, num_classes):
        super().__init__()
        self.f = nn.Linear(108, num_classes)

    def forward(self, x):
        assert x.shape[-1] == 32, f"Input image size ({x.shape[-1]}) doesn't match model (32)."
        return self.f(x.flatten(1))


class NoAttribute(HardSize):
    def forward(self, x):
        return self.absent(x)


class FailsInTorch(HardSize):
    def forward(self, x):
        return self.f(x)


class FailsInTraining(HardSize):
    def forward(self, x):
        return self.f(x.flatten(1)) if not self.training else self.f({}["x"])


Aux = namedtuple("Aux", ["logits", "aux"])


class AuxTuple(HardSize):
    def forward(self, x):
        logits = self.f(x.flatten(1))
        return Aux(logits, logits) if self.training else logits


class Squeezes(nn.Module):
    def __init__(self, num_classes):
        super().__init__()
        self.c, self.p, self.f = nn.Conv2d(3, 8, 3), nn.AdaptiveAvgPool2d(1), nn.Linear(8, num_classes)

    def forward(self, x):
        return self.f(self.p(F.relu(self.c(x))).squeeze())


class Typed(nn.Module):
    def __init__(self, num_classes, dtype=torch.float64):
        super().__init__()
        self.f = nn.Linear(108, num_classes, dtype=dtype)

    def forward(self, x):
        return self.f(x.flatten(1).to(self.f.weight.dtype))


class ExtraState(nn.Linear):
    def __init__(self, num_classes):
        super().__init__(108, num_classes)

    def get_extra_state(self):
        return {"version": 2}

    def set_extra_state(self, state):
        pass

    def forward(self, x):
        return super().forward(x.flatten(1))


def double(num_classes):
    return Typed(num_classes)


def bfloat(num_classes):
    return Typed(num_classes, torch.bfloat16)


def key_error(num_classes, size="b9"):
    return nn.Linear({"b0": 10}[size], num_classes)


def classes_as_scores(num_classes):
    return nn.Sequential(nn.Flatten(), nn.Linear(108, num_classes), Round())


class Round(nn.Module):
    def forward(self, x):
        return x.round().long()


def fine(num_classes):
    return nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout(), nn.Flatten(), nn.Linear(64, num_classes)
    )


class Detached(HardSize):
    def forward(self, x):
        return self.f(x.flatten(1)).detach()


class FailsInBackward(HardSize):
    def forward(self, x):
        y = self.f(x.flatten(1)).exp()
        return y + 0 * y.detach().add_(1) if not self.training else y.sigmoid().mul_(2).add_(1).sqrt_().exp_()


@pytest.fixture
def build(monkeypatch):
    monkeypatch.setitem(sys.modules, "user_models", types.SimpleNamespace(**globals()))
    return lambda name: build_model(ModelSettings(name=f"user_models:{name}"), 5, SHAPE, seed=3)


@pytest.mark.parametrize(
    ("name", "message", "line"),
    [
        (
            "HardSize",
            "does not take inputs of 3x6x6: AssertionError: Input image size (6) doesn't",
            "assert x",
        ),
        ("NoAttribute", "does not take inputs of 3x6x6: AttributeError", "self.absent"),
        ("FailsInTorch", "does not take inputs of 3x6x6: RuntimeError: mat1", "self.f(x)\n"),
        ("FailsInTraining", "does not take inputs of 3x6x6 in training: KeyError: 'x'", '{}["x"]'),
        ("key_error", "cannot be built for 5 classes and inputs of 3x6x6: KeyError: 'b9'", "[size], num"),
    ],
)
def test_an_error_is_reported_with_the_line_of_the_users_code(build, name, message, line):
    with pytest.raises(SettingError) as error:
        build(name)
    with open(__file__, encoding="utf-8") as file:
        number = next(k for k, text in enumerate(file, 1) if line in text)
    assert f"model 'user_models:{name}' {message}" in str(error.value)
    assert str(error.value).endswith(f"({__file__}:{number})")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("AuxTuple", r"logits in training; for N = 2 it returned Aux; return the logits alone, without aux"),
        ("Squeezes", r"for N = 1 it returned \(5,\); squeeze\(\) also removes .*flatten\(1\)"),
        ("double", r"parameter f\.weight is float64; sheaf trains float32"),
        ("bfloat", r"parameter f\.weight is bfloat16; sheaf trains float32"),
        ("ExtraState", r"has extra state \(_extra_state\), which is not sent between sites"),
        ("Detached", "cannot be trained: its logits have no gradient"),
        ("FailsInBackward", "cannot be trained: RuntimeError: one of the variables needed for gradient"),
        ("classes_as_scores", "for N = 2 it returned int64"),
    ],
)
def test_a_model_that_cannot_be_trained_is_refused(build, name, message):
    with pytest.raises(SettingError, match=message) as error:
        build(name)
    assert "\n" not in str(error.value)


def test_the_check_changes_neither_buffers_nor_draws(build):
    before = torch.get_rng_state()
    model = build("fine")
    assert torch.equal(torch.get_rng_state(), before)
    assert model.training
    assert all(module.training for module in model.modules())
    assert torch.equal(model[1].running_mean, torch.zeros(4))
    assert model[1].num_batches_tracked == 0


def test_a_skeleton_is_checked_too(build):
    with pytest.raises(SettingError, match="it returned Aux"):
        build_skeleton(ModelSettings(name="user_models:AuxTuple"), 5, SHAPE)
