"""The teachers of a distillation in the cloud: the edges' models, or the experts of a bound model."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace

import torch
from torch import Tensor

from sheaf.core.cut import Cut
from sheaf.core.dataset import Samples
from sheaf.core.types import Params
from sheaf.models.checkpoints import load_state
from sheaf.training.evaluation import forward
from sheaf.training.network import Network
from sheaf.training.preparation import Preparation

Teachers = Iterable[tuple[Cut | None, Params]]
"""The cut of each teacher, None for the whole model, and its parameters."""

Teach = Callable[[Network, Teachers, Samples, Preparation, int], Tensor]
"""Returns the (N, K) logits from which a model is distilled; see ``mean_logits``."""


def mean_logits(
    network: Network, teachers: Teachers, samples: Samples, prepare: Preparation, classes: int
) -> Tensor:
    """Return the (N, K) mean of the teachers' logits, as in FedDF.

    Lin, Kong, Stich, Jaggi. NeurIPS 2020, arXiv:2006.07242, equation 3. A sub-model counts only in the logits
    of its classes, without its "other" row (``SubModel.fold_other``): the logits of experts without a common
    class are placed side by side, as binding does. A class without a teacher gets the lowest number, whose
    probability is 0.

    Args:
        network: the whole model and its sub-models.
        teachers: read one after another.
        samples: N samples, whose labels are not used.
        prepare: normalises the inputs.
        classes: K, the number of classes.
    """
    total = torch.zeros(len(samples), classes, dtype=torch.float64)
    count = torch.zeros(classes, dtype=torch.float64)
    for cut, params in teachers:
        model, own = network.model, tuple(range(classes))
        if cut is not None:
            submodel = network.submodel(cut)
            model, own = network.of(replace(cut, other=False)), submodel.classes
            params = submodel.fold_other(params) if cut.other else params
        load_state(model, params)
        total[:, list(own)] += forward(model, samples, prepare).double()
        count[list(own)] += 1
    return torch.where(count > 0, total / count.clamp(min=1), torch.finfo(torch.float32).min).float()


def no_logits(
    network: Network, teachers: Teachers, samples: Samples, prepare: Preparation, classes: int
) -> Tensor:
    """Return (N, K) zeros, for a run without training."""
    return torch.zeros(len(samples), classes)


def macs(network: Network, cuts: Iterable[Cut | None], examples: int) -> int:
    """Return the multiply-adds of the forward passes of all teachers on all examples."""
    submodels = [None if cut is None else replace(cut, other=False) for cut in cuts]
    return examples * sum(network.macs(cut).forward for cut in submodels)
