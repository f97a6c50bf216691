"""ECAvg: edges pre-train; the cloud averages, fine-tunes on pooled data and sends back; edges retrain.

ECAvg: An Edge-Cloud Collaborative Learning Approach using Averaged Weights.
Atah Nuh Mih, Hung Cao, Asfia Kawnine, Monica Wachowicz, 2023. https://arxiv.org/abs/2310.03823

The paper does not give optimizer, learning rate and epochs; they are settings here. Its "after update" rows
are measured after step 4; step 5 has its own row, "after retraining".

Without a pool (``share`` and ``finetune`` set to "none") no sample leaves an edge. ``restat`` and ``refit``
then take the place of step 3: the cloud estimates the batch-norm statistics and the classifier of theta_avg
from statistics that the edges send, which takes a forward pass for each.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated

from pydantic import Field

from sheaf.core.recipe import Off, Recipe, Share
from sheaf.core.settings import settings
from sheaf.core.types import Params
from sheaf.merges.merge import Merge, statistic_of
from sheaf.merges.rules.mean import Mean
from sheaf.methods._cloud_steps import Refit, check_labelled, check_steps, fit, has_samples, teachers_of
from sheaf.methods._training_budget import TrainingBudget
from sheaf.runtime.cloud import Cloud
from sheaf.runtime.edges import Edges
from sheaf.runtime.log import Log


@settings
class ECAvg:
    """Settings of ECAvg. A step set to "none" is skipped.

    Attributes:
        pretrain: step 1, on each edge's own data D_i.
        restat: after step 2, estimate the batch-norm statistics on the combined data; if ``share`` is "none",
            from sums that the edges send.
        refit: then fit only the classifier: by a recipe or ridge regression on the combined data, or by
            ``{ statistics = … }`` from statistics that the edges send.
        finetune: step 3, in the cloud, on the combined data; with the loss ``distillation``, on
            ``cloud.public`` if set.
        retrain: step 5, on each edge's own data again.
        rounds: the number of times that steps 2 to 5 run, at least 1; later rounds average retrained models.
        merge: step 2.
        share: the samples that each edge sends to the combined data; all, as in the paper, by default. "none"
            needs ``finetune`` to be "none", too, or a distillation on ``cloud.public``.
        own_start: initialise each edge separately instead of with common weights; use with merge = "aligned".
        reference: also fine-tune the initial weights for as many epochs, the paper's comparison; not done
            if ``finetune`` is "none".
    """

    pretrain: Recipe = Recipe(epochs=5)
    restat: bool = False
    refit: Refit = "none"
    finetune: Recipe | Off = Recipe(epochs=5)
    retrain: Recipe = Recipe(epochs=5)
    rounds: Annotated[int, Field(ge=1)] = 1
    merge: Merge = Mean()
    share: Share | Off = Share()
    own_start: bool = False
    reference: bool = True

    def __post_init__(self) -> None:
        check_steps(self.share, restat=self.restat, refit=self.refit, finetune=self.finetune)
        check_labelled(pretrain=self.pretrain, retrain=self.retrain)

    def run(self, theta: Params, fleet: Edges, cloud: Cloud, log: Log) -> Params:
        """Return theta*_avg of the last round."""
        theta_0, statistic = theta, statistic_of(self.merge)
        local = fleet.train(theta, self.pretrain, own_start=self.own_start, statistic=statistic)  # theta_i
        if self.share != "none":
            cloud.pool(fleet.share(self.share))  # the combined data
        for n in range(1, self.rounds + 1):
            log("before update", fleet.evaluate(), n)
            theta_avg = fleet.merge(self.merge, theta, local)
            log("average", cloud.evaluate(theta_avg), n)
            theta = fit(self, theta_avg, fleet, cloud, log, n)
            if self.finetune != "none" and has_samples(self.share, self.finetune):
                teachers = teachers_of(self.finetune, local)
                theta = cloud.train(theta, self.finetune, teachers=teachers)  # theta*_avg
                log("averaged weights", cloud.evaluate(theta), n)
            fleet.adopt(theta)
            log("after update", fleet.evaluate(), n)
            local = fleet.train(None, self.retrain, reply=n < self.rounds, statistic=statistic)
            log("after retraining", fleet.evaluate(), n)
        if self.reference and self.finetune != "none" and has_samples(self.share, self.finetune):
            as_long = replace(self.finetune, epochs=self.rounds * self.finetune.epochs)
            theta_ref = cloud.train(theta_0, as_long, counted=False, teachers=teachers)
            log("initial weights", cloud.evaluate(theta_ref), self.rounds, reference=True)
        return theta

    @property
    def budget(self) -> TrainingBudget:
        """The training of a run."""
        return TrainingBudget.of_rounds(self.pretrain, self.rounds, cloud=self.finetune, edges=self.retrain)

    @classmethod
    def within(cls, budget: TrainingBudget) -> ECAvg:
        """Return one round of the same epochs, with half of the edge epochs before the update."""
        retrain = budget.edge_epochs // 2
        return cls(
            pretrain=replace(budget.recipe, epochs=budget.edge_epochs - retrain),
            finetune=replace(budget.recipe, epochs=budget.cloud_epochs),
            retrain=replace(budget.recipe, epochs=retrain),
        )
