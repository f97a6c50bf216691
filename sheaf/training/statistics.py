"""The statistics that a site can compute on its data, by kind (``core.recipe.Statistic``)."""

from __future__ import annotations

from torch import Tensor

from sheaf.core.cut import Cut
from sheaf.core.dataset import Samples
from sheaf.core.recipe import Statistic
from sheaf.training import batch_norm, class_moments, merge_statistics, optimizer_state
from sheaf.training.network import Network
from sheaf.training.preparation import Preparation


def compute(
    network: Network,
    cut: Cut | None,
    samples: Samples,
    statistic: Statistic,
    prepare: Preparation,
    seed: int,
    key: bytes = b"",
) -> dict[str, Tensor]:
    """Return a statistic of the loaded model on ``samples``: name -> tensor.

    It cannot be the state of an optimizer, which ``loop.Trained`` holds after training.

    Args:
        key: for noise, see ``class_moments.compute``.

    Raises:
        ValueError: the statistic is not defined for a sub-model.
        CutError: the model does not end in a linear layer.
    """
    if statistic.kind in ("gram", "fisher"):
        return merge_statistics.compute(network.of(cut), samples, statistic, prepare, seed)
    samples = merge_statistics.drawn(samples, statistic, seed)
    if statistic.kind == "batch_norm":
        return batch_norm.sum_inputs(network.of(cut), samples, prepare, seed)
    if cut is not None:
        raise ValueError(f"a {statistic.kind} statistic is of the whole model, not of a sub-model")
    return class_moments.compute(network.model, network.classifier, samples, prepare, statistic.noise, key)


def blank(network: Network, cut: Cut | None, statistic: Statistic) -> dict[str, Tensor]:
    """Return the names, shapes and types of what ``compute`` returns, on the meta device."""
    if statistic.kind in ("gram", "fisher"):
        shapes = merge_statistics.blank(network.of(cut), statistic.kind)
        return {name: value for name, value in shapes.items() if statistic.layer in (None, name)}
    if statistic.kind == "batch_norm":
        return batch_norm.blank_sums(network.of(cut))
    if statistic.kind in optimizer_state.SLOTS:
        return optimizer_state.blank(network.of(cut), statistic.kind)
    return class_moments.blank(network.classifier, statistic.noise)
