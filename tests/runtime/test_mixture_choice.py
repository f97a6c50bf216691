"""A site's choice among mixtures of two models, by its held-out examples."""

from __future__ import annotations

from dataclasses import replace

from tiny_site import PREPARE, RECIPE, MakeWorker, network, sha, theta

from sheaf.core.task import Task, Update
from sheaf.core.tensor_file import Blob
from sheaf.models import flops
from sheaf.runtime.worker import Worker
from sheaf.training.evaluation import balanced_accuracy
from sheaf.training.interpolation import mixture


def choose_after(worker: Worker, mixtures: tuple[float, ...]) -> Update:
    """Return the choice of a site that holds a trained model and receives an untrained one."""
    worker.do(Task("train", 1, 7, theta(), replace(RECIPE, epochs=20)))
    worker.do(Task("remember", 2, 0))
    worker.do(Task("adopt", 3, 0, theta()))
    return worker.do(Task("choose", 4, 0, since=2, mixtures=mixtures))


def test_a_guarded_site_does_no_worse_on_what_it_held_out(make_worker: MakeWorker) -> None:
    worker = make_worker(held_out=12)
    answer = choose_after(worker, (0.25, 0.5, 0.75, 1.0))
    accuracies = dict(zip(answer.metrics["mixtures"], answer.metrics["accuracies"], strict=True))
    assert list(accuracies) == [0.0, 0.25, 0.5, 0.75, 1.0]
    assert accuracies[answer.metrics["mixture"]] >= accuracies[0.0]
    assert answer.metrics["held_out"] == 12
    assert answer.cost.train_macs == 5 * 12 * flops.macs_per_example(network(), (1, 8, 8))
    own, given = make_worker("other", held_out=12), theta().open()
    trained = own.do(Task("train", 1, 7, theta(), replace(RECIPE, epochs=20))).params
    for a, accuracy in accuracies.items():
        model = network()
        model.load_state_dict(mixture(trained, given, a))
        assert balanced_accuracy(model, worker.held_out, PREPARE, 3)[0] == accuracy
    held = Blob.of(mixture(trained, given, answer.metrics["mixture"]))
    assert sha(worker.do(Task("collect", 5, 0))) == sha(answer) == held.sha256


def test_a_choice_is_measured_by_what_it_is_not_to_undercut(make_worker: MakeWorker) -> None:
    worker = make_worker(held_out=12)
    worker.do(Task("adopt", 1, 0, theta()))
    worker.do(Task("remember", 2, 0))
    worker.do(Task("train", 3, 7, None, replace(RECIPE, epochs=20)))
    worker.do(Task("remember", 4, 0))
    choose = Task("choose", 5, 0, since=2, mixtures=(0.5, 1.0))
    free, bound = worker.do(choose), worker.do(replace(choose, baseline=4))
    assert free.metrics["accuracies"] == bound.metrics["accuracies"]
    accuracies = dict(zip(bound.metrics["mixtures"], bound.metrics["accuracies"], strict=True))
    assert accuracies[bound.metrics["mixture"]] >= accuracies[1.0], "remembered in call 4 was a = 1"
    forward = 12 * flops.macs_per_example(network(), (1, 8, 8))
    assert (free.cost.train_macs, bound.cost.train_macs) == (3 * forward, 4 * forward)


def test_a_choice_that_was_lost_is_made_again_alike(make_worker: MakeWorker) -> None:
    first = choose_after(make_worker(), (0.5, 1.0))
    again = make_worker().do(Task("choose", 4, 0, since=2, mixtures=(0.5, 1.0)))
    assert sha(again) == sha(first)
    assert again.metrics == first.metrics


def test_with_no_mixture_a_site_is_rolled_back(make_worker: MakeWorker) -> None:
    worker = make_worker()
    answer = choose_after(worker, ())
    other = make_worker("other")
    trained = other.do(Task("train", 1, 7, theta(), replace(RECIPE, epochs=20)))
    assert sha(worker.do(Task("collect", 5, 0))) == sha(trained)
    assert answer.metrics["mixture"] == 0


def test_a_site_with_nothing_held_out_takes_what_it_got(make_worker: MakeWorker) -> None:
    worker = make_worker(held_out=0)
    assert choose_after(worker, (1.0, 0.5)).metrics == {
        "mixture": 1.0,
        "mixtures": [],
        "accuracies": [],
        "held_out": 0,
    }
    assert sha(worker.do(Task("collect", 5, 0))) == theta().sha256
