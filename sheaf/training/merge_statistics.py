"""What a site computes of its own data for a merge to weigh its parameters by: second moments.

Both are means over examples, so that ``examples`` of the site times its statistic is the sum over its data.
They are computed with the trained model in evaluation mode, summed in float64 and sent in float32.
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
from sheaf.training import loop
from sheaf.training.gpu_cache import pick

ENTRIES = 2**22
"""How many numbers are unfolded, or gradients of single examples hold, at a time: 16 MiB."""


def compute(
    model: nn.Module, samples: Samples, statistic: Statistic, prepare: loop.Preparation, seed: int
) -> dict[str, Tensor]:
    """Parameter -> its statistic on ``samples``; the model's parameters are left as they are."""
    if statistic.examples is not None and statistic.examples < len(samples):
        order = torch.randperm(len(samples), generator=generator(seed_for(seed, "statistic examples")))
        samples = samples.select(order[: statistic.examples].sort().values)
    if statistic.kind == "gram":
        return gram(model, samples, prepare)
    return fisher(model, samples, prepare, seed_for(seed, "statistic labels"))


def blank(model: nn.Module, kind: StatisticKind) -> dict[str, Tensor]:
    """What ``compute`` returns but for the numbers: names, shapes and types."""
    if kind == "gram":
        shapes = {name: [_fan_in(layer)] * 2 for name, layer in _products(model).items()}
    else:
        shapes = {name: list(value.shape) for name, value in model.named_parameters()}
    return {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}


def gram(model: nn.Module, samples: Samples, prepare: loop.Preparation) -> dict[str, Tensor]:
    """G = X'X / N for the weight of each linear layer and each dense convolution.

    X holds the rows that the layer multiplies with its weight: one an example, or one a position of it.
    A convolution is a linear layer over patches: its weight (O, C, H, W) is one of (O, C H W).
    """
    layers = _products(model)
    sums = {
        name: torch.zeros(_fan_in(layer), _fan_in(layer), dtype=torch.float64, device=prepare.device)
        for name, layer in layers.items()
    }

    def watch(name: str, layer: nn.Linear | nn.Conv2d) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        def add(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            for rows in _rows(layer, inputs[0].detach()):
                sums[name] += rows.T @ rows

        return add

    hooks = [layer.register_forward_pre_hook(watch(name, layer)) for name, layer in layers.items()]
    try:
        loop.forward(model, samples, prepare)
    finally:
        for hook in hooks:
            hook.remove()
    return {name: (total / len(samples)).float().cpu() for name, total in sums.items()}


def gram_macs_per_example(model: nn.Module, in_shape: tuple[int, ...]) -> int:
    """Multiply-adds of the products X'X of one example, beyond the forward pass."""
    try:
        return _gram_macs_on(torch.device("meta"), model, in_shape)
    except (RuntimeError, NotImplementedError):
        # A user's model may hold tensors of its own or look at values; numbers then have to be.
        return _gram_macs_on(torch.device("cpu"), model, in_shape)


def _gram_macs_on(device: torch.device, model: nn.Module, in_shape: tuple[int, ...]) -> int:
    model = copy_to(device, model).eval()
    spent: list[int] = []

    def count(layer: Any, _: Any, output: Tensor) -> None:
        positions = output.numel() // (output.shape[1] if isinstance(layer, nn.Conv2d) else output.shape[-1])
        spent.append(positions * _fan_in(layer) ** 2)

    for layer in _products(model).values():
        layer.register_forward_hook(count)
    with torch.no_grad():
        model(torch.zeros(1, *in_shape, device=device))
    return sum(spent)


def fisher(model: nn.Module, samples: Samples, prepare: loop.Preparation, seed: int) -> dict[str, Tensor]:
    """The diagonal of the Fisher information: E_x E_y (d log p(y|x) / d theta)^2, for each parameter.

    y is drawn from the model's own p(y|x), one an example: unbiased at the cost of one backward pass, where
    the empirical Fisher, with the true label for y, is no estimate of it (Kunstner, Balles, Hennig 2019,
    arXiv 1905.12558), and the exact expectation takes a backward pass a class.
    """
    # One forward pass, which also moves the model to the device and into evaluation mode.
    classes = loop.forward(model, samples.select(torch.arange(1)), prepare).shape[1]
    params = {name: value.detach() for name, value in model.named_parameters()}
    sums = {name: torch.zeros_like(value, dtype=torch.float64) for name, value in params.items()}

    def loss(params: Mapping[str, Tensor], x: Tensor, noise: Tensor) -> Tensor:
        logits: Tensor = functional_call(model, dict(params), (x[None],))[0]
        drawn = (logits.detach() + noise).argmax()  # Gumbel's way to draw from a softmax
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
        except RuntimeError:  # a model that looks at values cannot be run for many examples at once
            gradients = one_by_one
            found = gradients(params, x, noise)
        for name, each in found.items():
            sums[name] += each.double().square_().sum(0)
    return {name: (total / len(samples)).float().cpu() for name, total in sums.items()}


def _products(model: nn.Module) -> dict[str, nn.Linear | nn.Conv2d]:
    """Weight -> its layer, of all layers that multiply rows with one matrix."""
    return {
        f"{name}.weight" if name else "weight": layer
        for name, layer in model.named_modules()
        if isinstance(layer, nn.Linear) or (isinstance(layer, nn.Conv2d) and layer.groups == 1)
    }


def _fan_in(layer: nn.Linear | nn.Conv2d) -> int:
    return prod(layer.weight.shape[1:])


def _rows(layer: nn.Linear | nn.Conv2d, x: Tensor) -> Iterator[Tensor]:
    """The rows (n, fan in) that the layer multiplies, some at a time."""
    if isinstance(layer, nn.Linear):
        yield x.flatten(0, -2)
        return
    # What the layer itself pads with, whatever its settings call it.
    mode = "constant" if layer.padding_mode == "zeros" else layer.padding_mode
    x = F.pad(x, layer._reversed_padding_repeated_twice, mode)
    together = max(1, ENTRIES // (_fan_in(layer) * x.shape[-1] * x.shape[-2]))
    size, dilation, stride = layer.kernel_size, layer.dilation, layer.stride
    for at in range(0, len(x), together):
        yield F.unfold(x[at : at + together], size, dilation, stride=stride).transpose(1, 2).flatten(0, 1)
