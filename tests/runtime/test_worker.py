"""What a site does for each kind of task, and does again for a call that was lost."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from tiny_site import PREPARE, RECIPE, MakeWorker, dataset, network, other_theta, sha, theta
from torch import Tensor

from sheaf.core.cut import Cut
from sheaf.core.dataset import Samples
from sheaf.core.errors import CutError, DataError
from sheaf.core.recipe import Share, Statistic
from sheaf.core.seeds import seed_for
from sheaf.core.task import Task
from sheaf.core.tensor_file import Blob
from sheaf.core.wire_format import decode_samples, encode_samples
from sheaf.data.synthetic_negatives import make_outliers
from sheaf.models import flops
from sheaf.runtime.worker import Worker
from sheaf.training import merge_statistics
from sheaf.training.evaluation import forward
from sheaf.training.network import Network
from sheaf.training.one_site import train_model


def test_train_is_the_training_loop(make_worker: MakeWorker) -> None:
    worker, model = make_worker(), network()
    answer = worker.do(Task("train", 1, 7, theta(), RECIPE))
    losses = train_model(model, worker.data.train, RECIPE, PREPARE, 7)
    assert sha(answer) == Blob.of(model.state_dict()).sha256
    assert answer.metrics == {"losses": losses}
    assert (answer.site, answer.kind) == ("edge", "train")
    assert answer.counts == tuple(worker.data.train.counts(3).tolist())
    assert answer.cost.train_macs == 2 * 25 * flops.train_macs_per_example(network(), (1, 8, 8))
    assert answer.cost.macs_per_example == flops.macs_per_example(network(), (1, 8, 8))
    assert answer.cost.parameters == sum(value.numel() for value in network().state_dict().values())
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
    shared = Network(network(), (1, 8, 8))
    one, other = make_worker("one", shared), make_worker("other", shared)
    one.do(Task("adopt", 1, 0, theta()))
    other.do(Task("adopt", 1, 0, other_theta()))
    assert sha(other.do(Task("collect", 2, 0))) == other_theta().sha256
    assert sha(one.do(Task("collect", 2, 0))) == theta().sha256
    other.do(Task("train", 3, 7, None, RECIPE))
    alone = make_worker("alone").do(Task("train", 3, 7, theta(), RECIPE))
    assert sha(one.do(Task("train", 3, 7, None, RECIPE))) == sha(alone)


def test_measured_first_and_trained_then(make_worker: MakeWorker) -> None:
    worker = make_worker()  # as in a run that was resumed just before a measurement
    worker.do(Task("evaluate", 1, 0, theta()))
    after = worker.do(Task("train", 2, 7, theta(), RECIPE))
    assert sha(after) == sha(make_worker("another").do(Task("train", 2, 7, theta(), RECIPE)))


def rows(samples: Samples) -> set[tuple[bytes, int]]:
    inputs: Tensor = samples.inputs[samples.positions]
    labels = samples.labels.tolist()
    return {(one.numpy().tobytes(), label) for one, label in zip(inputs, labels, strict=True)}


@pytest.mark.parametrize(("fraction", "count"), [(1.0, 25), (0.5, 12), (0.1, 2)])
def test_share(make_worker: MakeWorker, fraction: float, count: int) -> None:
    worker = make_worker()
    answer = worker.do(Task("share", 1, 7, share=Share(fraction=fraction)))
    assert answer.blob is not None
    shared = decode_samples(answer.blob)
    assert len(shared) == len(rows(shared)) == count
    assert shared.inputs.dtype == torch.uint8
    assert rows(shared) <= rows(worker.data.train), "what is held out stays at home"
    assert sha(worker.do(Task("share", 1, 7, share=Share(fraction=fraction)))) == sha(answer)


def test_another_seed_shares_others(make_worker: MakeWorker) -> None:
    worker = make_worker()
    some = {sha(worker.do(Task("share", 1, seed, share=Share(fraction=0.5)))) for seed in range(4)}
    assert len(some) == 4


def test_a_pool_is_what_it_trains_on(make_worker: MakeWorker) -> None:
    worker = make_worker()
    worker.pool(worker.data.train.select(torch.arange(9)))
    answer = worker.do(Task("train", 1, 7, theta(), RECIPE))
    assert answer.examples == 9
    assert answer.cost.train_macs == 2 * 9 * flops.train_macs_per_example(network(), (1, 8, 8))


def test_nothing_to_train_on(make_worker: MakeWorker) -> None:
    worker = make_worker("cloud")
    worker.pool(worker.data.train.select(torch.arange(0)))
    with pytest.raises(DataError, match="cloud has nothing to train on"):
        worker.do(Task("train", 1, 7, theta(), RECIPE))


@pytest.mark.parametrize("kind", ["evaluate", "collect", "train", "restat"])
def test_a_site_that_holds_nothing_says_so(make_worker: MakeWorker, kind: str) -> None:
    with pytest.raises(ValueError, match="edge holds no model yet"):
        make_worker().do(Task(kind, 1, 7, None, RECIPE))  # type: ignore[arg-type]


def test_tasks_that_lack_what_they_need(make_worker: MakeWorker) -> None:
    with pytest.raises(ValueError, match="needs a recipe"):
        make_worker().do(Task("train", 1, 7, theta()))
    with pytest.raises(ValueError, match="needs a recipe"):
        make_worker().do(Task("refit", 1, 7, theta()))
    with pytest.raises(ValueError, match="needs parameters"):
        make_worker().do(Task("adopt", 1, 7))
    with pytest.raises(ValueError, match="needs samples"):
        make_worker().do(Task("lend", 1, 7))


def test_progress_names_the_site(make_worker: MakeWorker) -> None:
    told: list[tuple[str, int, int, float, int]] = []
    recipe = replace(RECIPE, augment=())
    make_worker().do(Task("train", 1, 7, theta(), recipe), lambda *step: told.append(step))
    ((site, done, steps, loss, examples),) = told
    assert (site, done, steps) == ("edge", 6, 6), "a rest of one joins the batch before it: 8, 8, 9"
    assert math.isfinite(loss)
    assert examples == 50, "of both epochs"


def test_the_answer_does_not_depend_on_the_global_generator(make_worker: MakeWorker) -> None:
    torch.manual_seed(1)
    first = make_worker("one").do(Task("train", 1, 7, theta(), RECIPE))
    worker, task = make_worker("two"), Task("train", 1, 7, theta(), RECIPE)
    before = torch.manual_seed(2).get_state()
    assert sha(worker.do(task)) == sha(first)
    assert torch.equal(torch.get_rng_state(), before)


CUT = Cut((("0", ((1, 3),)),), classes=(0, 2))  # two of four channels, two of three classes
OTHER = replace(CUT, other=True)


@pytest.fixture
def two_classes(make_worker: MakeWorker) -> Callable[[], Worker]:
    """A site that has examples of classes 0 and 2 alone, 20 of them; made again, it finds what it held."""

    def make() -> Worker:
        worker = make_worker(held_out=0)
        worker.pool(worker.data.train.select(worker.data.train.labels != 1))
        return worker

    return make


def part_of_theta(cut: Cut) -> dict[str, Tensor]:
    return Network(network(), (1, 8, 8)).submodel(cut).take(network().state_dict())


def trained_by_hand(cut: Cut, samples: Samples) -> str:
    model = Network(network(), (1, 8, 8)).submodel(cut).module()
    model.load_state_dict(part_of_theta(cut))
    train_model(model, samples, RECIPE, PREPARE, 7)
    return Blob.of(model.state_dict()).sha256


def relabelled(samples: Samples) -> Samples:
    return Samples.of(samples.inputs[samples.positions], torch.tensor([0, -100, 1])[samples.labels])


def part_macs(cut: Cut) -> int:
    part = Network(network(), (1, 8, 8)).submodel(cut).module()
    return flops.train_macs_per_example(part, (1, 8, 8))


def test_a_part_is_trained_on_labels_that_are_its_outputs(two_classes: Callable[[], Worker]) -> None:
    worker = two_classes()
    answer = worker.do(Task("train", 1, 7, Blob.of(part_of_theta(CUT)), RECIPE, CUT))
    assert sha(answer) == trained_by_hand(CUT, relabelled(worker.data.train))
    assert answer.counts == (10, 0, 10), "the answer counts classes of the whole model"
    assert answer.params["4.weight"].shape == (2, 72)
    assert answer.cost.train_macs == 2 * 20 * part_macs(CUT)
    assert answer.cost.train_macs < 0.6 * 2 * 20 * flops.train_macs_per_example(network(), (1, 8, 8))
    assert answer.cost.parameters == sum(value.numel() for value in part_of_theta(CUT).values())
    assert sha(worker.do(Task("collect", 2, 0, cut=CUT))) == sha(answer), "the part is what it holds"


def others() -> Samples:
    data = dataset().train
    return data.select(data.labels == 1)


def test_other_is_trained_on_what_was_lent_and_made(two_classes: Callable[[], Worker]) -> None:
    worker, blob = two_classes(), Blob.of(part_of_theta(OTHER))
    own = relabelled(worker.data.train)
    made = make_outliers(worker.data.train, 5, seed_for(7, "outliers"))
    outliers = Samples.of(made, torch.full((5,), 2))
    lent = Samples.of(others().inputs[others().positions], torch.full((10,), 2))

    without = worker.do(Task("train", 1, 7, blob, RECIPE, OTHER))
    assert sha(without) == trained_by_hand(OTHER, own)
    with_made = worker.do(Task("train", 2, 7, blob, RECIPE, OTHER, outliers=0.25))
    assert sha(with_made) == trained_by_hand(OTHER, Samples.concat([own, outliers]))
    answer = worker.do(Task("lend", 3, 0, encode_samples(others())))
    assert (answer.blob, answer.cost.train_macs) == (None, 0)
    worker = two_classes()  # a site that was started again still has it
    with_lent = worker.do(Task("train", 4, 7, blob, RECIPE, OTHER))
    assert sha(with_lent) == trained_by_hand(OTHER, Samples.concat([own, lent]))
    with_both = worker.do(Task("train", 5, 7, blob, RECIPE, OTHER, outliers=0.25))
    assert sha(with_both) == trained_by_hand(OTHER, Samples.concat([own, outliers, lent]))

    answers = {20: without, 25: with_made, 30: with_lent, 35: with_both}
    for examples, update in answers.items():
        assert update.cost.train_macs == 2 * examples * part_macs(OTHER), "negatives are work too"
        assert update.examples == 20, "they are no examples of any class"
    part = worker.do(Task("train", 6, 7, Blob.of(part_of_theta(CUT)), RECIPE, CUT, outliers=0.25))
    assert sha(part) == trained_by_hand(CUT, own), "a part without the output has no use for them"
    assert part.cost.train_macs == 2 * 20 * part_macs(CUT)


def test_what_is_lent_next_takes_the_place_of_what_was_lent(two_classes: Callable[[], Worker]) -> None:
    worker, task = two_classes(), Task("train", 3, 7, Blob.of(part_of_theta(OTHER)), RECIPE, OTHER)
    for call, count in ((1, 10), (2, 4), (3, 0)):
        worker.do(Task("lend", call, 0, encode_samples(others().select(torch.arange(count)))))
        assert worker.do(task).cost.train_macs == 2 * (20 + count) * part_macs(OTHER)


@pytest.mark.parametrize("cut", [CUT, OTHER])
def test_a_part_never_predicts_a_class_of_others(two_classes: Callable[[], Worker], cut: Cut) -> None:
    worker, params = two_classes(), part_of_theta(cut)
    if cut.other:
        params["4.bias"] = torch.tensor([0.0, 0.0, 1e6])  # as sure as can be that nothing is its own
    measured = worker.do(Task("evaluate", 1, 0, Blob.of(params), cut=cut))
    confusion = torch.tensor(measured.metrics["confusion"])
    assert confusion.sum(1).tolist() == [10, 10, 10]
    assert confusion[:, 1].sum() == 0
    assert confusion[:, [0, 2]].sum() == 30
    assert 0 < measured.metrics["loss"] < 10, "'other' is no part of the loss"


@pytest.mark.parametrize("outliers", [0.0, 0.3])
@pytest.mark.parametrize("cut", [None, CUT, OTHER])
def test_the_cost_can_be_told_before(
    two_classes: Callable[[], Worker], cut: Cut | None, outliers: float
) -> None:
    worker = two_classes()
    worker.do(Task("lend", 1, 0, encode_samples(others())))
    params = network().state_dict() if cut is None else part_of_theta(cut)
    task = Task("train", 2, 7, Blob.of(params), RECIPE, cut, outliers=outliers)
    foretold = worker.cost_of(task)
    spent = worker.do(task).cost
    assert foretold == replace(spent, seconds=0.0, peak_memory_bytes=0)
    examples = 20 + (10 + round(20 * outliers) if cut is OTHER else 0)
    each = part_macs(cut) if cut else flops.train_macs_per_example(network(), (1, 8, 8))
    assert foretold.train_macs == 2 * examples * each


def test_a_cut_that_does_not_fit_the_model_is_refused(make_worker: MakeWorker) -> None:
    with pytest.raises(CutError, match="no group 'conv'"):
        make_worker().do(Task("train", 1, 7, theta(), RECIPE, Cut((("conv", ((0, 1),)),))))


def test_a_share_by_uncertainty_goes_by_the_model_that_is_held(make_worker: MakeWorker) -> None:
    worker = make_worker()
    worker.do(Task("train", 1, 7, theta(), RECIPE))
    answer = worker.do(Task("share", 2, 7, share=Share(count=3, choose="uncertain")))
    assert answer.blob is not None
    model = network()
    train_model(model, worker.data.train, RECIPE, PREPARE, 7)
    p = forward(model, worker.data.train, PREPARE).softmax(1)
    least = (p * p.log()).sum(1).argsort()[:3].sort().values
    shared = decode_samples(answer.blob)
    assert torch.equal(shared.inputs, worker.data.train.inputs[worker.data.train.positions[least]])
    assert answer.cost.train_macs == 25 * flops.macs_per_example(network(), (1, 8, 8))


@pytest.mark.parametrize("statistic", [Statistic("gram"), Statistic("fisher", 10)])
def test_a_statistic_goes_up_beside_the_parameters(make_worker: MakeWorker, statistic: Statistic) -> None:
    worker = make_worker()
    plain = worker.do(Task("train", 1, 7, theta(), RECIPE))
    task = Task("train", 2, 7, theta(), RECIPE, statistic=statistic)
    answer = worker.do(task)
    assert Blob.of(answer.params).sha256 == sha(plain), "what was trained is what it would have been"
    model = network()
    model.load_state_dict(answer.params)
    expected = merge_statistics.compute(model, worker.data.train, statistic, PREPARE, 7)
    found = answer.statistics
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert plain.statistics == {}
    assert plain.blob is not None
    assert answer.blob is not None
    assert answer.blob.size > plain.blob.size + sum(value.nbytes for value in found.values())
    assert sha(worker.do(Task("collect", 3, 7))) == sha(plain), "a site holds parameters alone"

    macs, examples = Network(network(), (1, 8, 8)), statistic.examples or 25
    more = answer.cost.train_macs - plain.cost.train_macs
    assert more == examples * macs.statistic_macs(statistic.kind)
    assert answer.cost.train_macs == worker.cost_of(task).train_macs


def test_no_statistic_is_computed_for_nobody(make_worker: MakeWorker) -> None:
    worker = make_worker()
    silent = Task("train", 1, 7, theta(), RECIPE, reply=False)
    asked = replace(silent, statistic=Statistic("gram"))
    assert worker.do(asked).cost.train_macs == worker.do(silent).cost.train_macs
