"""Statistics of a site's own data for a merge: Gram matrices or the diagonal Fisher information.

Both are means over examples, so the site's number of examples times its statistic is the sum over its data.
They are computed with the trained model in evaluation mode, summed in float64 and sent in float32. ``gram``
uses one private part of torch: ``Conv2d._reversed_padding_repeated_twice``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from math import prod
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap
from torch.nn import functional as F

from sheaf.core.dataset import Samples
from sheaf.core.recipe import Statistic, StatisticKind
from sheaf.core.seeds import generator, seed_for
from sheaf.models.flops import copy_to
from sheaf.training.evaluation import forward
from sheaf.training.gpu_cache import pick
from sheaf.training.preparation import Preparation

ENTRIES = 2**22
"""Entries of unfolded patches, or of gradients of single examples, at a time: 16 MiB."""


def compute(
    model: nn.Module, samples: Samples, statistic: Statistic, prepare: Preparation, seed: int
) -> dict[str, Tensor]:
    """Return parameter -> its statistic on ``samples``. The model's parameters do not change."""
    samples = drawn(samples, statistic, seed)
    if statistic.kind == "gram":
        return gram(model, samples, prepare, statistic.layer)
    return fisher(model, samples, prepare, seed_for(seed, "statistic labels"))


def drawn(samples: Samples, statistic: Statistic, seed: int) -> Samples:
    """Return the examples that a statistic is computed on, in their order."""
    if statistic.examples is None or statistic.examples >= len(samples):
        return samples
    order = torch.randperm(len(samples), generator=generator(seed_for(seed, "statistic examples")))
    return samples.select(order[: statistic.examples].sort().values)


def blank(model: nn.Module, kind: StatisticKind) -> dict[str, Tensor]:
    """Return the names, shapes and types of what ``compute`` returns, on the meta device."""
    if kind == "gram":
        shapes = {name: [_fan_in(layer)] * 2 for name, layer in products(model).items()}
    else:
        shapes = {name: list(value.shape) for name, value in model.named_parameters()}
    return {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}


