"""Records of measured logits."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from sheaf.core.dataset import Samples
from sheaf.models.card import Card
from sheaf.runtime.measured_logits import (
    FILE,
    MeasuredLogits,
    count_recorded,
    random_examples,
    read_measured,
    write_measured,
)

CPU = torch.device("cpu")
CARD = Card(classes=("a", "b"), in_shape=(1, 2, 2), mean=(0.5,), std=(0.25,), inputs="features")
TEST = Samples(torch.rand(9, 1, 2, 2), torch.zeros(9, dtype=torch.int64), torch.arange(8, -1, -1))


def test_records_are_read_as_they_were_written(tmp_path: Path) -> None:
    logits = torch.tensor([[0.1, -1e30], [float("inf"), 3.0], [1e-40, 0.0]])
    edge = MeasuredLogits.of("aa", "test", CPU, logits)
    device = MeasuredLogits.of("bb", "random", torch.device("cuda"), logits[:2])
    write_measured(tmp_path, {"edge": edge, "device": device}, TEST)
    read = read_measured(tmp_path, "edge", CARD)
    assert read is not None
    assert (read.model, read.described, read.device) == ("aa", "test examples", "cpu")
    assert torch.equal(read.logits, logits)
    assert torch.equal(read.inputs, TEST.inputs[[8, 7, 6]])
    random = read_measured(tmp_path, "device", CARD)
    assert random is not None
    assert (random.described, random.device) == ("random examples", "cuda")
    assert torch.equal(random.inputs, random_examples((1, 2, 2), torch.float32, (0.5,), (0.25,), 2))
    assert read_measured(tmp_path, "absent", CARD) is None
    assert read_measured(tmp_path / "another", "edge", CARD) is None


@pytest.mark.parametrize("values", ["?", "AAAA", "AAAAAA=="])
def test_a_malformed_record_is_left_out(values: str, tmp_path: Path) -> None:
    good = MeasuredLogits.of("aa", "random", CPU, torch.ones(2, 2))
    write_measured(tmp_path, {"edge-1": good, "edge-2": replace(good, values=values)}, TEST)
    assert read_measured(tmp_path, "edge-2", CARD) is None
    assert read_measured(tmp_path, "edge-1", CARD) is not None
    assert (tmp_path / FILE).stat().st_size < 1000


def test_records_are_small() -> None:
    small, photos = torch.zeros(1, 1, 8, 8, dtype=torch.uint8), torch.zeros(1, 3, 512, 512, dtype=torch.uint8)
    of = torch.zeros(1, dtype=torch.int64)
    assert count_recorded(Samples.of(small, of), 10) == 64
    assert count_recorded(Samples.of(small, of), 1000) == 4
    assert count_recorded(Samples.of(small, of), 10_000) == 1
    assert count_recorded(Samples.of(photos, of), 10) == 1


def test_random_examples_cover_the_range_of_the_inputs() -> None:
    images = random_examples((3, 8, 8), torch.uint8, (0.5,) * 3, (0.1,) * 3, 16)
    assert (images.dtype, images.amin().item(), images.amax().item()) == (torch.uint8, 0, 255)
    features = random_examples((2, 8, 8), torch.float32, (0.5, -3.0), (0.1, 4.0), 16)
    assert features.mean((0, 2, 3)).tolist() == pytest.approx([0.5, -3.0], abs=0.3)
    assert features.std((0, 2, 3)).tolist() == pytest.approx([0.1, 4.0], rel=0.1)
