"""Decoupled training: each device trains a sub-model for its classes; the cloud binds them into one model.

Chen, Qin. ACM/IEEE Symposium on Edge Computing, 2020. https://doi.org/10.1109/SEC50012.2020.00069

The paper's abstract does not say how many layers are shared, whether a device sees samples of other classes,
or how the cloud trains after binding. Each of these is a setting here, and each step has its own row in the
result. ``finetune`` and ``retrain`` together are ECAvg on sub-models, a hybrid that is in neither paper.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Literal

from pydantic import Field

from sheaf.core.recipe import Off, Recipe, Share
from sheaf.core.settings import settings
from sheaf.core.types import Params
from sheaf.methods._cloud_steps import Refit, check_labelled, check_steps, fit, has_samples, teachers_of
from sheaf.methods._training_budget import TrainingBudget
from sheaf.runtime.cloud import Cloud
from sheaf.runtime.edges import Edges
from sheaf.runtime.log import Log
from sheaf.submodels.scheme import Scheme
from sheaf.submodels.schemes.by_class import ByClass


@settings
class Decoupled:
    """Settings of decoupled training. A step set to "none" is skipped.

    Attributes:
        train: how each device trains its sub-model, without exchange between devices.
        cut: the scheme that selects the sub-model of each device.
        negatives: training examples outside a device's classes: ``none``; ``outliers`` made from its own
            images; ``pooled`` samples of the other devices, sent by the cloud.
        outliers: the number of outliers for each of a device's own examples, above 0.
        share: the samples that each device sends to the cloud's pool, from which ``pooled`` negatives come.
        restat: after binding, estimate the batch-norm statistics on the pool; if ``share`` is "none", from
            sums that the devices send.
        refit: then fit only the classifier: by a recipe or ridge regression on the pool, or by
            ``{ statistics = … }`` from statistics that the devices send. For these statistics, and for the
            sums, each device receives the bound model and computes a forward pass; the zeros between the
            devices' channels are neither sent nor multiplied.
        finetune: then train the whole model on the pool. With the loss ``distillation`` its teachers are the
            devices' sub-models, each for the logits of its classes, and it trains on ``cloud.public`` if set.
        retrain: then each device trains its sub-model of the result.
        rounds: the number of times that sub-models are bound, at least 1; later rounds bind retrained ones.
    """

    train: Recipe = Recipe(epochs=10)
    cut: Scheme = ByClass()
    negatives: Literal["none", "outliers", "pooled"] = "none"
    outliers: Annotated[float, Field(gt=0)] = 0.5
    share: Share | Off = "none"
    restat: bool = False
    refit: Refit = "none"
    finetune: Recipe | Off = "none"
    retrain: Recipe | Off = "none"
    rounds: Annotated[int, Field(ge=1)] = 1

    def __post_init__(self) -> None:
        if self.share == "none" and self.negatives == "pooled":
            raise ValueError("negatives = 'pooled' needs a pool of samples: set share")
        check_steps(self.share, restat=self.restat, refit=self.refit, finetune=self.finetune)
        check_labelled(train=self.train, retrain=self.retrain)
        if self.rounds > 1 and self.retrain == "none":
            raise ValueError("rounds above 1 need retrain, which trains the sub-models of the later rounds")

    def run(self, theta: Params, fleet: Edges, cloud: Cloud, log: Log) -> Params:
        """Return the bound model after the last step in the cloud."""
        cuts = fleet.cut(self.cut)
        if self.share != "none":
            pool = cloud.pool(fleet.share(self.share))
            if self.negatives == "pooled":
                fleet.lend(pool)
        if self.negatives != "none":
            cuts = {site: replace(cut, other=True) for site, cut in cuts.items()}
        outliers = self.outliers if self.negatives == "outliers" else 0.0
        harvest = fleet.train(theta, self.train, cuts=cuts, outliers=outliers)
        log("apart", fleet.evaluate())
        for n in range(1, self.rounds + 1):
            theta = fleet.average(theta, harvest, by_examples=False, unheld="zero")
            log("bound", cloud.evaluate(theta), n)
            theta = fit(self, theta, fleet, cloud, log, n, bound=cuts)
            if self.finetune != "none" and has_samples(self.share, self.finetune):
                teachers = teachers_of(self.finetune, harvest)
                theta = cloud.train(theta, self.finetune, teachers=teachers, cuts=cuts)
                log("fine-tuned", cloud.evaluate(theta), n)
            if self.retrain != "none":
                fleet.adopt(theta, cuts)
                log("after update", fleet.evaluate(), n)
                harvest = fleet.train(None, self.retrain, outliers=outliers, reply=n < self.rounds)
                log("after retraining", fleet.evaluate(), n)
        return theta

    @property
    def budget(self) -> TrainingBudget:
        """The training of a run."""
        return TrainingBudget.of_rounds(self.train, self.rounds, cloud=self.finetune, edges=self.retrain)

    @classmethod
    def within(cls, budget: TrainingBudget) -> Decoupled:
        """Return the same number of edge epochs before binding, and no training in the cloud."""
        return cls(train=replace(budget.recipe, epochs=budget.edge_epochs))
