"""The evaluation of a site's model on its test data."""

from __future__ import annotations

from pathlib import Path

import torch
from tiny_site import PREPARE, MakeWorker, dataset, network, other_theta, sha, theta

from sheaf.core.dataset import Samples
from sheaf.core.task import Task
from sheaf.runtime.measured_logits import MeasuredLogits, random_examples
from sheaf.runtime.worker import Worker
from sheaf.training.evaluation import balanced_accuracy, forward
from sheaf.training.network import Network


def test_evaluate(make_worker: MakeWorker) -> None:
    worker = make_worker()
    worker.do(Task("adopt", 1, 0, theta()))
    held = worker.do(Task("evaluate", 2, 0))
    given = worker.do(Task("evaluate", 3, 0, theta()))
    other = worker.do(Task("evaluate", 4, 0, other_theta()))
    confusion = torch.tensor(held.metrics["confusion"])
    assert confusion.sum(1).tolist() == [10, 10, 10], "rows are the true classes of the test part"
    assert held.metrics == given.metrics
    assert held.metrics["loss"] != other.metrics["loss"]
    model = network()
    model.load_state_dict(theta().open())
    judged, _ = balanced_accuracy(model, worker.held_out, PREPARE, 3)
    assert held.metrics["held_out"] == judged
    assert (held.blob, held.cost.train_macs) == (None, 0)
    assert sha(worker.do(Task("collect", 5, 0))) == theta().sha256, "what is measured is not held"
    record = MeasuredLogits(**held.metrics["measured"])
    assert (record.model, record.inputs, record.device) == (theta().sha256, "test", "cpu")
    assert torch.equal(record.logits, forward(model, worker.data.test, PREPARE)), "30 are fewer than 64"
    without = make_worker("without", held_out=0).do(Task("evaluate", 1, 0, theta()))
    assert "held_out" not in without.metrics


def test_private_test_examples_are_replaced_by_random_ones(tmp_path: Path) -> None:
    data, net = dataset(), Network(network(), (1, 8, 8))
    worker = Worker("edge", net, data, data.train.select(torch.arange(0)), tmp_path, private_test=True)
    record = MeasuredLogits(**worker.do(Task("evaluate", 1, 0, theta())).metrics["measured"])
    assert record.inputs == "random"
    inputs = random_examples((1, 8, 8), torch.uint8, data.mean, data.std, 16)
    expected = forward(net.model, Samples.of(inputs, torch.zeros(16, dtype=torch.int64)), PREPARE)
    assert torch.equal(record.logits, expected)
