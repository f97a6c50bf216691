"""The one loop: the same bits as one written by hand, and nothing left behind."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace
from typing import get_args, get_type_hints

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from sheaf.core.dataset import Samples
from sheaf.core.errors import SettingError
from sheaf.core.recipe import Recipe
from sheaf.core.seeds import generator
from sheaf.training import loop
from sheaf.training.metrics import confusion_matrix

K = 4
PREPARE = loop.Preparation((0.4,), (0.2,), torch.device("cpu"))


def samples(n: int = 50) -> Samples:
    draws = generator(8)
    labels = torch.arange(n) % K
    inputs = torch.randint(60, (n, 1, 8, 8), generator=draws, dtype=torch.uint8)
    inputs[torch.arange(n), 0, labels] += 150  # a bright row tells the class
    return Samples.of(inputs, labels)


def linear() -> nn.Module:
    return made(nn.Flatten(), nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, K))


def convolutional() -> nn.Module:
    return made(nn.Conv2d(1, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Flatten(), nn.Linear(216, K))


def forgetful() -> nn.Module:
    return made(nn.Flatten(), nn.Dropout(0.5), nn.Linear(64, K))


def made(*layers: nn.Module) -> nn.Module:
    model = nn.Sequential(*layers)
    draws = generator(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.rand(parameter.shape, generator=draws) * 0.2 - 0.1)
    return model


def bits(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def trained(make, recipe: Recipe, seed: int = 3, given_samples: Samples | None = None) -> dict[str, Tensor]:
    model = make()
    loop.train(model, given_samples or samples(), recipe, PREPARE, seed)
    return bits(model)


@given(st.integers(0, 500), st.integers(1, 70))
def test_batches_hold_every_example_and_never_one_alone(n: int, batch_size: int) -> None:
    sizes = loop.batch_sizes(n, batch_size)
    assert sum(sizes) == n
    assert all(size == batch_size for size in sizes[:-1])
    assert all(0 < size <= batch_size + 1 for size in sizes)
    assert 1 not in sizes or n == 1 or batch_size == 1


@given(st.integers(0, 60), st.integers(1, 20), st.integers(0, 9))
def test_a_pass_meets_each_example_once(n: int, batch_size: int, seed: int) -> None:
    pool = Samples.of(torch.arange(100).view(100, 1, 1, 1), torch.arange(100))
    part = pool.select(torch.randperm(100, generator=generator(seed))[:n])
    met = list(loop.batches(part, batch_size, generator(seed), PREPARE.device))
    assert [len(labels) for _, labels in met] == loop.batch_sizes(n, batch_size)
    assert all(torch.equal(inputs.flatten(), labels) for inputs, labels in met)
    assert sorted(label for _, labels in met for label in labels.tolist()) == sorted(part.labels.tolist())


OPTIMIZERS = {
    "sgd": lambda parameters: torch.optim.SGD(parameters, 0.02, 0.8, weight_decay=0.01, fused=True),
    "adam": lambda parameters: torch.optim.Adam(parameters, 0.02, weight_decay=0.01, fused=True),
    "adamw": lambda parameters: torch.optim.AdamW(parameters, 0.02, weight_decay=0.01, fused=True),
}


@pytest.mark.parametrize("name", list(OPTIMIZERS))
@pytest.mark.parametrize("make", [linear, convolutional])
def test_it_ends_with_the_bits_of_a_loop_written_by_hand(name: str, make) -> None:
    recipe = Recipe(epochs=2, batch_size=16, optimizer=name, lr=0.02, momentum=0.8, weight_decay=0.01)
    model, by_hand, data, draws = (
        make(),
        make().to(memory_format=torch.channels_last),
        samples(),
        generator(3),
    )
    losses = loop.train(model, data, recipe, PREPARE, 3)
    optimizer, expected = OPTIMIZERS[name](by_hand.parameters()), []
    for _ in range(2):
        order, total = torch.randperm(50, generator=draws), 0.0
        for positions in order.split(16):
            x = (data.inputs[positions].float() - 0.4 * 255) / (0.2 * 255)
            loss = F.cross_entropy(by_hand(x), data.targets[positions])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += loss.item() * len(positions)
        expected.append(total / 50)
    assert same(bits(model), bits(by_hand))
    assert losses == expected


@pytest.mark.parametrize("make", [linear, convolutional])
def test_a_tail_leaves_the_mean_of_what_the_last_steps_made(make) -> None:
    step = Recipe(epochs=1, batch_size=50, optimizer="sgd", lr=0.02, momentum=0.0)
    model, made_of = make(), []
    for _ in range(3):
        loop.train(model, samples(), step, PREPARE, 3)
        made_of.append(bits(model))
    for tail, last in ((1e-3, 1), (2 / 3, 2), (1.0, 3)):
        averaged = trained(make, replace(step, epochs=3, tail=tail))
        for name, value in averaged.items():
            expected = made_of[-1][name]
            if value.is_floating_point():
                expected = torch.stack([each[name] for each in made_of[-last:]]).mean(0)
            torch.testing.assert_close(value, expected)


def test_it_learns() -> None:
    model = linear()
    losses = loop.train(model, samples(), Recipe(epochs=30, batch_size=10, lr=0.01), PREPARE, 3)
    assert losses[-1] < 0.1 * losses[0]
    confusion, _ = loop.evaluate(model, samples(), PREPARE, K)
    assert confusion.diagonal().sum() == 50


def rates(schedule: str, steps: int) -> list[float]:
    recipe = Recipe(optimizer="sgd", lr=0.5, momentum=0.7, schedule=schedule)
    optimizer = loop.make_optimizer(linear(), recipe)
    scheduler = loop.make_scheduler(optimizer, recipe, steps)
    found = []
    for _ in range(steps):
        found.append(optimizer.param_groups[0]["lr"])
        assert optimizer.param_groups[0]["momentum"] == 0.7, "a schedule moves the learning rate alone"
        optimizer.step()
        if scheduler is not None:
            scheduler.step()
    return found


def test_schedules() -> None:
    assert rates("constant", 5) == [0.5] * 5
    cosine = [0.25 * (1 + math.cos(math.pi * step / 40)) for step in range(40)]
    assert rates("cosine", 40) == pytest.approx(cosine)
    one_cycle = rates("onecycle", 40)
    top = one_cycle.index(max(one_cycle))
    assert one_cycle[0] == pytest.approx(0.5 / 25)
    assert max(one_cycle) == pytest.approx(0.5)
    assert top == 11, "three tenths of the way"
    assert one_cycle == sorted(one_cycle[:top]) + sorted(one_cycle[top:], reverse=True)
    assert one_cycle[-1] < 1e-4


LITERALS = {
    name: get_args(hint)
    for name, hint in get_type_hints(Recipe).items()
    if name in ("optimizer", "schedule", "precision")
}


@pytest.mark.parametrize("choice", list(itertools.product(*LITERALS.values())), ids="-".join)
def test_every_recipe_trains(choice: tuple[str, ...]) -> None:
    recipe = Recipe(
        epochs=2, batch_size=24, augment=("flip", "crop"), **dict(zip(LITERALS, choice, strict=True))
    )
    model = convolutional()
    before = bits(model)
    losses = loop.train(model, samples(), recipe, PREPARE, 3)
    assert len(losses) == 2
    assert all(math.isfinite(loss) for loss in losses)
    assert not torch.equal(before["0.weight"], bits(model)["0.weight"])


@pytest.mark.parametrize(("epochs", "n"), [(1, 1), (1, 2), (2, 2), (3, 2), (4, 2)])
def test_schedules_of_few_steps(epochs: int, n: int) -> None:
    for schedule in LITERALS["schedule"]:
        recipe = Recipe(epochs=epochs, batch_size=64, schedule=schedule)
        assert len(loop.train(linear(), samples(n), recipe, PREPARE, 3)) == epochs


def test_no_epoch_changes_nothing() -> None:
    for schedule in LITERALS["schedule"]:
        recipe = Recipe(epochs=0, schedule=schedule)
        assert same(trained(convolutional, recipe), bits(convolutional()))


@pytest.mark.parametrize("make", [linear, convolutional, forgetful])
@pytest.mark.parametrize("augment", [(), ("flip",), ("crop",)])
def test_same_seed_same_bits(make, augment: tuple[str, ...]) -> None:
    recipe = Recipe(epochs=2, batch_size=16, augment=augment)
    torch.manual_seed(1)
    first = trained(make, recipe, seed=2**63 - 1)
    torch.manual_seed(2)
    assert same(trained(make, recipe, seed=2**63 - 1), first)
    assert not same(trained(make, recipe, seed=4), first)


def test_dropout_draws_from_the_seed() -> None:
    recipe, one = Recipe(epochs=1, batch_size=64), samples(1)  # a single example has but one order
    assert same(trained(forgetful, recipe, 1, one), trained(forgetful, recipe, 1, one))
    assert not same(trained(forgetful, recipe, 1, one), trained(forgetful, recipe, 2, one))


def test_the_global_generator_is_left_alone() -> None:
    model, data = forgetful(), samples()  # torch's layers draw when they are made
    before = torch.get_rng_state()
    loop.train(model, data, Recipe(epochs=2, augment=("flip", "crop")), PREPARE, 3)
    loop.evaluate(model, data, PREPARE, K)
    assert torch.equal(torch.get_rng_state(), before)


def test_frozen_parameters_stay() -> None:
    model = linear()
    model[1].requires_grad_(False)
    before = bits(model)
    loop.train(model, samples(), Recipe(epochs=1, weight_decay=0.5), PREPARE, 3)
    after = bits(model)
    assert torch.equal(after["1.weight"], before["1.weight"])
    assert not torch.equal(after["3.weight"], before["3.weight"])


@pytest.mark.parametrize("optimizer", LITERALS["optimizer"])
def test_a_learning_rate_beyond_reason_ends_in_a_loss_that_says_so(optimizer: str) -> None:
    model = convolutional()
    losses = loop.train(model, samples(), Recipe(epochs=4, lr=1e30, optimizer=optimizer), PREPARE, 3)
    assert len(losses) == 4
    assert not all(0 <= loss < 1e6 for loss in losses)
    confusion, _ = loop.evaluate(model, samples(), PREPARE, K)
    assert confusion.sum() == 50


@pytest.mark.parametrize("n", [17, 33, 2, 16])
def test_batch_norm_never_meets_one_example_alone(n: int) -> None:
    narrow = made(nn.Flatten(), nn.Linear(64, K), nn.BatchNorm1d(K))  # torch refuses one example here
    losses = loop.train(narrow, samples(n), Recipe(epochs=2, batch_size=16), PREPARE, 3)
    assert all(math.isfinite(loss) for loss in losses)
    assert bits(narrow)["2.num_batches_tracked"].item() == 2 * len(loop.batch_sizes(n, 16))


def test_progress_ends_with_the_last_step() -> None:
    told = []
    loop.train(
        linear(), samples(), Recipe(epochs=3, batch_size=5), PREPARE, 3, lambda *step: told.append(step)
    )
    assert [done for done, *_ in told] == [16, 30]
    assert {steps for _, steps, *_ in told} == {30}
    assert all(math.isfinite(loss) for _, _, loss, _ in told)
    assert told[-1][-1] == 3 * len(samples()), "every example of every epoch"


@pytest.mark.parametrize("n", [1, 511, 512, 513, 1030])
def test_an_evaluation_counts_every_example_once(n: int) -> None:
    data, model = samples(n), convolutional()
    confusion, loss = loop.evaluate(model, data, PREPARE, K)
    with torch.no_grad():
        logits = model.eval()(PREPARE(data.inputs))
    assert confusion.equal(confusion_matrix(data.labels, logits.argmax(1), K))
    assert confusion.sum() == n
    assert loss == pytest.approx(F.cross_entropy(logits, data.labels).item(), rel=1e-5)


@pytest.mark.parametrize("known", [None, torch.tensor([2, 0])])
def test_every_class_counts_the_same_in_a_judgement(known: torch.Tensor | None) -> None:
    data, model = samples(), convolutional()
    data = data.select(torch.arange(len(data)) % 5 > 0)  # not as many of each
    accuracy, losses = loop.judge(model, data, PREPARE, K, known)
    confusion, _ = loop.evaluate(model, data, PREPARE, K, known)
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
    loop.evaluate(model, samples(), PREPARE, K)
    assert same(bits(model), bits(convolutional()))


def test_a_model_trains_after_it_was_evaluated() -> None:
    prepare = replace(PREPARE)  # with nothing computed yet, as in a run that was resumed
    model = convolutional()
    loop.evaluate(model, samples(), prepare, K)
    loop.train(model, samples(), Recipe(), prepare, 3)
    assert same(bits(model), trained(convolutional, Recipe()))


def test_bytes_and_features_are_normalised_alike() -> None:
    prepare = loop.Preparation((0.1, 0.2, 0.3), (0.5, 0.25, 0.125), torch.device("cpu"))
    images = torch.randint(256, (5, 3, 4, 4), generator=generator(1), dtype=torch.uint8)
    expected = (images.double() / 255 - torch.tensor([0.1, 0.2, 0.3]).view(3, 1, 1)) / torch.tensor(
        [0.5, 0.25, 0.125]
    ).view(3, 1, 1)
    for given_inputs in (images, images.float() / 255):
        before = given_inputs.clone()
        x = prepare(given_inputs)
        assert x.dtype == torch.float32
        torch.testing.assert_close(x, expected.float(), rtol=1e-5, atol=1e-5)
        assert torch.equal(given_inputs, before)


def test_devices() -> None:
    assert loop.pick_device("cpu") == torch.device("cpu")
    there = ["cpu"] + ["cuda"] * torch.cuda.is_available() + ["mps"] * torch.backends.mps.is_available()
    assert loop.pick_device("auto").type in there
    for name in {"cuda", "mps"} - set(there):
        with pytest.raises(SettingError, match=f"fleet.device = '{name}': .* there are: auto, .*cpu"):
            loop.pick_device(name)


def test_evaluate_a_part_with_outputs_for_some_classes() -> None:
    data, classes = samples(), torch.tensor([1, 3])
    model = made(nn.Flatten(), nn.Linear(64, 3))  # two classes and "other"
    with torch.no_grad():
        model[1].bias[2] = 1e6
    confusion, loss = loop.evaluate(model, data, PREPARE, K, classes)
    logits = model((data.inputs - 0.4 * 255) / (0.2 * 255)).detach()[:, :2]
    expected = confusion_matrix(data.labels, classes[logits.argmax(1)], K)
    assert torch.equal(confusion, expected)
    assert confusion[:, [0, 2]].sum() == 0
    own = torch.isin(data.labels, classes)
    assert loss == pytest.approx(F.cross_entropy(logits[own], data.labels[own] // 2).item())
    assert torch.equal(
        loop.evaluate(linear(), data, PREPARE, K)[0],
        loop.evaluate(linear(), data, PREPARE, K, torch.arange(K))[0],
    )


def test_forward_gives_the_logits_in_order() -> None:
    data = samples(1100).select(torch.randperm(1100, generator=generator(5)))  # three batches
    model = convolutional().train()
    logits = loop.forward(model, data, PREPARE)
    with torch.no_grad():
        expected = model.eval()(PREPARE(data.inputs[data.positions]))
    assert (logits.shape, logits.dtype, logits.requires_grad) == ((1100, K), torch.float32, False)
    torch.testing.assert_close(logits, expected)


def two_norms() -> nn.Module:
    model = made(
        nn.Conv2d(1, 6, 3),
        nn.BatchNorm2d(6, momentum=0.3),
        nn.ReLU(),
        nn.Flatten(),
        nn.Dropout(),
        nn.Linear(216, 5),
        nn.BatchNorm1d(5),
        nn.Linear(5, K),
    )
    with torch.no_grad():
        model[1].running_mean.fill_(7)
    return model


def test_new_statistics_are_those_of_what_flows_through() -> None:
    model, data = two_norms(), samples().select(torch.arange(3, 40))
    before = bits(model)
    loop.reestimate_statistics(model, data, PREPARE)
    with torch.no_grad():
        x = model[0](PREPARE(data.inputs[data.positions]))
        y = model[5](F.batch_norm(x, None, None, model[1].weight, model[1].bias, True).relu().flatten(1))
    for norm, taken, dims in ((model[1], x, (0, 2, 3)), (model[6], y, (0,))):
        torch.testing.assert_close(norm.running_mean, taken.mean(dims))
        torch.testing.assert_close(norm.running_var, taken.var(dims))
    assert (model[1].momentum, model[6].momentum) == (0.3, 0.1)
    changed = {name for name, value in bits(model).items() if not torch.equal(value, before[name])}
    assert {name.split(".")[1] for name in changed} == {"running_mean", "running_var", "num_batches_tracked"}


def test_every_example_of_several_batches_counts_the_same() -> None:
    model, data = two_norms(), samples(600)
    data.inputs[512:] += 40  # a last batch that is unlike the others, and smaller if it is a rest
    loop.reestimate_statistics(model, data, PREPARE)
    with torch.no_grad():
        x = model[0](PREPARE(data.inputs))
    torch.testing.assert_close(model[1].running_mean, x.mean((0, 2, 3)))


def test_new_statistics_of_a_network_without_any_change_nothing() -> None:
    model = linear()
    before = bits(model)
    loop.reestimate_statistics(model, samples(), PREPARE)
    assert same(bits(model), before)


LOGITS = torch.tensor([[1.0, -2.0, 3.0, 0.5], [0.0, 4.0, -1.0, 2.0]])


def test_the_plain_softmax_is_alpha_one() -> None:
    assert loop.restricted(LOGITS, torch.tensor([0]), 1.0) is LOGITS


def test_a_restricted_softmax_scales_what_is_absent() -> None:
    held = torch.tensor([0, 2])
    expected = LOGITS * torch.tensor([1.0, 0.5, 1.0, 0.5])
    assert torch.equal(loop.restricted(LOGITS, held, 0.5), expected)
    assert torch.equal(loop.restricted(LOGITS, held, 0.0), LOGITS * torch.tensor([1.0, 0, 1.0, 0]))


def test_a_masked_softmax_is_that_over_the_held_classes_alone() -> None:
    held = torch.tensor([0, 2])
    p = loop.restricted(LOGITS, held, "mask").softmax(1)
    assert torch.equal(p[:, held], LOGITS[:, held].softmax(1))
    assert p[:, [1, 3]].abs().sum() == 0


@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0, "mask"])
def test_less_alpha_moves_absent_rows_of_the_classifier_less(alpha: float | str) -> None:
    inputs = torch.randint(256, (40, 1, 4, 4), generator=generator(3), dtype=torch.uint8)
    data = Samples.of(inputs, torch.arange(40) % 2)  # of four classes
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 4))
    nn.init.normal_(model[1].weight, generator=generator(1))
    before = model[1].weight.detach().clone()
    loop.train(model, data, Recipe(optimizer="sgd", lr=0.1, alpha=alpha), PREPARE, 5)  # type: ignore[arg-type]
    moved = (model[1].weight - before).abs().sum(1)
    assert (moved[:2] > 0).all()
    assert (moved[2:] == 0).all() == (alpha in (0.0, "mask"))
