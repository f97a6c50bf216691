"""What edges compute for a merge: moments of a layer's inputs, and of the gradient."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import toys
from torch import Tensor, nn
from torch.nn import functional as F

from sheaf.core.dataset import Samples
from sheaf.core.recipe import Statistic
from sheaf.core.seeds import generator
from sheaf.training import merge_statistics
from sheaf.training.loop import Preparation

PREPARE = Preparation((0.1, 0.2, 0.3), (0.5, 0.6, 0.7), torch.device("cpu"))
every_toy = pytest.mark.parametrize("toy", toys.EVERY, ids=lambda toy: toy.__name__)


def samples(count: int = 12) -> Samples:
    drawn = torch.randint(256, (count, *toys.SHAPE), generator=generator(3), dtype=torch.uint8)
    return Samples.of(drawn, torch.arange(count) % 5)


@every_toy
@pytest.mark.parametrize("kind", ["gram", "fisher"])
def test_a_blank_says_what_will_come(toy, kind):
    model = toys.randomised(toy())
    before = {name: value.clone() for name, value in model.state_dict().items()}
    found = merge_statistics.compute(model, samples(), Statistic(kind), PREPARE, 1)
    blank = merge_statistics.blank(model, kind)
    assert found.keys() == blank.keys()
    assert [value.shape for value in found.values()] == [value.shape for value in blank.values()]
    assert {value.dtype for value in (*found.values(), *blank.values())} == {torch.float32}
    assert all(torch.isfinite(value).all() for value in found.values())
    after = model.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())


def test_grouped_convolutions_have_no_gram_matrix():
    assert set(merge_statistics.blank(toys.Grouped(), "gram")) == {"0.weight", "5.weight", "8.weight"}


CONVOLUTIONS: list[dict[str, Any]] = [
    {"kernel_size": 3},
    {"kernel_size": (2, 3), "stride": (2, 1), "padding": (1, 0), "dilation": (1, 2)},
    {"kernel_size": 3, "padding": "same", "dilation": 2},
    {"kernel_size": 2, "padding": 1, "padding_mode": "reflect"},
    {"kernel_size": 3, "padding": "same", "padding_mode": "circular"},
]


@pytest.mark.parametrize("options", CONVOLUTIONS)
def test_a_gram_matrix_gives_the_mean_square_of_the_outputs(options, monkeypatch):
    monkeypatch.setattr(merge_statistics, "ENTRIES", 5000)  # a few examples at a time
    conv = nn.Conv2d(3, 7, bias=False, **options)
    found = merge_statistics.gram(nn.Sequential(conv, nn.Flatten()), samples(), PREPARE)["0.weight"]
    weight = conv.weight.detach().flatten(1)
    squares = conv(PREPARE(samples().inputs)).square().sum((2, 3)).mean(0).detach()
    torch.testing.assert_close((weight @ found * weight).sum(1), squares)


def test_a_layer_used_twice_counts_both_times():
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(8, 8)

        def forward(self, x: Tensor) -> Tensor:
            return self.fc(self.fc(x))

    model, x = Twice(), PREPARE(samples().inputs)
    found = merge_statistics.gram(model, samples(), PREPARE)["fc.weight"]
    taken = torch.cat([x.flatten(0, -2), model.fc(x).flatten(0, -2)]).detach()
    torch.testing.assert_close(found, taken.T @ taken / len(x), rtol=1e-4, atol=1e-4)


def test_the_fisher_information_of_a_softmax_is_known():
    """Of the bias of class c, E (dlog p)^2 = p_c (1 - p_c), whatever the labels say."""
    one = samples(1)
    many = Samples(one.inputs, one.targets, torch.zeros(20_000, dtype=torch.int64))
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 9 * 8, 5))
    nn.init.normal_(model[1].weight, std=0.03, generator=generator(0))
    p = model(PREPARE(one.inputs)).softmax(1)[0].detach()
    assert p.min() > 0.05
    found = merge_statistics.fisher(model, many, PREPARE, 4)
    torch.testing.assert_close(found["1.bias"], p * (1 - p), rtol=0.05, atol=0)
    x = PREPARE(one.inputs).flatten()
    torch.testing.assert_close(found["1.weight"], torch.outer(found["1.bias"], x**2), rtol=1e-3, atol=1e-6)


class Looking(toys.Depthwise):
    """Runs one batch at a time, as it looks at a value."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) if x.mean().item() < 1e9 else x


def test_a_model_that_looks_at_values_is_run_for_one_example_after_another():
    model, looking = toys.randomised(toys.Depthwise()), toys.randomised(Looking())
    together = merge_statistics.fisher(model, samples(), PREPARE, 4)
    alone = merge_statistics.fisher(looking, samples(), PREPARE, 4)
    for name, value in together.items():
        torch.testing.assert_close(alone[name], value, rtol=1e-3, atol=1e-7)


def test_the_fisher_information_is_the_mean_square_of_each_examples_gradient(monkeypatch):
    model = toys.randomised(toys.Plain())
    with torch.no_grad():
        model[-1].weight.mul_(1e4)  # so sure of its answers that what is drawn is its answer
    found = merge_statistics.fisher(model, samples(), PREPARE, 4)
    monkeypatch.setattr(merge_statistics, "ENTRIES", 1)
    apart = merge_statistics.fisher(model, samples(), PREPARE, 4)
    sums = {name: torch.zeros_like(value) for name, value in model.named_parameters()}
    for x in PREPARE(samples().inputs).split(1):
        model.zero_grad()
        logits = model(x)
        F.cross_entropy(logits, logits.argmax(1)).backward()
        for name, parameter in model.named_parameters():
            sums[name] += parameter.grad.square()
    for name, total in sums.items():
        torch.testing.assert_close(found[name], total / 12, rtol=1e-3, atol=1e-12)
        torch.testing.assert_close(apart[name], found[name], rtol=1e-3, atol=1e-12)


def test_examples_are_drawn_from_the_seed():
    model, own = toys.randomised(toys.Residual()), samples(40)

    def computed(examples: int | None, seed: int) -> Tensor:
        return merge_statistics.compute(model, own, Statistic("gram", examples), PREPARE, seed)["stem.weight"]

    assert torch.equal(computed(7, 1), computed(7, 1))
    assert not torch.equal(computed(7, 1), computed(7, 2))
    assert torch.equal(computed(40, 1), computed(None, 2))
    assert torch.equal(computed(99, 1), computed(None, 2))


def test_what_a_gram_matrix_costs_is_counted():
    # 7 x 6 positions of the convolution, 27 inputs each; then one row of 42 inputs.
    model = nn.Sequential(nn.Conv2d(3, 1, 3), nn.Flatten(), nn.Linear(7 * 6, 2))
    assert merge_statistics.gram_macs_per_example(model, toys.SHAPE) == 7 * 6 * 27**2 + (7 * 6) ** 2
