"""Running statistics that are estimated anew."""

from __future__ import annotations

import torch
from striped_digits import PREPARE, K, bits, linear, made, same, samples
from torch import nn
from torch.nn import functional as F

from sheaf.core.dataset import Samples
from sheaf.training.batch_norm import blank_sums, reestimate_statistics, set_from_sums, sum_inputs


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
    reestimate_statistics(model, data, PREPARE)
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
    reestimate_statistics(model, data, PREPARE)
    with torch.no_grad():
        x = model[0](PREPARE(data.inputs))
    torch.testing.assert_close(model[1].running_mean, x.mean((0, 2, 3)))


def test_new_statistics_of_a_network_without_any_change_nothing() -> None:
    model = linear()
    before = bits(model)
    reestimate_statistics(model, samples(), PREPARE)
    assert same(bits(model), before)


def sums_of(model: nn.Module, data: Samples) -> dict[str, torch.Tensor]:
    return sum_inputs(model, data, PREPARE, 3)


def test_statistics_from_the_sums_of_one_site_are_those_of_its_samples() -> None:
    model, data = two_norms(), samples().select(torch.arange(3, 40))
    before = bits(model)
    sums = sums_of(model, data)
    assert same(bits(model), before), "computing sums changes no buffer"
    assert {name: (value.shape, value.dtype) for name, value in sums.items()} == {
        name: (value.shape, value.dtype) for name, value in blank_sums(model).items()
    }
    set_from_sums(model, sums)
    expected = two_norms()
    reestimate_statistics(expected, data, PREPARE)
    for at in (1, 6):
        torch.testing.assert_close(model[at].running_mean, expected[at].running_mean)
        torch.testing.assert_close(model[at].running_var, expected[at].running_var)


def test_sums_of_sites_add_up_to_those_of_the_pool() -> None:
    """In the first layer; later ones see inputs that each mini-batch normalised, nearly equal here."""
    model, data = two_norms(), samples(90)
    parts = [data.select(torch.arange(0, 20)), data.select(torch.arange(20, 90))]
    each = [sums_of(model, part) for part in parts]
    total = {name: sum(sums[name] for sums in each) for name in each[0]}
    pooled = sums_of(model, data)
    for name in ("1.count", "1.sum", "1.squares", "6.count"):
        torch.testing.assert_close(total[name], pooled[name], rtol=1e-5, atol=1e-3)
    torch.testing.assert_close(total["6.squares"], pooled["6.squares"], rtol=1e-2, atol=0)


def test_a_frozen_norm_has_no_sums() -> None:
    model = two_norms()
    model[1].requires_grad_(False)
    assert {name.split(".")[0] for name in blank_sums(model)} == {"6"}
    assert {name.split(".")[0] for name in sums_of(model, samples())} == {"6"}
