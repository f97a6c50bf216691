"""ECAvg with remedies for what averaging can do to an edge: each a setting, each alone where that is wanted.

The paper's steps (see ``ecavg``), and beside them: after the merge, statistics and classifier are fitted to
the average; and an edge decides on its own held-out examples how far it goes from what it was given to what
retraining made of that, or whether it keeps what it had before. With every remedy off this is ``ecavg``, bit
for bit.

The mixture of a model and what fine-tuning made of it: Robust fine-tuning of zero-shot models. Wortsman,
Ilharco, Kim, Li and others. CVPR 2022, arXiv:2109.01903.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Literal

from pydantic import Field

from sheaf.core.recipe import Recipe, Ridge, Share
from sheaf.core.settings import settings
from sheaf.core.task import Update
from sheaf.core.types import Params
from sheaf.merges.merge import Merge, statistic_of
from sheaf.merges.rules.mean import Mean
from sheaf.methods._training_budget import TrainingBudget
from sheaf.runtime.cloud import Cloud
from sheaf.runtime.edges import Edges
from sheaf.runtime.result import Log

Mixture = Annotated[float, Field(gt=0, le=1)]


@settings
class ECAvgPlus:
    """Settings of ECAvg with remedies.

    Attributes:
        pretrain: step 1, on each edge's own data D_i; its ``alpha`` is the restricted softmax.
        finetune: step 3, in the cloud, on the combined data; its ``tail`` is what weights are averaged over.
        retrain: step 5, on each edge's own data again; with a ``tail`` likewise.
        own_start: each edge pre-trains from weights that are drawn for it, not from common ones.
        rounds: how often steps 2 to 5 are done; from the second on, the retrained models are averaged.
        merge: step 2.
        share: what of each edge's training samples the combined data holds.
        restat: after step 2, estimate the batch-norm statistics anew on the combined data.
        refit: then fit the classifier alone to the combined data.
        mixtures: the guard. After retraining each edge chooses by its held-out examples: first a mixture
            (1 - a) of what it was given plus a of what retraining made of it, with a from ``mixtures``, as
            retraining can forget; then this or what it had before the update, if that is better on them.
            Every class counts the same there. Empty: no guard.
    """

    pretrain: Recipe = Recipe(epochs=3)
    finetune: Recipe = Recipe(epochs=5, tail=0.25)
    retrain: Recipe = Recipe(epochs=6, tail=0.25)
    rounds: Annotated[int, Field(ge=1)] = 1
    merge: Merge = Mean()
    share: Share = Share()
    own_start: bool = False
    restat: bool = True
    refit: Recipe | Ridge | Literal["none"] = Recipe(epochs=2)
    mixtures: tuple[Mixture, ...] = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)

    def run(self, theta: Params, fleet: Edges, cloud: Cloud, log: Log) -> Params:
        """Returns theta*_avg of the last round."""
        statistic = statistic_of(self.merge)
        local = fleet.train(theta, self.pretrain, own_start=self.own_start, statistic=statistic)  # theta_i
        cloud.pool(fleet.share(self.share))  # the combined data
        for n in range(1, self.rounds + 1):
            log("before update", fleet.evaluate(), n)
            theta = self._fit(fleet.merge(self.merge, theta, local), cloud, log, n)
            theta = cloud.train(theta, self.finetune)  # theta*_avg
            log("averaged weights", cloud.evaluate(theta), n)
            local = self._update(theta, fleet, log, n)
        return theta

    def _update(self, theta: Params, fleet: Edges, log: Log, n: int) -> list[Update]:
        """Steps 4 and 5: hand back, retrain; and each edge decides what to hold."""
        reply, statistic = n < self.rounds, statistic_of(self.merge)
        own = fleet.remember() if self.mixtures else 0
        fleet.adopt(theta)
        received = fleet.remember() if self.mixtures else 0
        log("after update", fleet.evaluate(), n)
        if not self.mixtures:
            local = fleet.train(None, self.retrain, reply=reply, statistic=statistic)
            log("after retraining", fleet.evaluate(), n)
            return local
        fleet.train(None, self.retrain, reply=False)
        between = fleet.choose(received, self.mixtures, baseline=own)
        local = fleet.choose(own, (1.0,), reply=reply, statistic=statistic)
        log("after retraining", fleet.evaluate(), n, chosen=(between, local))
        return local

    def _fit(self, theta_avg: Params, cloud: Cloud, log: Log, n: int) -> Params:
        """The average, made to fit the combined data without training it."""
        log("average", cloud.evaluate(theta_avg), n)
        if self.restat:
            theta_avg = cloud.restat(theta_avg)
            log("new statistics", cloud.evaluate(theta_avg), n)
        if self.refit != "none":
            theta_avg = cloud.refit(theta_avg, self.refit)
            log("refitted", cloud.evaluate(theta_avg), n)
        return theta_avg

    @property
    def budget(self) -> TrainingBudget:
        """What a run trains."""
        return TrainingBudget(
            recipe=self.pretrain,
            edge_epochs=self.pretrain.epochs + self.rounds * self.retrain.epochs,
            cloud_epochs=self.rounds * self.finetune.epochs,
        )

    @classmethod
    def within(cls, budget: TrainingBudget) -> ECAvgPlus:
        """One round of the same cloud epochs and one edge epoch less, three tenths of them before the update.

        With a tenth held out, what the guard runs forward is less work than the epoch that is left out. Where
        there are but two, there is no guard.
        """
        guarded, usual = budget.edge_epochs > 2, cls()
        before = max(1, 3 * budget.edge_epochs // 10)
        after = max(0, budget.edge_epochs - before - guarded)
        return cls(
            pretrain=replace(budget.recipe, epochs=before),
            finetune=replace(budget.recipe, epochs=budget.cloud_epochs, tail=usual.finetune.tail),
            retrain=replace(budget.recipe, epochs=after, tail=usual.retrain.tail),
            mixtures=usual.mixtures if guarded else (),
        )
