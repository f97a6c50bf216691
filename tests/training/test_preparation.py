"""Normalisation and devices."""

from __future__ import annotations

import copy

import pytest
import torch
from striped_digits import PREPARE, K, samples
from torch import Tensor, nn

from sheaf.core.errors import SettingError
from sheaf.core.recipe import Recipe
from sheaf.core.seeds import generator
from sheaf.models.user_model import check_model
from sheaf.training.evaluation import evaluate
from sheaf.training.one_site import train_model
from sheaf.training.preparation import Preparation, move_model, pick_device


def test_bytes_and_features_are_normalised_alike() -> None:
    prepare = Preparation((0.1, 0.2, 0.3), (0.5, 0.25, 0.125), torch.device("cpu"))
    images = torch.randint(256, (5, 3, 4, 4), generator=generator(1), dtype=torch.uint8)
    expected = (images.double() / 255 - torch.tensor([0.1, 0.2, 0.3]).view(3, 1, 1)) / torch.tensor(
        [0.5, 0.25, 0.125]
    ).view(3, 1, 1)
    for given_inputs in (images, images.float() / 255):
        before = given_inputs.clone()
        x = prepare(given_inputs)
        assert x.dtype == torch.float32
        torch.testing.assert_close(x, expected.float(), rtol=1e-5, atol=1e-5)
        assert torch.equal(given_inputs, before)


def test_devices() -> None:
    assert pick_device("cpu") == torch.device("cpu")
    there = ["cpu"] + ["cuda"] * torch.cuda.is_available() + ["mps"] * torch.backends.mps.is_available()
    assert pick_device("auto").type in there
    for name in {"cuda", "mps"} - set(there):
        with pytest.raises(SettingError, match=f"fleet.device = '{name}': .* allowed: auto, .*cpu"):
            pick_device(name)


class Viewing(nn.Module):
    """Calls ``view`` on the output of a convolution, which fails in channels-last memory."""

    def __init__(self, view: bool = True) -> None:
        super().__init__()
        self.view = view
        self.c = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 6, 3))
        self.f = nn.Linear(216, K)

    def forward(self, x: Tensor) -> Tensor:
        x = self.c(x).relu()
        return self.f(x.view(-1, 216) if self.view else x.flatten(1))


@pytest.mark.parametrize("view", [True, False])
def test_a_model_that_fails_in_channels_last_keeps_its_layout(view: bool) -> None:
    model = Viewing(view)
    check_model(model, "viewing", K, (1, 8, 8), lambda: Viewing(view))
    copied = move_model(copy.deepcopy(model), torch.device("cpu"))
    assert copied.c[2].weight.is_contiguous() is view
    recipe = Recipe(epochs=20, batch_size=10, lr=0.01)
    train_model(copied, samples(), recipe, PREPARE, 3)
    confusion, *_ = evaluate(copied, samples(), PREPARE, K)
    assert confusion.diagonal().sum() > 40
