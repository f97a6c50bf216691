"""Running statistics that are estimated anew."""

from __future__ import annotations

import torch
from striped_digits import PREPARE, K, bits, linear, made, same, samples
from torch import nn
from torch.nn import functional as F

from sheaf.training.batch_norm import reestimate_statistics


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
