"""The evaluation of a model on a site's test data, with the logits that are recorded of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor, nn

from sheaf.core.cut import Cut
from sheaf.core.dataset import Dataset, Samples
from sheaf.runtime.measured_logits import (
    RANDOM_EXAMPLES,
    MeasuredLogits,
    count_recorded,
    random_examples,
)
from sheaf.training.evaluation import Evaluation, evaluate, forward
from sheaf.training.network import Network
from sheaf.training.preparation import Preparation


def evaluate_on_test(
    network: Network,
    cut: Cut | None,
    parameters: str,
    load: Callable[[], None],
    data: Dataset,
    classes: Tensor | None,
    prepare: Preparation,
    private: bool,
) -> dict[str, Any]:
    """Return the metrics of a model on the test examples; see ``Update``.

    Sites of one process that have the same model and test examples evaluate it once.

    Args:
        network: the network.
        cut: the sub-model; None is the whole model.
        parameters: SHA-256 of the model's parameters.
        load: loads these parameters.
        data: contains the test examples.
        classes: (k,) classes of the model's outputs; None for all in order.
        prepare: normalises the inputs.
        private: record the logits of random examples instead of test examples.
    """

    def evaluate_loaded() -> Evaluation:
        load()
        model = network.of(cut)
        evaluation = evaluate(model, data.test, prepare, len(data.classes), classes)
        return evaluation._replace(logits=_recorded(model, evaluation.logits, data, prepare, private))

    key = cut, parameters, id(data.test)
    confusion, loss, logits = network.evaluated(key, evaluate_loaded)
    inputs: Literal["test", "random"] = "random" if private else "test"
    record = MeasuredLogits.of(parameters, inputs, prepare.device, logits)
    return {"confusion": confusion.tolist(), "loss": loss, "measured": record.header()}


def _recorded(model: nn.Module, logits: Tensor, data: Dataset, prepare: Preparation, private: bool) -> Tensor:
    """Return the logits to record, given those of all test examples."""
    count = count_recorded(data.test, logits.shape[1])
    if not private:
        return logits[:count].clone()
    few = min(count, RANDOM_EXAMPLES)
    inputs = random_examples(data.shape, data.test.inputs.dtype, data.mean, data.std, few)
    return forward(model, Samples.of(inputs, torch.zeros(few, dtype=torch.int64)), prepare)
