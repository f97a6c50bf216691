"""What is picked of samples, wherever these lie."""

from __future__ import annotations

import gc

import pytest
import torch

from sheaf.training import gpu_cache
from sheaf.training.gpu_cache import pick

VALUES = torch.arange(24).reshape(6, 4)
POSITIONS = torch.tensor([5, 0, 5])
needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA here")


def test_on_a_cpu_nothing_is_copied() -> None:
    assert torch.equal(pick(VALUES, POSITIONS, torch.device("cpu")), VALUES[POSITIONS])
    assert len(gpu_cache._COPIES) == 0


@needs_cuda
@pytest.mark.parametrize("share", [0.5, 0.0])
def test_on_a_gpu_they_are_copied_once_if_there_is_room(share: float, monkeypatch) -> None:
    monkeypatch.setattr(gpu_cache, "FRACTION", share)
    device, values = torch.device("cuda"), VALUES.clone()
    for _ in range(2):
        found = pick(values, POSITIONS, device)
        assert torch.equal(found.cpu(), VALUES[POSITIONS])
        assert found.device.type == ("cuda" if share else "cpu")
        assert len(gpu_cache._COPIES) == 1
    del values
    gc.collect()
    assert len(gpu_cache._COPIES) == 0
