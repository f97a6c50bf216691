"""Normalisation and devices."""

from __future__ import annotations

import pytest
import torch

from sheaf.core.errors import SettingError
from sheaf.core.seeds import generator
from sheaf.training.preparation import Preparation, pick_device


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
