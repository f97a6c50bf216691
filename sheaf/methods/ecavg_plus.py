"""ECAvg with remedies for edges that lose accuracy by averaging; each remedy is a setting of its own.

The steps of the paper (see ``ecavg``) with two additions. After the merge, the batch-norm statistics and the
classifier are fitted to the average. After retraining, each edge chooses by its held-out examples between
its old model and interpolations of the received and the retrained model. With every remedy off the result is
that of ``ecavg``, bit for bit.

Interpolation of a model and its fine-tuned version: Robust fine-tuning of zero-shot models. Wortsman,
Ilharco, Kim, Li and others. CVPR 2022, arXiv:2109.01903.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated

from pydantic import Field

from sheaf.core.recipe import Off, Recipe, Share
from sheaf.core.settings import settings
from sheaf.core.task import Update
from sheaf.core.types import Params
from sheaf.merges.merge import Merge, statistic_of
from sheaf.merges.rules.mean import Mean
from sheaf.methods._cloud_steps import Refit, check_labelled, check_steps, fit, has_samples, teachers_of
from sheaf.methods._own_classes import biases_of_own_classes
from sheaf.methods._training_budget import TrainingBudget
from sheaf.methods._training_rounds import check_rounds, train_in_rounds
from sheaf.runtime.cloud import Cloud
from sheaf.runtime.edges import Edges
from sheaf.runtime.log import Log

LAST = 0.25
"""The fraction of the last steps of fine-tuning and retraining over which weights are averaged."""

Mixture = Annotated[float, Field(gt=0, le=1)]


@settings
class ECAvgPlus:
    """Settings of ECAvg with remedies. A step set to "none" is skipped.

    Attributes:
        pretrain: step 1, on each edge's own data D_i.
        pretrain_rounds: communication rounds of step 1, at least 1. Its mini-batches are divided into as many
            equal parts, and the edges' models are merged after each. An edge sends the state of its optimizer
            with its model and gets it back. More rounds send more bytes. Above 1, ``merge`` can have no
            statistic of its own.
        finetune: step 3, in the cloud, on the combined data; averages the weights of the last steps. With the
            loss ``distillation``, on ``cloud.public`` if set.
        retrain: step 5, on each edge's own data again; likewise.
        rounds: the number of times that steps 2 to 5 run, at least 1; later rounds average retrained models.
        merge: step 2.
        share: the samples that each edge sends to the combined data; all by default. "none" needs
            ``finetune`` to be "none" or a distillation on ``cloud.public``, and ``refit`` to be "none" or
            from statistics.
        own_start: initialise each edge separately instead of with common weights; use with merge = "aligned".
        restat: after step 2, estimate the batch-norm statistics on the combined data; if ``share`` is "none",
            from sums that the edges send.
        refit: then fit only the classifier: by a recipe or ridge regression on the combined data, or by
            ``{ statistics = … }`` from statistics that the edges send.
        own_classes: in the last step 4, let each edge's model answer only with classes that the edge has
            examples of: the biases of the other logits become -10,000. Needs a classifier with a bias.
        mixtures: the guard. After retraining each edge chooses the most accurate model on its held-out
            examples (mean over the classes), in two steps: first an interpolation (1 - a) received + a
            retrained with a from ``mixtures``, above 0 and at most 1, because retraining can forget; then
            this or the model held before the update. Empty: no guard. Needs ``data.held_out`` above 0.
    """

    pretrain: Recipe = Recipe(epochs=3)
    pretrain_rounds: Annotated[int, Field(ge=1)] = 1
    finetune: Recipe | Off = Recipe(epochs=5, average_last=LAST)
    retrain: Recipe = Recipe(epochs=6, average_last=LAST)
    rounds: Annotated[int, Field(ge=1)] = 1
    merge: Merge = Mean()
    share: Share | Off = Share()
    own_start: bool = False
    restat: bool = True
    refit: Refit = Recipe(epochs=2)
    own_classes: bool = False
    mixtures: tuple[Mixture, ...] = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)

    def __post_init__(self) -> None:
        check_steps(self.share, restat=self.restat, refit=self.refit, finetune=self.finetune)
        check_rounds(self.pretrain_rounds, self.merge)
        check_labelled(pretrain=self.pretrain, retrain=self.retrain)

    def run(self, theta: Params, fleet: Edges, cloud: Cloud, log: Log) -> Params:
        """Return theta*_avg of the last round."""
        theta, local = train_in_rounds(
            theta, fleet, self.pretrain, self.pretrain_rounds, self.merge, own_start=self.own_start
        )  # theta_i
        if self.share != "none":
            cloud.pool(fleet.share(self.share))  # the combined data
        for n in range(1, self.rounds + 1):
            if n > 1 or self.pretrain_rounds == 1:  # else these models have been merged before
                log("before update", fleet.evaluate(), n)
            theta_avg = fleet.merge(self.merge, theta, local)
            log("average", cloud.evaluate(theta_avg), n)
            theta = fit(self, theta_avg, fleet, cloud, log, n)
            if self.finetune != "none" and has_samples(self.share, self.finetune):
                teachers = teachers_of(self.finetune, local)
                theta = cloud.train(theta, self.finetune, teachers=teachers)  # theta*_avg
                log("averaged weights", cloud.evaluate(theta), n)
            local = self._update(theta, local, fleet, log, n)
        return theta

    def _update(self, theta: Params, local: Sequence[Update], fleet: Edges, log: Log, n: int) -> list[Update]:
        """Run steps 4 and 5: send back, retrain, and let each edge choose the model to hold."""
        reply, statistic = n < self.rounds, statistic_of(self.merge)
        answers_own = self.own_classes and n == self.rounds
        own = biases_of_own_classes(fleet, theta, local) if answers_own else None
        before = fleet.remember() if self.mixtures else 0
        fleet.adopt(theta, own=own)
        received = fleet.remember() if self.mixtures else 0
        log("after update", fleet.evaluate(), n)
        if not self.mixtures:
            retrained = fleet.train(None, self.retrain, reply=reply, statistic=statistic)
            log("after retraining", fleet.evaluate(), n)
            return retrained
        fleet.train(None, self.retrain, reply=False)
        between = fleet.choose(received, self.mixtures, baseline=before)
        chosen = fleet.choose(before, (1.0,), reply=reply, statistic=statistic)
        log("after retraining", fleet.evaluate(), n, chosen=(between, chosen))
        return chosen

    @property
    def budget(self) -> TrainingBudget:
        """The training of a run."""
        return TrainingBudget.of_rounds(self.pretrain, self.rounds, cloud=self.finetune, edges=self.retrain)

    @classmethod
    def within(cls, budget: TrainingBudget) -> ECAvgPlus:
        """Return one round of the same cloud epochs and one edge epoch less, three tenths before the update.

        With a tenth of the data held out, the forward passes of the guard cost less than one epoch. A
        budget of two edge epochs or fewer has no guard.
        """
        guarded, usual = budget.edge_epochs > 2, cls()
        before = max(1, 3 * budget.edge_epochs // 10)
        after = max(0, budget.edge_epochs - before - guarded)
        return cls(
            pretrain=replace(budget.recipe, epochs=before),
            finetune=replace(budget.recipe, epochs=budget.cloud_epochs, average_last=LAST),
            retrain=replace(budget.recipe, epochs=after, average_last=LAST),
            mixtures=usual.mixtures if guarded else (),
        )
