"""Each merge against its formula, worked out another way."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.stats
import torch
from pydantic import ValidationError
from torch import Tensor, nn

from sheaf.core.dataset import Samples
from sheaf.core.errors import CutError
from sheaf.core.task import Cost, Update
from sheaf.core.tensor_file import Blob
from sheaf.core.types import Params
from sheaf.merges.rules.aligned import Aligned
from sheaf.merges.rules.by_class import ByClass
from sheaf.merges.rules.fisher import Fisher
from sheaf.merges.rules.median import Median
from sheaf.merges.rules.regmean import Regmean
from sheaf.merges.rules.regmean_plus_plus import RegmeanPlusPlus
from sheaf.merges.rules.trimmed_mean import TrimmedMean
from sheaf.submodels.weight_matching import permute
from sheaf.training import merge_statistics
from sheaf.training.loop import Preparation
from sheaf.training.network import Network

PREPARE = Preparation((0.0, 0.0), (1.0, 1.0), torch.device("cpu"))
SHAPE = (2, 5, 6)


def made(seed: int) -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(
            nn.Conv2d(2, 3, (2, 3), stride=2, padding=(1, 0), dilation=(1, 2), bias=False),
            nn.Flatten(),
            nn.Linear(9, 4),
            nn.Tanh(),
            nn.Linear(4, 3),
        )


def network() -> Network:
    return Network(made(0), SHAPE)


def inputs(seed: int, count: int) -> Samples:
    drawn = torch.randn(count, *SHAPE, generator=torch.Generator().manual_seed(seed))
    return Samples.of(drawn, torch.arange(count) % 3)


def update(site: str, params: Params, counts: tuple[int, ...], **statistic: Params) -> Update:
    named = {f".{kind}.{name}": value for kind, found in statistic.items() for name, value in found.items()}
    return Update(site, "train", Blob.of({**params, **named}), counts, {}, Cost())


def test_by_class_weighs_each_row_by_the_examples_of_its_class() -> None:
    theta, a, b = (made(seed).state_dict() for seed in range(3))
    merged = ByClass()(theta, [update("a", a, (6, 2, 0)), update("b", b, (0, 1, 0))], network())
    for name in ("4.weight", "4.bias"):
        torch.testing.assert_close(merged[name][0], a[name][0])
        torch.testing.assert_close(merged[name][1], (2 * a[name][1] + b[name][1]) / 3)
        assert torch.equal(merged[name][2], theta[name][2]), "nobody's class"
    for name in ("0.weight", "2.weight", "2.bias"):
        torch.testing.assert_close(merged[name], (8 * a[name] + b[name]) / 9)


def test_by_class_needs_a_classifier() -> None:
    single = Network(nn.Sequential(nn.Flatten(), nn.Unflatten(1, (1, 60)), nn.AvgPool1d(20)), SHAPE)
    with pytest.raises(CutError):
        ByClass()({}, [], single)


def taken_by(model: nn.Sequential, layer: int, samples: Samples) -> Tensor:
    return model[:layer](samples.inputs).detach()


@pytest.mark.parametrize("examples", [(40, 40), (25, 90)])
def test_regmean_is_the_least_squares_fit_to_what_the_edges_layers_give(examples: tuple[int, int]) -> None:
    models, own = [made(1), made(2)], [inputs(5 + k, n) for k, n in enumerate(examples)]
    updates = [
        update(
            f"e{k}",
            model.state_dict(),
            tuple(samples.counts(3).tolist()),
            gram=merge_statistics.gram(model, samples, PREPARE),
        )
        for k, (model, samples) in enumerate(zip(models, own, strict=True))
    ]
    merged = Regmean(off_diagonal=1.0)(made(0).state_dict(), updates, network())
    for layer in (2, 4):
        X = torch.cat([taken_by(m, layer, s) for m, s in zip(models, own, strict=True)]).double().numpy()
        Y = torch.cat([taken_by(m, layer, s) @ m[layer].weight.T for m, s in zip(models, own, strict=True)])
        fit = np.linalg.lstsq(X, Y.detach().double().numpy(), rcond=None)[0]
        np.testing.assert_allclose(merged[f"{layer}.weight"].T, fit, rtol=2e-3, atol=2e-4)
        torch.testing.assert_close(
            merged[f"{layer}.bias"],
            (examples[0] * models[0][layer].bias + examples[1] * models[1][layer].bias).detach()
            / sum(examples),
        )

    # The convolution: what its outputs are off by, from both edges, can be made no smaller.
    weight = merged["0.weight"].clone().requires_grad_()
    loss = torch.zeros(())
    for model, samples in zip(models, own, strict=True):
        conv = model[0]
        given = torch.conv2d(samples.inputs, weight, None, conv.stride, conv.padding, conv.dilation)
        loss = loss + (given - conv(samples.inputs).detach()).square().sum()
    loss.backward()
    assert weight.grad is not None
    assert weight.grad.abs().max() < 1e-4 * loss.item()


def test_regmean_plus_plus_fits_each_layer_to_inputs_of_the_merged_layers_before_it() -> None:
    models, own = [made(1), made(2)], [inputs(5, 40), inputs(6, 60)]
    updates = [
        update(f"e{k}", model.state_dict(), tuple(samples.counts(3).tolist()))
        for k, (model, samples) in enumerate(zip(models, own, strict=True))
    ]
    merge = RegmeanPlusPlus(off_diagonal=1.0)
    merged = merge(made(0).state_dict(), updates, network())
    for name, value in models[0].state_dict().items():
        torch.testing.assert_close(merged[name], 0.4 * value + 0.6 * models[1].state_dict()[name])
    partly = made(0)
    for layer in (0, 2, 4):
        partly.load_state_dict(merged)
        name = f"{layer}.weight"
        sent = [
            update(f"e{k}", {}, tuple(samples.counts(3).tolist()),
                   gram=merge_statistics.gram(partly, samples, PREPARE, name))
            for k, samples in enumerate(own)
        ]  # fmt: skip
        merged = merge.fit_layer(merged, updates, sent, name)
        if layer == 0:
            continue
        x = [taken_by(partly, layer, samples) for samples in own]
        y = [each @ model[layer].weight.T for each, model in zip(x, models, strict=True)]
        fit = np.linalg.lstsq(torch.cat(x).double(), torch.cat(y).detach().double(), rcond=None)[0]
        np.testing.assert_allclose(merged[name].T, fit, rtol=2e-3, atol=2e-4)


def test_regmean_without_off_diagonals_weighs_inputs_by_their_squares() -> None:
    a, b = {"2.weight": torch.eye(2)[:1]}, {"2.weight": torch.tensor([[3.0, 5.0]])}
    theta = {"2.weight": torch.zeros(1, 2)}
    grams = [torch.tensor([[4.0, 9.0], [9.0, 1.0]]), torch.tensor([[2.0, 7.0], [7.0, 3.0]])]
    sent = [(a, grams[0], (2,)), (b, grams[1], (1,))]
    updates = [update(str(k), p, n, gram={"2.weight": g}) for k, (p, g, n) in enumerate(sent)]
    merged = Regmean(off_diagonal=0.0)(theta, updates, network())["2.weight"]
    torch.testing.assert_close(merged, torch.tensor([[(8 * 1 + 2 * 3) / 10, (2 * 0 + 3 * 5) / 5]]))


def test_regmean_leaves_what_no_edge_has_seen_at_the_mean() -> None:
    theta, none = {"w": torch.zeros(1, 2)}, torch.diag(torch.tensor([1.0, 0.0]))
    a, b = {"w": torch.tensor([[1.0, 2.0]])}, {"w": torch.tensor([[1.0, 4.0]])}
    updates = [update("a", a, (3,), gram={"w": none}), update("b", b, (1,), gram={"w": none})]
    torch.testing.assert_close(Regmean()(theta, updates, network())["w"], torch.tensor([[1.0, 2.5]]))
    unseen = [update(one.site, one.params, one.counts, gram={"w": torch.zeros(2, 2)}) for one in updates]
    torch.testing.assert_close(Regmean()(theta, unseen, network())["w"], torch.tensor([[1.0, 2.5]]))


def test_fisher_weighs_each_parameter_by_its_information() -> None:
    theta = {"w": torch.zeros(3), "mean": torch.zeros(1)}
    a = update(
        "a", {"w": torch.tensor([1.0, 1.0, 1.0]), "mean": torch.ones(1)}, (3,),
        fisher={"w": torch.tensor([0.2, 0.0, 0.0])},
    )  # fmt: skip
    b = update(
        "b", {"w": torch.tensor([3.0, 3.0, 3.0]), "mean": torch.zeros(1)}, (1,),
        fisher={"w": torch.tensor([0.6, 0.5, 0.0])},
    )  # fmt: skip
    merged = Fisher(floor=1e-3)(theta, [a, b], network())
    expected = [(0.6 * 1 + 0.6 * 3) / 1.2, (3e-3 * 1 + 0.5 * 3) / 0.503, (3 * 1 + 1 * 3) / 4]
    torch.testing.assert_close(merged["w"], torch.tensor(expected))
    assert merged["mean"].item() == 0.75


@pytest.mark.parametrize("sites", [1, 2, 3, 4, 7, 10])
def test_median_and_trimmed_mean_are_those_of_each_coordinate(sites: int) -> None:
    models = [made(seed).state_dict() for seed in range(sites)]
    updates = [update(str(k), params, (1,)) for k, params in enumerate(models)]
    median = Median()(models[0], updates, network())
    trimmed = TrimmedMean(trim=0.25)(models[0], updates, network())
    for name in models[0]:
        values = np.stack([params[name].double().numpy() for params in models])
        np.testing.assert_allclose(median[name], np.median(values, 0), rtol=1e-6)
        np.testing.assert_allclose(trimmed[name], scipy.stats.trim_mean(values, 0.25), rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("merge", [Median(), TrimmedMean(trim=0.4)])
def test_a_minority_of_wrong_updates_moves_a_robust_merge_only_so_far(merge) -> None:
    right = [made(0).state_dict()] * 3
    wrong = [{name: value + 1e6 * sign for name, value in right[0].items()} for sign in (1, 1)]
    updates = [update(str(k), params, (1,)) for k, params in enumerate(right + wrong)]
    merged = merge(right[0], updates, network())
    assert all(torch.equal(merged[name], right[0][name]) for name in right[0])


@pytest.mark.parametrize("trim", [-0.1, 0.5, float("nan")])
def test_not_all_can_be_trimmed(trim: float) -> None:
    with pytest.raises(ValidationError):
        TrimmedMean(trim=trim)


def test_a_network_aligned_with_itself_in_another_order_is_itself() -> None:
    theta, structure = made(1).state_dict(), network().structure
    moved = permute(structure, permute(structure, theta, "2", [3, 1, 0, 2]), "0", [1, 2, 0])
    updates = [update("b", moved, (5, 5, 5)), update("a", theta, (5, 5, 5))]
    for given in (updates, updates[::-1]):
        merged = Aligned()(theta, given, network())
        for name, value in theta.items():
            torch.testing.assert_close(merged[name], value, rtol=1e-6, atol=1e-7)
    most = [update("b", moved, (9, 9, 9)), updates[1]]
    merged = Aligned()(theta, most, network())
    assert all(torch.allclose(merged[name], moved[name]) for name in theta), "the order of the most examples"
