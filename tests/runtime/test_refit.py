"""Fits of the classifier and of the batch-norm statistics."""

from __future__ import annotations

from tiny_site import PREPARE, RECIPE, MakeWorker, network, sha, theta

from sheaf.core.recipe import Ridge
from sheaf.core.task import Task
from sheaf.core.tensor_file import Blob
from sheaf.models import flops
from sheaf.training import classifier_refit
from sheaf.training.batch_norm import reestimate_statistics


def test_new_statistics_are_those_of_the_pool(make_worker: MakeWorker) -> None:
    worker, model = make_worker(), network()
    answer = worker.do(Task("restat", 1, 7, theta()))
    reestimate_statistics(model, worker.data.train, PREPARE)
    assert sha(answer) == Blob.of(model.state_dict()).sha256 != theta().sha256
    assert answer.cost.train_macs == 25 * flops.macs_per_example(network(), (1, 8, 8)), "one pass, forward"
    assert (answer.kind, answer.metrics) == ("restat", {})


def test_refit_trains_the_classifier_alone(make_worker: MakeWorker) -> None:
    worker, model = make_worker(), network()
    answer = worker.do(Task("refit", 1, 7, theta(), RECIPE))
    losses = classifier_refit.refit(model, model[-1], worker.data.train, RECIPE, PREPARE, 7)
    assert sha(answer) == Blob.of(model.state_dict()).sha256
    assert answer.metrics == {"losses": losses}
    one_pass = 25 * flops.macs_per_example(network(), (1, 8, 8))
    # a linear layer's forward pass and the gradient of its weights; its inputs need none
    assert answer.cost.train_macs == one_pass + RECIPE.epochs * 25 * 2 * 144 * 3


def test_refit_by_ridge(make_worker: MakeWorker) -> None:
    worker, model = make_worker(), network()
    answer = worker.do(Task("refit", 1, 0, theta(), refit=Ridge()))
    classifier_refit.refit_by_ridge(model, model[4], worker.data.train, Ridge(), PREPARE)
    assert sha(answer) == Blob.of(model.state_dict()).sha256
    forward = 25 * flops.macs_per_example(network(), (1, 8, 8))
    assert answer.cost.train_macs == forward + 25 * 145 * (145 + 3) + 145**3 // 3 + 145**2 * 3
