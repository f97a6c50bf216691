"""Running statistics of batch norm, estimated anew for a merged network, on samples or from sums of sites.

The statistics of an average of networks are not the average of their statistics.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from sheaf.core.dataset import Samples
from sheaf.core.seeds import generator, seed_for
from sheaf.models.freezing import is_frozen
from sheaf.training.gpu_cache import pick
from sheaf.training.preparation import Preparation, move_model

STATISTICS_BATCH = 512
"""Examples of a mini-batch."""

SUMS = ("count", "sum", "squares")
"""The sums of the inputs of a batch norm."""


def reestimate_statistics(model: nn.Module, samples: Samples, prepare: Preparation) -> None:
    """Set the running statistics of every batch norm that is not frozen to the averages over ``samples``."""
    move_model(model, prepare.device).eval()
    norms = list(_estimated(model).values())
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the cumulative average
        norm.train()
    _forward_in_batches(model, samples, prepare)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum


def sum_inputs(model: nn.Module, samples: Samples, prepare: Preparation, seed: int) -> dict[str, Tensor]:
    """Return count (), sum (C,) and sum of squares (C,) of the inputs of every batch norm that is not frozen.

    All in float64, so those of several sites can be added: ``set_from_sums`` estimates mean and variance from
    the total. One forward pass serves all layers. In it, the layers before normalise each mini-batch by the
    mini-batch's own mean and variance, as in training and as in ``reestimate_statistics``. Their old values
    would not do: averaging shrinks the variance of every layer's input, and old values pass the shrinkage of
    all layers before on to a layer's sums, which are then too small once the layers before are corrected.
    Estimating layer after layer is exact and takes a forward pass for each. What remains here is the
    difference between a site's mean and that of all sites, in the layers before.

    Args:
        seed: of the order of the samples, which may be sorted by class.
    """
    norms = _estimated(model)
    sums = {
        f"{name}.{kind}": torch.zeros(() if kind == "count" else norm.num_features, dtype=torch.float64)
        for name, norm in norms.items()
        for kind in SUMS
    }

    def adder(name: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        def add(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            x = inputs[0].detach().cpu().double().transpose(0, 1).flatten(1)  # (C, values)
            sums[f"{name}.count"] += x.shape[1]
            sums[f"{name}.sum"] += x.sum(1)
            sums[f"{name}.squares"] += x.square().sum(1)

        return add

    move_model(model, prepare.device).eval()
    order = torch.randperm(len(samples), generator=generator(seed_for(seed, "batch norm")))
    hooks = [norm.register_forward_pre_hook(adder(name)) for name, norm in norms.items()]
    try:
        with _normalise_each_batch(norms):
            _forward_in_batches(model, samples.select(order), prepare)
    finally:
        for hook in hooks:
            hook.remove()
    return sums


def blank_sums(model: nn.Module) -> dict[str, Tensor]:
    """Return the names, shapes and types of what ``sum_inputs`` returns, on the meta device."""
    return {
        f"{name}.{kind}": torch.empty(
            () if kind == "count" else norm.num_features, dtype=torch.float64, device="meta"
        )
        for name, norm in _estimated(model).items()
        for kind in SUMS
    }


def set_from_sums(model: nn.Module, sums: Mapping[str, Tensor]) -> None:
    """Set the running statistics of every batch norm in ``sums``; the variance is the unbiased one."""
    found = from_sums(sums)
    for name, norm in _estimated(model).items():
        assert norm.running_mean is not None
        assert norm.running_var is not None
        norm.running_mean.copy_(found[f"{name}.running_mean"])
        norm.running_var.copy_(found[f"{name}.running_var"])


def from_sums(sums: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the running statistics that ``set_from_sums`` sets, by their names in the ``state_dict``."""
    found = {}
    for name in [key.removesuffix(".count") for key in sums if key.endswith(".count")]:
        count = sums[f"{name}.count"]
        mean = sums[f"{name}.sum"] / count
        variance = (sums[f"{name}.squares"] / count - mean.square()).clamp(min=0)
        found[f"{name}.running_mean"] = mean.float()
        found[f"{name}.running_var"] = (variance * count / (count - 1).clamp(min=1)).float()
    return found


def _estimated(model: nn.Module) -> dict[str, _BatchNorm]:
    """Return name -> each batch norm that has running statistics and is not frozen."""
    return {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, _BatchNorm) and module.running_mean is not None and not is_frozen(module)
    }


@contextmanager
def _normalise_each_batch(norms: Mapping[str, _BatchNorm]) -> Iterator[None]:
    """Let batch norms use the statistics of each mini-batch inside the block, and change no running ones."""
    for norm in norms.values():
        norm.train()
        norm.track_running_stats = False
    try:
        yield
    finally:
        for norm in norms.values():
            norm.eval()
            norm.track_running_stats = True


def _forward_in_batches(model: nn.Module, samples: Samples, prepare: Preparation) -> None:
    with torch.no_grad():
        # Mini-batches of one size, as each has the same weight in the cumulative average.
        for positions in torch.tensor_split(samples.positions, math.ceil(len(samples) / STATISTICS_BATCH)):
            model(prepare(pick(samples.inputs, positions, prepare.device)))
