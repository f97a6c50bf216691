"""Fits of the classifier or of the batch-norm statistics of a model, whose other parameters stay."""

from __future__ import annotations

from collections.abc import Callable

from sheaf.core.dataset import Samples
from sheaf.core.recipe import FromStatistics
from sheaf.core.task import Task, statistics_in
from sheaf.core.tensor_file import Blob
from sheaf.runtime.training_job import recipe_of
from sheaf.training import classifier_from_moments, classifier_refit
from sheaf.training.batch_norm import reestimate_statistics, set_from_sums
from sheaf.training.class_moments import ClassMoments
from sheaf.training.network import Network
from sheaf.training.preparation import Preparation


def fit_batch_norm(
    network: Network, blob: Blob, samples: Callable[[], Samples], prepare: Preparation
) -> bool:
    """Set the batch-norm statistics of the loaded model.

    Args:
        network: contains the loaded model.
        blob: the task's parameters; the statistics come from the sums of edges beside them, if there are any.
        samples: returns the examples on which they are estimated otherwise.
        prepare: normalises the inputs.

    Returns:
        Whether the model ran on the examples.
    """
    if sums := statistics_in(blob):
        set_from_sums(network.model, sums)
        return False
    reestimate_statistics(network.model, samples(), prepare)
    return True


def fit_classifier(
    task: Task, network: Network, blob: Blob, samples: Callable[[], Samples], prepare: Preparation
) -> list[float]:
    """Fit the classifier of the loaded model, and return the losses of the epochs, if there are any.

    Args:
        task: a refit task.
        network: contains the loaded model.
        blob: the task's parameters, with the class moments beside them for ``FromStatistics``.
        samples: returns the examples to which the classifier is fitted otherwise.
        prepare: normalises the inputs.
    """
    model, last = network.model, network.classifier
    if isinstance(task.refit, FromStatistics):
        moments = ClassMoments.of(statistics_in(blob))
        return classifier_from_moments.fit(last, moments, task.refit, prepare, task.seed)
    if task.refit is not None:
        classifier_refit.refit_by_ridge(model, last, samples(), task.refit, prepare)
        return []
    examples = samples()
    return classifier_refit.refit(model, last, examples, recipe_of(task), prepare, task.seed)
