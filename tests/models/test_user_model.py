"""A user's model is one function of inputs and state_dict, or it is refused, or marked with a note."""

from __future__ import annotations

import copy
import logging
import random

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import prune

from sheaf.core.errors import SettingError
from sheaf.core.seeds import global_draws_from
from sheaf.models.forward_effects import Effects, effects_of, is_marked, reset
from sheaf.models.user_model import check_model

K, SHAPE = 5, (3, 6, 6)


class Base(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.c, self.f = nn.Conv2d(3, 8, 3, padding=1), nn.Linear(8, K)

    def features(self, x: Tensor) -> Tensor:
        return F.relu(self.c(x)).mean((2, 3))

    def forward(self, x: Tensor) -> Tensor:
        return self.f(self.features(x))


class Normed(Base):
    def __init__(self) -> None:
        super().__init__()
        self.n = nn.BatchNorm2d(8)

    def forward(self, x: Tensor) -> Tensor:
        return self.f(F.dropout(F.relu(self.n(self.c(x))).mean((2, 3)), training=self.training))


class Projected(Base):
    """A random projection drawn when the model is built."""

    how = "tensor"

    def __init__(self) -> None:
        super().__init__()
        if self.how == "tensor":
            self.B = torch.randn(8, 8)
        elif self.how == "buffer":
            self.register_buffer("B", torch.randn(8, 8), persistent=False)
        elif self.how == "numpy":
            self.B = torch.tensor(np.random.randn(8, 8), dtype=torch.float32)
        elif self.how == "list":
            self.B = [nn.Linear(8, 8, bias=False)]
        else:
            self.register_buffer("B", torch.randn(8, 8))

    def forward(self, x: Tensor) -> Tensor:
        return self.f(self.features(x) @ (self.B[0].weight if self.how == "list" else self.B))


class FromBuffer(Projected):
    how = "buffer"


class FromNumpy(Projected):
    how = "numpy"


class FromList(Projected):
    how = "list"


class FromKept(Projected):
    how = "kept"


class PlainStatistics(Base):
    def __init__(self) -> None:
        super().__init__()
        self.mean = torch.zeros(8)

    def forward(self, x: Tensor) -> Tensor:
        h = self.features(x)
        if self.training:
            self.mean = 0.9 * self.mean + 0.1 * h.detach().mean(0)
        return self.f(h - self.mean)


class CentredInTraining(PlainStatistics):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) if self.training else self.f(self.features(x))


class SetAtFirst(Base):
    """The first mini-batch sets a scale."""

    scale = None

    def forward(self, x: Tensor) -> Tensor:
        h = self.features(x)
        if self.scale is None and self.training:
            self.scale = 1 / h.detach().std().item()
        return self.f(h * (self.scale or 1.0))


class AssignsBuffer(Base):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(8))

    def forward(self, x: Tensor) -> Tensor:
        h = self.features(x)
        if self.training:
            self.mean = 0.9 * self.mean + 0.1 * h.detach().mean(0)
        return self.f(h - self.mean)


class Counts(Base):
    def __init__(self) -> None:
        super().__init__()
        self.late, self.steps = nn.Linear(8, K), 0

    def forward(self, x: Tensor) -> Tensor:
        self.steps += self.training
        return (self.late if self.steps > 10 else self.f)(self.features(x))


class Draws(Base):
    draw = staticmethod(random.random)

    def forward(self, x: Tensor) -> Tensor:
        h = self.features(x)
        return self.f(h * 2 if self.training and self.draw() < 0.5 else h)


class DrawsNumpy(Draws):
    draw = staticmethod(lambda: np.random.rand())


class OwnGenerator(Draws):
    draw = staticmethod(np.random.default_rng(0).random)


class OwnGeneratorInside(Draws):
    def __init__(self) -> None:
        super().__init__()
        self.rng = random.Random(0)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * (1 + self.rng.random() if self.training else 1)


class RandomInEvaluation(Base):
    def forward(self, x: Tensor) -> Tensor:
        return self.f(F.dropout(self.features(x)))


class StoresFeatures(Base):
    def __init__(self) -> None:
        super().__init__()
        self.skip = None
        self.c.register_forward_hook(self.keep)

    def keep(self, module: nn.Module, inputs: tuple[Tensor], output: Tensor) -> None:
        self.skip = output

    def forward(self, x: Tensor) -> Tensor:
        return self.f(self.features(x) + self.skip.mean((2, 3)))


