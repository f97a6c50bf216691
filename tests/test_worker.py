"""What a site does for each kind of task, and does again for a call that was lost."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from sheaf import cost, training
from sheaf.blob import Blob
from sheaf.errors import DataError
from sheaf.seeds import generator
from sheaf.types import Dataset, Recipe, Samples, Task, Update
from sheaf.wire import decode_samples
from sheaf.worker import Worker

RECIPE = Recipe(epochs=2, batch_size=8, lr=0.01, augment=("crop",))
MakeWorker = Callable[..., Worker]


def network() -> nn.Module:
    model = nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Dropout(0.2), nn.Linear(144, 3)
    )
    draws = generator(4)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.1, generator=draws)
    return model


def dataset() -> Dataset:
    inputs = torch.randint(256, (60, 1, 8, 8), generator=generator(2), dtype=torch.uint8)
    everything = Samples.of(inputs, torch.arange(60) % 3)
    train, test = everything.select(torch.arange(0, 30)), everything.select(torch.arange(30, 60))
    return Dataset("tiny", train, test, ("a", "b", "c"), (0.5,), (0.25,), "")


@pytest.fixture
def make_worker(tmp_path: Path) -> MakeWorker:
    """A site on 25 examples with 5 held out; made again, it finds what it held."""

    def make(name: str = "edge", model: nn.Module | None = None, held_out: int = 5) -> Worker:
        data = dataset()
        own = replace(data, train=data.train.select(torch.arange(held_out, 30)))
        return Worker(
            name, model or network(), own, data.train.select(torch.arange(held_out)), tmp_path / name
        )

    return make


def theta() -> Blob:
    return Blob.of(network().state_dict())


def other_theta() -> Blob:
    return Blob.of({name: value + 1 for name, value in network().state_dict().items()})


def sha(update: Update) -> str:
    assert update.blob is not None
    return update.blob.sha256


def test_train_is_the_training_loop(make_worker: MakeWorker) -> None:
    worker, model = make_worker(), network()
    answer = worker.do(Task("train", 1, 7, theta(), RECIPE))
    losses = training.train(
        model,
        worker.data.train,
        RECIPE,
        training.Preparation((0.5,), (0.25,), torch.device("cpu")),
        7,
    )
    assert sha(answer) == Blob.of(model.state_dict()).sha256
    assert answer.metrics == {"losses": losses}
    assert (answer.site, answer.kind) == ("edge", "train")
    assert answer.counts == tuple(worker.data.train.counts(3).tolist())
    assert answer.cost.train_macs == 2 * 25 * cost.train_macs_per_example(network(), (1, 8, 8))
    assert answer.cost.train_macs == worker.training_macs(RECIPE)
    assert answer.cost.seconds > 0
    assert answer.cost.peak_memory_bytes > 2**20


def test_what_was_trained_is_held_and_need_not_be_sent(make_worker: MakeWorker) -> None:
    worker = make_worker()
    assert worker.do(Task("train", 1, 7, theta(), RECIPE, reply=False)).blob is None
    collected = worker.do(Task("collect", 2, 0))
    assert sha(collected) == sha(make_worker("another").do(Task("train", 1, 7, theta(), RECIPE)))
    assert sha(make_worker().do(Task("collect", 3, 0))) == sha(collected), "a restarted site holds it too"


def test_adopt_then_train_goes_on_from_there(make_worker: MakeWorker) -> None:
    worker = make_worker()
    adopted = worker.do(Task("adopt", 1, 0, theta()))
    assert adopted.blob is None
    assert sha(worker.do(Task("collect", 2, 0))) == theta().sha256
    went_on = worker.do(Task("train", 3, 7, None, RECIPE))
    assert sha(went_on) == sha(make_worker("another").do(Task("train", 3, 7, theta(), RECIPE)))
    assert sha(went_on) != theta().sha256


@pytest.mark.parametrize("restarted", [False, True])
def test_a_call_that_was_lost_gives_the_same_bits_again(make_worker: MakeWorker, restarted: bool) -> None:
    worker = make_worker()
    worker.do(Task("train", 1, 7, theta(), RECIPE))
    second = Task("train", 2, 8, None, RECIPE)
    first_answer = worker.do(second)
    worker.do(Task("evaluate", 3, 0, other_theta()))  # whatever the shared network was used for in between
    again = (make_worker() if restarted else worker).do(second)
    assert sha(again) == sha(first_answer)
    assert again.metrics == first_answer.metrics
    third = Task("train", 3, 9, None, RECIPE)
    assert sha(worker.do(third)) != sha(first_answer)
    assert sha(worker.do(third)) == sha(worker.do(third))


def test_an_adopt_that_was_lost_is_done_again(make_worker: MakeWorker) -> None:
    worker = make_worker()
    worker.do(Task("adopt", 1, 0, theta()))
    for _ in range(2):
        worker.do(Task("adopt", 2, 0, other_theta()))
    assert sha(worker.do(Task("collect", 3, 0))) == other_theta().sha256
    assert sha(worker.do(Task("collect", 2, 0))) == theta().sha256


def test_sites_that_share_a_network_do_not_meet(make_worker: MakeWorker) -> None:
    shared = network()
    one, other = make_worker("one", shared), make_worker("other", shared)
    one.do(Task("adopt", 1, 0, theta()))
    other.do(Task("adopt", 1, 0, other_theta()))
    assert sha(other.do(Task("collect", 2, 0))) == other_theta().sha256
    assert sha(one.do(Task("collect", 2, 0))) == theta().sha256
    other.do(Task("train", 3, 7, None, RECIPE))
    alone = make_worker("alone").do(Task("train", 3, 7, theta(), RECIPE))
    assert sha(one.do(Task("train", 3, 7, None, RECIPE))) == sha(alone)


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
    assert held.metrics["held_out"] in {right / 5 for right in range(6)}
    assert (held.blob, held.cost.train_macs) == (None, 0)
    assert sha(worker.do(Task("collect", 5, 0))) == theta().sha256, "what is measured is not held"
    without = make_worker("without", held_out=0).do(Task("evaluate", 1, 0, theta()))
    assert "held_out" not in without.metrics


def test_measured_first_and_trained_then(make_worker: MakeWorker) -> None:
    worker = make_worker()  # as in a run that was resumed just before a measurement
    worker.do(Task("evaluate", 1, 0, theta()))
    after = worker.do(Task("train", 2, 7, theta(), RECIPE))
    assert sha(after) == sha(make_worker("another").do(Task("train", 2, 7, theta(), RECIPE)))


def rows(samples: Samples) -> set[tuple[bytes, int]]:
    inputs: Tensor = samples.inputs[samples.positions]
    labels = samples.labels.tolist()
    return {(one.numpy().tobytes(), label) for one, label in zip(inputs, labels, strict=True)}


@pytest.mark.parametrize(("fraction", "count"), [(1.0, 25), (0.5, 12), (0.1, 2), (0.01, 0)])
def test_share(make_worker: MakeWorker, fraction: float, count: int) -> None:
    worker = make_worker()
    answer = worker.do(Task("share", 1, 7, fraction=fraction))
    assert answer.blob is not None
    shared = decode_samples(answer.blob)
    assert len(shared) == len(rows(shared)) == count
    assert shared.inputs.dtype == torch.uint8
    assert rows(shared) <= rows(worker.data.train), "what is held out stays at home"
    assert sha(worker.do(Task("share", 1, 7, fraction=fraction))) == sha(answer)


def test_another_seed_shares_others(make_worker: MakeWorker) -> None:
    worker = make_worker()
    some = {sha(worker.do(Task("share", 1, seed, fraction=0.5))) for seed in range(4)}
    assert len(some) == 4


def test_a_pool_is_what_it_trains_on(make_worker: MakeWorker) -> None:
    worker = make_worker()
    worker.pool(worker.data.train.select(torch.arange(9)))
    answer = worker.do(Task("train", 1, 7, theta(), RECIPE))
    assert answer.examples == 9
    assert answer.cost.train_macs == worker.training_macs(RECIPE)


def test_nothing_to_train_on(make_worker: MakeWorker) -> None:
    worker = make_worker("cloud")
    worker.pool(worker.data.train.select(torch.arange(0)))
    with pytest.raises(DataError, match="cloud has nothing to train on"):
        worker.do(Task("train", 1, 7, theta(), RECIPE))


@pytest.mark.parametrize("kind", ["evaluate", "collect", "train"])
def test_a_site_that_holds_nothing_says_so(make_worker: MakeWorker, kind: str) -> None:
    with pytest.raises(ValueError, match="edge holds no model yet"):
        make_worker().do(Task(kind, 1, 7, None, RECIPE))  # type: ignore[arg-type]


def test_tasks_that_lack_what_they_need(make_worker: MakeWorker) -> None:
    with pytest.raises(ValueError, match="needs a recipe"):
        make_worker().do(Task("train", 1, 7, theta()))
    with pytest.raises(ValueError, match="needs parameters"):
        make_worker().do(Task("adopt", 1, 7))


def test_progress_names_the_site(make_worker: MakeWorker) -> None:
    told: list[tuple[str, int, int, float]] = []
    recipe = replace(RECIPE, augment=())
    make_worker().do(Task("train", 1, 7, theta(), recipe), lambda *step: told.append(step))
    ((site, done, steps, loss),) = told
    assert (site, done, steps) == ("edge", 6, 6), "a rest of one joins the batch before it: 8, 8, 9"
    assert math.isfinite(loss)


def test_the_answer_does_not_depend_on_the_global_generator(make_worker: MakeWorker) -> None:
    torch.manual_seed(1)
    first = make_worker("one").do(Task("train", 1, 7, theta(), RECIPE))
    worker, task = make_worker("two"), Task("train", 1, 7, theta(), RECIPE)
    before = torch.manual_seed(2).get_state()
    assert sha(worker.do(task)) == sha(first)
    assert torch.equal(torch.get_rng_state(), before)
