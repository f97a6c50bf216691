"""Two sub-models bound into one model keep their logits, or the model is refused with the layer's kind."""

from __future__ import annotations

import logging

import pytest
import torch
import toys
from support import one_line
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import prune

from sheaf.core.errors import CutError
from sheaf.submodels.binding_check import EXACT, binding_error
from sheaf.submodels.dependency_graph import trace
from sheaf.submodels.scheme import SiteNeeds
from sheaf.submodels.schemes.by_class import ByClass
from sheaf.submodels.schemes.prefix import Prefix

SITES = [SiteNeeds("a", (0, 1, 2)), SiteNeeds("b", (3, 4))]


class Mixing(nn.Module):
    """Two convolutions, between them an operation over all channels."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.first, self.second, self.fc = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 6, 3), nn.Linear(6, 5)
        self.norm = nn.GroupNorm(2, 8, affine=False) if kind == "GroupNorm" else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.first(x).relu())
        if self.kind == "Sum":
            x = x * (x.sum(1, keepdim=True) - 1).sigmoid()
        elif self.kind == "Amax":
            x = x * (x.amax(1, keepdim=True) - 1).sigmoid()
        elif self.kind == "LinalgVectorNorm":
            x = functional.normalize(x, dim=1)
        return self.fc(self.second(x).relu().mean((2, 3)))


@pytest.mark.parametrize("kind", ["GroupNorm", "LinalgVectorNorm", "Sum", "Amax"])
def test_a_model_that_mixes_channels_is_refused_by_class(kind: str, caplog: pytest.LogCaptureFixture) -> None:
    structure = trace(Mixing(kind), toys.SHAPE)
    with pytest.raises(CutError, match=rf"off by \d.* of their spread; {kind} .*method\.cut\.exact") as error:
        ByClass()(structure, SITES, 0)
    one_line(error)
    assert 0.01 < binding_error(structure) < 10
    structure = trace(Mixing(kind), toys.SHAPE)
    Prefix()(structure, SITES, 0)  # averages overlapping sub-models
    with caplog.at_level(logging.INFO, "sheaf"):
        for _ in range(2):
            assert set(ByClass(exact=False)(structure, SITES, 0)) == {"a", "b"}
    assert [kind in record.getMessage() for record in caplog.records] == [True]


def test_a_layer_that_mixes_the_channels_of_the_stem_is_exact() -> None:
    structure = trace(Mixing("GroupNorm"), toys.SHAPE)
    ByClass(stem=1)(structure, SITES, 0)
    assert binding_error(structure, {"first"}) == 0
    assert binding_error(structure) > EXACT


@pytest.mark.parametrize("toy", toys.EVERY, ids=lambda toy: toy.__name__)
def test_other_models_are_exact(toy: type[nn.Module]) -> None:
    structure = toys.structure_of(toy)
    assert binding_error(structure) == 0
    assert structure.binding_errors == {frozenset(): 0.0}


class Float32(toys.Plain):
    """Converts its inputs itself."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.float())


class Float64(nn.Module):
    """Parameters of another type."""

    def __init__(self) -> None:
        super().__init__()
        self.plain = toys.Plain().double()

    def forward(self, x: Tensor) -> Tensor:
        return self.plain(x.double())


@pytest.mark.parametrize("kind", [Float32, Float64])
def test_a_model_that_converts_its_inputs_is_checked(kind: type[nn.Module]) -> None:
    assert binding_error(trace(kind(), toys.SHAPE)) == 0


class Faint(nn.Module):
    """Logits far above their spread: their differences are lost in float32."""

    def __init__(self) -> None:
        super().__init__()
        self.plain = toys.Plain()

    def forward(self, x: Tensor) -> Tensor:
        return self.plain(1e-7 * x)


def test_rounding_in_float32_is_not_an_error() -> None:
    assert binding_error(trace(Faint(), toys.SHAPE)) == 0


def _weight_norm() -> nn.Module:
    with pytest.warns(FutureWarning, match="deprecated"):
        conv = torch.nn.utils.weight_norm(nn.Conv2d(3, 6, 3))
    return nn.Sequential(conv, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 5))


def _masked() -> nn.Module:
    model = toys.Plain()
    prune.random_unstructured(model[3], "weight", 0.5)
    return model


@pytest.mark.parametrize(
    ("build", "says"), [(_weight_norm, "weight_g, weight_v"), (_masked, "weight_mask, weight_orig")]
)
def test_a_computed_weight_is_refused(build, says) -> None:
    with pytest.raises(CutError, match=rf"computes its weight from {says} and cannot be cut; make") as error:
        trace(build(), toys.SHAPE)
    one_line(error)