class HooksItself(StoresFeatures):
    def __init__(self) -> None:
        super().__init__()
        self.c._forward_hooks.clear()
        self.c.register_forward_hook(lambda module, inputs, output: setattr(self, "skip", output))


STORE: dict[str, Tensor] = {}


class StoresGlobally(Base):
    def forward(self, x: Tensor) -> Tensor:
        STORE["mean"] = x.mean((2, 3))
        return self.f(self.features(x)) + STORE["mean"].sum(1, keepdim=True)


class CachesByShape(Base):
    cached = None

    def forward(self, x: Tensor) -> Tensor:
        if self.cached is None:
            self.cached = torch.linspace(0, 1, x.shape[-1])
        return super().forward(x + self.cached)


class Pruned(Base):
    def __init__(self) -> None:
        super().__init__()
        prune.random_unstructured(self.f, "weight", 0.5)


class Lazy(Base):
    def __init__(self) -> None:
        super().__init__()
        self.f = nn.LazyLinear(K)


def check(make: type[nn.Module]) -> nn.Module:
    with global_draws_from(3):
        model = make()
        check_model(model, "net", K, SHAPE, make)
    return model


@pytest.mark.parametrize("make", [Base, Normed, FromKept, CachesByShape, Lazy])
def test_a_sound_model_has_no_effects(make: type[nn.Module]) -> None:
    model = check(make)
    assert effects_of(model) == Effects()
    assert is_marked(copy.deepcopy(model))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (Projected, r"depends on B, set when it is built and not in its state_dict.*register_buffer\('B'"),
        (FromBuffer, "depends on B, set when it is built"),
        (FromNumpy, "depends on B, set when it is built"),
        (FromList, "depends on B, set when it is built"),
        (PlainStatistics, r"depends on mean, set in training.*register_buffer\('mean', tensor\)"),
        (CentredInTraining, "depends on mean, set in training"),
        (SetAtFirst, "depends on scale, set in training"),
        (OwnGenerator, "does not repeat a training step from the same state and seed"),
        (OwnGeneratorInside, "depends on rng, set in training"),
        (RandomInEvaluation, "does not repeat its logits in evaluation: F.dropout"),
        (Pruned, r"cannot be copied: a tensor in it was computed from parameters.*prune\.remove"),
        (HooksItself, r"cannot be copied: a hook or a function in it refers to the model"),
    ],
)
def test_a_model_that_its_state_dict_does_not_determine_is_refused(make: type, message: str) -> None:
    with pytest.raises(SettingError, match=f"model 'net' {message}") as error:
        check(make)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("make", "reason", "expected"),
    [
        (AssignsBuffer, "it assigns mean anew in forward", Effects("*")),
        (
            Counts,
            "starts anew in each task; a buffer (register_buffer) would be kept",
            Effects("*", resets={("", "steps"): 0}, shareable=False),
        ),
        (Draws, "it draws from Python's or numpy's generator in forward", Effects(alone="*")),
        (DrawsNumpy, "it draws from Python's or numpy's generator in forward", Effects(alone="*")),
        (StoresFeatures, "", Effects(shareable=False, resets={("", "skip"): None})),
        (
            StoresGlobally,
            "it keeps values of a forward pass outside itself",
            Effects(alone="*", shareable=False),
        ),
    ],
)
def test_effects_are_marked_with_a_note(caplog, make: type, reason: str, expected: Effects) -> None:
    caplog.set_level(logging.INFO, "sheaf")
    model = check(make)
    effects = effects_of(model)
    assert (effects.shareable, effects.resets) == (expected.shareable, expected.resets)
    assert bool(effects.not_recorded) == bool(expected.not_recorded)
    assert bool(effects.alone) == bool(expected.alone)
    assert reason in effects.not_recorded + effects.alone
    notes = [record.getMessage() for record in caplog.records]
    assert len(notes) == bool(reason)
    assert all("model 'net' are " in note and note.endswith(reason) for note in notes)


def test_attributes_are_reset() -> None:
    model = check(Counts)
    model.steps = 7
    reset(model)
    assert model.steps == 0


def test_the_generators_are_left_as_they_were() -> None:
    before = random.getstate(), np.random.get_state()[1].tobytes(), torch.get_rng_state()
    check(Draws)
    assert random.getstate() == before[0]
    assert np.random.get_state()[1].tobytes() == before[1]
    assert torch.equal(torch.get_rng_state(), before[2])
