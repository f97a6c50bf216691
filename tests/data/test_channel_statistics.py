"""Mean and standard deviation of each channel, in chunks of bounded size."""

import pytest
import torch

from sheaf.data import channel_statistics as module
from sheaf.data.channel_statistics import channel_statistics


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32, torch.float64])
def test_chunks_give_the_statistics_of_the_whole(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    inputs = torch.randint(0, 256, (50, 3, 8, 8), generator=torch.Generator().manual_seed(0)).to(dtype)
    before = inputs.clone()
    monkeypatch.setattr(module, "CHUNK_VALUES", 1000)  # five examples
    monkeypatch.setattr(module, "PIECE", 1000)
    mean, std = channel_statistics(inputs)
    scaled = inputs.double() / (255 if dtype == torch.uint8 else 1)
    assert torch.allclose(torch.tensor(mean, dtype=torch.float64), scaled.mean((0, 2, 3)))
    assert torch.allclose(torch.tensor(std, dtype=torch.float64), scaled.std((0, 2, 3), correction=0))
    assert torch.equal(inputs, before)


def test_large_examples_are_converted_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CHUNK_VALUES", 1)
    monkeypatch.setattr(module, "PIECE", 1)
    assert channel_statistics(torch.full((3, 1, 2, 2), 0.2)) == ((pytest.approx(0.2),), (1.0,))
    assert channel_statistics(torch.full((3, 1, 2, 2), 51, dtype=torch.uint8)) == ((0.2,), (1.0,))
