"""Logits, confusion matrices and accuracies."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from striped_digits import PREPARE, K, bits, convolutional, linear, made, same, samples, trained
from torch import nn
from torch.nn import functional as F

from sheaf.core.dataset import Samples
from sheaf.core.recipe import Recipe
from sheaf.core.seeds import generator
from sheaf.models.forward_effects import Effects, mark
from sheaf.training import evaluation
from sheaf.training.evaluation import balanced_accuracy, evaluate, forward
from sheaf.training.metrics import confusion_matrix
from sheaf.training.one_site import train_model


@pytest.mark.parametrize("n", [1, 511, 512, 513, 1030])
def test_an_evaluation_counts_every_example_once(n: int) -> None:
    data, model = samples(n), convolutional()
    confusion, loss, _ = evaluate(model, data, PREPARE, K)
    with torch.no_grad():
        logits = model.eval()(PREPARE(data.inputs))
    assert confusion.equal(confusion_matrix(data.labels, logits.argmax(1), K))
    assert confusion.sum() == n
    assert loss == pytest.approx(F.cross_entropy(logits, data.labels).item(), rel=1e-5)


@pytest.mark.parametrize("known", [None, torch.tensor([2, 0])])
def test_every_class_counts_the_same_in_a_judgement(known: torch.Tensor | None) -> None:
    data, model = samples(), convolutional()
    data = data.select(torch.arange(len(data)) % 5 > 0)  # not as many of each
    accuracy, losses = balanced_accuracy(model, data, PREPARE, K, known)
    confusion, *_ = evaluate(model, data, PREPARE, K, known)
    there = confusion.sum(1) > 0
    recall = confusion.diagonal()[there] / confusion.sum(1)[there]
    assert accuracy == pytest.approx(recall.mean().item(), rel=1e-6)
    classes = torch.arange(K) if known is None else known
    with torch.no_grad():
        logits = model.eval()(PREPARE(data.inputs[data.positions]))[:, : len(classes)]
    for loss, own, label in zip(losses, logits.log_softmax(1), data.labels, strict=True):
        there = (classes == label).nonzero()
        assert loss.item() == pytest.approx(-own[there].item() if len(there) else 0.0, rel=1e-4)


def test_an_evaluation_changes_nothing() -> None:
    model = convolutional()
    evaluate(model, samples(), PREPARE, K)
    assert same(bits(model), bits(convolutional()))


def test_a_model_trains_after_it_was_evaluated() -> None:
    prepare = replace(PREPARE)  # with nothing computed yet, as in a run that was resumed
    model = convolutional()
    evaluate(model, samples(), prepare, K)
    train_model(model, samples(), Recipe(), prepare, 3)
    assert same(bits(model), trained(convolutional, Recipe()))


def test_evaluate_a_part_with_outputs_for_some_classes() -> None:
    data, classes = samples(), torch.tensor([1, 3])
    model = made(nn.Flatten(), nn.Linear(64, 3))  # two classes and "other"
    with torch.no_grad():
        model[1].bias[2] = 1e6
    confusion, loss, _ = evaluate(model, data, PREPARE, K, classes)
    logits = model((data.inputs - 0.4 * 255) / (0.2 * 255)).detach()[:, :2]
    expected = confusion_matrix(data.labels, classes[logits.argmax(1)], K)
    assert torch.equal(confusion, expected)
    assert confusion[:, [0, 2]].sum() == 0
    own = torch.isin(data.labels, classes)
    assert loss == pytest.approx(F.cross_entropy(logits[own], data.labels[own] // 2).item())
    assert torch.equal(
        evaluate(linear(), data, PREPARE, K)[0],
        evaluate(linear(), data, PREPARE, K, torch.arange(K))[0],
    )


def test_forward_gives_the_logits_in_order() -> None:
    data = samples(1100).select(torch.randperm(1100, generator=generator(5)))  # three batches
    model = convolutional().train()
    logits = forward(model, data, PREPARE)
    with torch.no_grad():
        expected = model.eval()(PREPARE(data.inputs[data.positions]))
    assert (logits.shape, logits.dtype, logits.requires_grad) == ((1100, K), torch.float32, False)
    torch.testing.assert_close(logits, expected)


@pytest.mark.parametrize(("side", "sizes"), [(64, [256, 44]), (224, [27] * 11 + [3]), (2500, [1] * 2)])
def test_mini_batches_of_large_inputs_are_small(side: int, sizes: list[int]) -> None:
    inputs = torch.zeros(sum(sizes), 3, side, side, dtype=torch.uint8)
    data = Samples.of(inputs, torch.zeros(sum(sizes), dtype=torch.int64))
    found = []

    class Spy(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            found.append(len(x))
            return x.mean((2, 3))

    assert len(forward(Spy(), data, PREPARE)) == sum(sizes)
    assert found == sizes


MEASURED = """
import psutil
import torch
from torch import nn
from sheaf.core.dataset import Samples
from sheaf.training.evaluation import forward
from sheaf.training.peak_memory import PeakMemory
from sheaf.training.preparation import Preparation

torch.set_num_threads(1)
data = Samples.of(torch.zeros(300, 3, 224, 224, dtype=torch.uint8), torch.zeros(300, dtype=torch.int64))
model = nn.Sequential(nn.AvgPool2d(224), nn.Flatten())
prepare = Preparation((0.4,) * 3, (0.2,) * 3, torch.device("cpu"))
forward(model, data.select(torch.arange(1)), prepare)  # allocates what every evaluation needs
before = psutil.Process().memory_info().rss
with PeakMemory(torch.device("cpu")) as peak:
    forward(model, data, prepare)
print(peak.bytes - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the peak of resident memory is Linux's")
def test_an_evaluation_holds_one_mini_batch_of_large_images(tmp_path: Path) -> None:
    """In a process whose C library returns each freed tensor at once: a heap's gaps vary by a mini-batch."""
    (tmp_path / "measured.py").write_text(MEASURED)
    heap = {"MALLOC_MMAP_THRESHOLD_": str(1 << 16)}  # read when a process starts, so not by a fork
    output = subprocess.check_output(
        [sys.executable, tmp_path / "measured.py"], env=os.environ | heap, timeout=300
    )
    # A mini-batch as bytes and as float32 values is 1.25 times this; all images are 181 MB in float32.
    assert 1.2 * evaluation.EVALUATION_BYTES < int(output) < 1.5 * evaluation.EVALUATION_BYTES


def test_a_model_that_stores_features_is_not_run_on_several_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    data, model = samples(600), convolutional()
    expected, *_ = evaluate(model, data, PREPARE, K)
    monkeypatch.setattr(evaluation, "side_by_side", None)
    with pytest.raises(TypeError):
        evaluate(model, data, PREPARE, K)
    mark(model, Effects(shareable=False))
    confusion, *_ = evaluate(model, data, PREPARE, K)
    assert confusion.equal(expected)
