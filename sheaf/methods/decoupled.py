"""Decoupled training: each device trains a part of the network for its classes; the parts are bound into one.

Chen, Qin. ACM/IEEE Symposium on Edge Computing, 2020. https://doi.org/10.1109/SEC50012.2020.00069

The paper's abstract leaves open how deep the shared layers go, whether a device sees anything of the others'
classes, and what the cloud does after binding: each is a setting here, and each step has a row of its own, so
that its worth shows. With ``finetune`` and ``retrain`` it is the hybrid with ECAvg that neither paper has.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Literal

from pydantic import Field

from sheaf.core.recipe import Recipe, Ridge, Share
from sheaf.core.settings import settings
from sheaf.core.types import Params
from sheaf.merges.average import average
from sheaf.methods._training_budget import TrainingBudget
from sheaf.runtime.cloud import Cloud
from sheaf.runtime.edges import Edges
from sheaf.runtime.result import Log
from sheaf.submodels.scheme import Scheme
from sheaf.submodels.schemes.by_class import ByClass


@settings
class Decoupled:
    """Settings of decoupled training.

    Attributes:
        train: how each device trains its part, with no exchange between devices.
        cut: what each device holds.
        negatives: what teaches a part that an example is none of its classes: nothing; ``outliers`` that the
            device makes from its own images; ``pooled`` samples of the other devices, sent down by the cloud.
        outliers: made examples for each of the device's own.
        share: what of each device's samples goes up, to be lent to others and be the cloud's pool. Without
            it the cloud has no data, and no step below can be asked for.
        restat: after binding, estimate the batch-norm statistics anew on the pool.
        refit: then train the classifier alone on the pool.
        finetune: then train the whole network on the pool.
        retrain: then each device goes on training its part of that.
        rounds: how often parts are bound; from the second on, those that were retrained.
    """

    train: Recipe = Recipe(epochs=10)
    cut: Scheme = ByClass()
    negatives: Literal["none", "outliers", "pooled"] = "none"
    outliers: Annotated[float, Field(gt=0)] = 0.5
    share: Share | None = None
    restat: bool = False
    refit: Recipe | Ridge | None = None
    finetune: Recipe | None = None
    retrain: Recipe | None = None
    rounds: Annotated[int, Field(ge=1)] = 1

    def __post_init__(self) -> None:
        wanted = {
            "negatives = 'pooled'": self.negatives == "pooled",
            "restat": self.restat,
            "refit": self.refit,
            "finetune": self.finetune,
        }
        if self.share is None and (asked := [step for step, given in wanted.items() if given]):
            raise ValueError(f"{' and '.join(asked)} needs a pool of samples: set share")
        if self.rounds > 1 and self.retrain is None:
            raise ValueError("rounds above 1 need retrain, which makes the parts of the later ones")

    def run(self, theta: Params, fleet: Edges, cloud: Cloud, log: Log) -> Params:
        """Returns the bound model after the last step in the cloud."""
        cuts = fleet.cut(self.cut)
        if self.share:
            pool = cloud.pool(fleet.share(self.share))
            if self.negatives == "pooled":
                fleet.lend(pool)
        if self.negatives != "none":
            cuts = {site: replace(cut, other=True) for site, cut in cuts.items()}
        outliers = self.outliers if self.negatives == "outliers" else 0.0
        harvest = fleet.train(theta, self.train, cuts=cuts, outliers=outliers)
        log("apart", fleet.evaluate())
        for n in range(1, self.rounds + 1):
            theta = average(theta, fleet.contributions(harvest, by_examples=False), unheld="zero")
            log("bound", cloud.evaluate(theta), n)
            theta = self._improve(theta, cloud, log, n)
            if self.retrain:
                fleet.adopt(theta, cuts)
                log("after update", fleet.evaluate(), n)
                harvest = fleet.train(None, self.retrain, outliers=outliers, reply=n < self.rounds)
                log("after retraining", fleet.evaluate(), n)
        return theta

    def _improve(self, theta: Params, cloud: Cloud, log: Log, n: int) -> Params:
        """The cloud's steps, each left out unless it is asked for."""
        if self.restat:
            theta = cloud.restat(theta)
            log("new statistics", cloud.evaluate(theta), n)
        if self.refit:
            theta = cloud.refit(theta, self.refit)
            log("refitted", cloud.evaluate(theta), n)
        if self.finetune:
            theta = cloud.train(theta, self.finetune)
            log("fine-tuned", cloud.evaluate(theta), n)
        return theta

    @property
    def budget(self) -> TrainingBudget:
        """What a run trains."""
        retrained = self.retrain.epochs if self.retrain else 0
        finetuned = self.finetune.epochs if self.finetune else 0
        return TrainingBudget(
            recipe=self.train,
            edge_epochs=self.train.epochs + self.rounds * retrained,
            cloud_epochs=self.rounds * finetuned,
        )

    @classmethod
    def within(cls, budget: TrainingBudget) -> Decoupled:
        """The same edge epochs, in one go, and no work in the cloud."""
        return cls(train=replace(budget.recipe, epochs=budget.edge_epochs))
