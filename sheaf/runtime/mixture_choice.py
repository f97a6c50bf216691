"""A site's choice among mixtures of its remembered and its received model, by its held-out examples."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from sheaf.core.task import Task
from sheaf.core.types import Params
from sheaf.runtime.model_store import ModelStore
from sheaf.training.interpolation import choose_mixture, mixture

TAKE_RECEIVED = [1.0]
"""The only mixture of a site that has nothing to mix with: the received model as it is."""

Judge = Callable[[Params], tuple[float, Tensor]]
"""Returns the accuracy of parameters on N held-out examples, and the (N,) cross-entropies."""


def candidates(task: Task, store: ModelStore) -> list[float]:
    """Return the mixtures to choose from; 0, the remembered model, is always one.

    A site that was away when it should have remembered a model can only take the received one.
    """
    return sorted({0.0, *task.mixtures}) if _has(store, task.since) else TAKE_RECEIVED


def count_judged(task: Task, store: ModelStore) -> int:
    """Return the number of models that a choice measures on the held-out examples."""
    return len(candidates(task, store)) + _has(store, task.baseline) if task.mixtures else 0


def choose(
    task: Task, store: ModelStore, received: Params, labels: Tensor, judge: Judge
) -> tuple[Params, dict[str, Any]]:
    """Return the parameters of the chosen mixture, and the metrics of the choice; see ``Update``.

    Without mixtures or held-out examples, the largest candidate is chosen.

    Args:
        task: the choose task.
        store: contains the remembered models.
        received: the model that the site holds.
        labels: (N,) classes of the held-out examples.
        judge: measures a model on these examples.
    """
    among = candidates(task, store)
    own = received if among == TAKE_RECEIVED else _remembered(store, task.since)
    accuracies, losses = {}, {}
    for a in among if task.mixtures and len(labels) else ():
        accuracies[a], losses[a] = judge(mixture(own, received, a))
    best = max(among)
    if accuracies:
        baseline = accuracies[min(accuracies)]
        if _has(store, task.baseline):
            baseline, _ = judge(_remembered(store, task.baseline))
        best = choose_mixture(accuracies, losses, labels, baseline)
    metrics = {
        "mixture": best,
        "mixtures": list(accuracies),
        "accuracies": list(accuracies.values()),
        "held_out": len(labels),
    }
    return mixture(own, received, best), metrics


def _has(store: ModelStore, call: int) -> bool:
    return store.remembered(call) is not None


def _remembered(store: ModelStore, call: int) -> Params:
    blob = store.remembered(call)
    assert blob is not None
    return blob.open()
