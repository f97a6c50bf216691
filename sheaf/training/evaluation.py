"""Evaluation: a network's logits, and the figures that follow from them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sheaf.core.dataset import Samples
from sheaf.core.thread_pool import side_by_side
from sheaf.models.forward_effects import effects_of
from sheaf.training.gpu_cache import pick
from sheaf.training.metrics import confusion_matrix
from sheaf.training.preparation import Preparation, move_model

EVALUATION_BATCH = 256
"""Examples of a mini-batch, at most: 512, which leave the cache, took three networks a fifth longer."""

EVALUATION_BYTES = 2**24
"""Bytes of a mini-batch's float32 inputs, at most: 27 RGB images at 224x224. Each core computes one."""


class Evaluation(NamedTuple):
    """The result of an evaluation.

    Attributes:
        confusion: (K, K) confusion matrix; rows are the true classes.
        loss: mean cross-entropy.
        logits: (N, outputs) float32, all outputs of the model.
    """

    confusion: Tensor
    loss: float
    logits: Tensor


def evaluate(
    model: nn.Module,
    samples: Samples,
    prepare: Preparation,
    num_classes: int,
    classes: Tensor | None = None,
) -> Evaluation:
    """Evaluate ``model`` on ``samples``.

    Args:
        classes: (k,) the classes of the model's first k outputs; all K in order by default. Further outputs
            count neither for the confusion matrix nor for the loss, which is over the examples of these
            classes.
    """
    classes = torch.arange(num_classes) if classes is None else classes
    outputs, output = _predict(model, samples, prepare, num_classes, classes)
    logits = outputs[:, : len(classes)]
    confusion = confusion_matrix(samples.labels, classes[logits.argmax(1)], num_classes)
    return Evaluation(confusion, F.cross_entropy(logits, output).item(), outputs)


def balanced_accuracy(
    model: nn.Module,
    samples: Samples,
    prepare: Preparation,
    num_classes: int,
    classes: Tensor | None = None,
) -> tuple[float, Tensor]:
    """Return the mean over the classes of their accuracies, and the (N,) cross-entropies in float64.

    Classes without samples are left out. The cross-entropy of a sample whose class has no output is 0. See
    ``evaluate`` for the arguments.
    """
    classes = torch.arange(num_classes) if classes is None else classes
    outputs, output = _predict(model, samples, prepare, num_classes, classes)
    logits = outputs[:, : len(classes)]
    correct = (logits.argmax(1) == output).double()
    counts = samples.labels.bincount()
    present = counts > 0
    accuracy = (samples.labels.bincount(correct)[present] / counts[present]).mean().item()
    return accuracy, F.cross_entropy(logits.double(), output, reduction="none")


def _predict(
    model: nn.Module, samples: Samples, prepare: Preparation, num_classes: int, classes: Tensor
) -> tuple[Tensor, Tensor]:
    """Return all logits, (N, outputs), and the (N,) correct outputs, -100 (ignored by losses) for none."""
    on_threads = prepare.device.type == "cpu" and effects_of(model).shareable
    logits = forward(model, samples, prepare, side_by_side if on_threads else map)
    output = torch.full((num_classes,), -100)
    output[classes] = torch.arange(len(classes))
    return logits, output[samples.labels]


def forward(
    model: nn.Module,
    samples: Samples,
    prepare: Preparation,
    over: Callable[[Callable[[int], None], Sequence[int]], Iterable[None]] = map,
) -> Tensor:
    """Return the (N, K) float32 logits on the CPU, in evaluation mode.

    Args:
        over: applies a function to all mini-batches; ``side_by_side`` where no hook depends on their order.
    """
    move_model(model, prepare.device).eval()  # before inference mode: tensors moved there cannot be trained
    bytes_of_example = torch.float32.itemsize * samples.inputs.shape[1:].numel()
    batch = max(1, min(EVALUATION_BATCH, EVALUATION_BYTES // bytes_of_example))
    logits: Tensor | None = None
    lock = threading.Lock()

    def fill(start: int) -> None:
        nonlocal logits
        with torch.inference_mode():  # a setting of this thread
            x = prepare(pick(samples.inputs, samples.positions[start : start + batch], prepare.device))
            own = model(x).float().cpu()
        # One tensor for all: small ones between the large ones would keep the heap from reusing their memory.
        with lock:
            if logits is None:
                logits = torch.empty(len(samples), *own.shape[1:])
        logits[start : start + batch] = own

    for _ in over(fill, range(0, max(1, len(samples)), batch)):
        pass
    assert logits is not None
    return logits