def gram(
    model: nn.Module, samples: Samples, prepare: Preparation, only: str | None = None
) -> dict[str, Tensor]:
    """Return G = X'X / N for the weight of each linear layer and each dense convolution, or for only one.

    X holds the layer's input rows: one for each example, or for each position in it. A convolution is a
    linear layer over patches: its weight (O, C, H, W) is one of (O, C H W).
    """
    layers = {name: layer for name, layer in products(model).items() if only in (None, name)}
    sums = {
        name: torch.zeros(_fan_in(layer), _fan_in(layer), dtype=torch.float64, device=prepare.device)
        for name, layer in layers.items()
    }

    def adder(name: str, layer: nn.Linear | nn.Conv2d) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        def add(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            for rows in _rows(layer, inputs[0].detach()):
                sums[name] += rows.T @ rows

        return add

    hooks = [layer.register_forward_pre_hook(adder(name, layer)) for name, layer in layers.items()]
    try:
        forward(model, samples, prepare)
    finally:
        for hook in hooks:
            hook.remove()
    return {name: (total / len(samples)).float().cpu() for name, total in sums.items()}


def gram_macs_per_example(model: nn.Module, in_shape: tuple[int, ...], only: str | None = None) -> int:
    """Return the multiply-adds of the products X'X of one example, beyond the forward pass.

    Args:
        only: the weight of the only layer; None for all.
    """
    try:
        return _gram_macs_on(torch.device("meta"), model, in_shape, only)
    except (RuntimeError, NotImplementedError):
        # A user's model may have tensors outside its state or read values, which meta tensors lack.
        return _gram_macs_on(torch.device("cpu"), model, in_shape, only)


def _gram_macs_on(device: torch.device, model: nn.Module, in_shape: tuple[int, ...], only: str | None) -> int:
    model = copy_to(device, model).eval()
    spent: list[int] = []

    def count(layer: Any, _: Any, output: Tensor) -> None:
        positions = output.numel() // (output.shape[1] if isinstance(layer, nn.Conv2d) else output.shape[-1])
        spent.append(positions * _fan_in(layer) ** 2)

    for name, layer in products(model).items():
        if only in (None, name):
            layer.register_forward_hook(count)
    with torch.no_grad():
        model(torch.zeros(1, *in_shape, device=device))
    return sum(spent)


def fisher(model: nn.Module, samples: Samples, prepare: Preparation, seed: int) -> dict[str, Tensor]:
    """Return the diagonal of the Fisher information, E_x E_y (d log p(y|x) / d theta)^2, of each parameter.

    y is drawn from the model's own p(y|x), once for each example: an unbiased estimate for one backward pass.
    The empirical Fisher, with the true label for y, does not estimate it (Kunstner, Balles, Hennig 2019,
    arXiv 1905.12558); the exact expectation takes a backward pass for each class.
    """
    # One forward pass, which also moves the model to the device and into evaluation mode.
    classes = forward(model, samples.select(torch.arange(1)), prepare).shape[1]
    params = {name: value.detach() for name, value in model.named_parameters()}
    sums = {name: torch.zeros_like(value, dtype=torch.float64) for name, value in params.items()}

    def loss(params: Mapping[str, Tensor], x: Tensor, noise: Tensor) -> Tensor:
        logits: Tensor = functional_call(model, dict(params), (x[None],))[0]
        drawn = (logits.detach() + noise).argmax()  # the Gumbel trick draws from the softmax
        return F.cross_entropy(logits, drawn)

    def one_by_one(params: Mapping[str, Tensor], x: Tensor, noise: Tensor) -> dict[str, Tensor]:
        each = [grad(loss)(params, *pair) for pair in zip(x, noise, strict=True)]
        return {name: torch.stack([gradient[name] for gradient in each]) for name in params}

    gradients = vmap(grad(loss), in_dims=(None, 0, 0))
    draws = generator(seed)
    together = max(1, ENTRIES // sum(value.numel() for value in params.values()))
    for positions in torch.split(samples.positions, together):
        x = prepare(pick(samples.inputs, positions, prepare.device))
        exponential = torch.empty(len(x), classes).exponential_(generator=draws)
        noise = -exponential.log().to(prepare.device)
        try:
            found = gradients(params, x, noise)
        except RuntimeError:  # vmap cannot run a model that reads values
            gradients = one_by_one
            found = gradients(params, x, noise)
        for name, each in found.items():
            sums[name] += each.double().square_().sum(0)
    return {name: (total / len(samples)).float().cpu() for name, total in sums.items()}


def products(model: nn.Module) -> dict[str, nn.Linear | nn.Conv2d]:
    """Return weight -> its layer, for all layers that multiply rows with one matrix."""
    return {
        f"{name}.weight" if name else "weight": layer
        for name, layer in model.named_modules()
        if isinstance(layer, nn.Linear) or (isinstance(layer, nn.Conv2d) and layer.groups == 1)
    }


def _fan_in(layer: nn.Linear | nn.Conv2d) -> int:
    return prod(layer.weight.shape[1:])


def _rows(layer: nn.Linear | nn.Conv2d, x: Tensor) -> Iterator[Tensor]:
    """Yield the layer's input rows (n, fan in), some at a time."""
    if isinstance(layer, nn.Linear):
        yield x.flatten(0, -2)
        return
    # F.pad calls the layer's padding mode "zeros" "constant".
    mode = "constant" if layer.padding_mode == "zeros" else layer.padding_mode
    x = F.pad(x, layer._reversed_padding_repeated_twice, mode)
    together = max(1, ENTRIES // (_fan_in(layer) * x.shape[-1] * x.shape[-2]))
    size, dilation, stride = layer.kernel_size, layer.dilation, layer.stride
    for at in range(0, len(x), together):
        yield F.unfold(x[at : at + together], size, dilation, stride=stride).transpose(1, 2).flatten(0, 1)
