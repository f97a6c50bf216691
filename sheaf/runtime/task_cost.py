"""The cost of a task, known before it is executed: multiply-adds, and parameters of its network."""

from __future__ import annotations

from sheaf.core.recipe import FromStatistics
from sheaf.core.task import Cost, Task
from sheaf.models import flops
from sheaf.runtime.training_job import recipe_of
from sheaf.training import classifier_from_moments, classifier_refit
from sheaf.training.batches import examples_of
from sheaf.training.network import Network


def cost_of(task: Task, network: Network, own: int, processed: int) -> Cost:
    """Return the cost of a task.

    Args:
        task: the task.
        network: the network.
        own: number of the site's training examples.
        processed: number of the examples that a train task trains on, which can be more; for a choose task,
            number of the forward passes over held-out examples. Other tasks do not use it.
    """
    if task.kind not in ("train", "refit", "restat", "summarize") and not _runs_network(task):
        return Cost()
    if isinstance(task.refit, FromStatistics):
        return Cost(classifier_from_moments.macs(network.classifier, task.refit))
    macs = network.macs(task.cut, task.blocks)
    spent = own * macs.forward
    if task.kind == "summarize":
        spent = 0  # beyond the statistic, below
    elif task.kind == "train":
        spent = examples_of(recipe_of(task), processed) * macs.train
    elif task.kind == "refit" and task.recipe is not None:
        classifier = network.classifier
        per_example = flops.train_macs_per_example(classifier, (classifier.in_features,))
        spent += examples_of(task.recipe, own) * per_example
    elif task.kind == "refit":
        spent += classifier_refit.ridge_macs(network.classifier, own)
    elif task.kind == "choose":
        spent = processed * macs.forward
    if task.statistic and task.reply:
        examples = min(task.statistic.examples or own, own)
        kind, layer = task.statistic.kind, task.statistic.layer
        spent += examples * network.statistic_macs(kind, task.cut, layer, task.blocks)
    parameters = network.num_parameters(task.cut, task.blocks)
    return Cost(spent, macs_per_example=macs.forward, parameters=parameters)


def _runs_network(task: Task) -> bool:
    """Return whether a task runs the network without training it."""
    uncertain = task.share is not None and task.share.choose == "uncertain"
    return task.kind == "choose" or uncertain
