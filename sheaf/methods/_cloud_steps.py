"""The optional steps of the cloud between a merge and fine-tuning."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from sheaf.core.cut import Cut
from sheaf.core.privacy import noise_for
from sheaf.core.recipe import FromStatistics, Off, Recipe, Ridge, Share, Statistic
from sheaf.core.task import Update
from sheaf.core.types import Params
from sheaf.runtime.cloud import Cloud
from sheaf.runtime.edges import Edges
from sheaf.runtime.log import Log
from sheaf.training.step import distils

Refit = Recipe | Ridge | FromStatistics | Off
"""The refit of a merged model's classifier: on the pool, from statistics of the edges, or none."""


def trains(recipe: Recipe | Off) -> bool:
    """Return whether a step trains."""
    return recipe != "none" and recipe.epochs > 0


def check_steps(share: Share | Off, *, restat: bool, refit: Refit, finetune: Recipe | Off) -> None:
    """Check that the cloud has what its steps need.

    A distillation without a pool needs public samples, which the settings of the experiment name.

    Raises:
        ValueError: a step needs a pool, or would send statistics without the noise that ``privacy`` asks for.
    """
    if share != "none":
        return
    if finetune != "none" and trains(finetune) and not distils(finetune):
        raise ValueError(
            "share = 'none' leaves no pool of samples to fine-tune on: set finetune = 'none', set share, or "
            "set finetune.loss = 'distillation' and cloud.public"
        )
    if isinstance(refit, Recipe | Ridge):
        raise ValueError(
            "share = 'none' leaves no pool of samples to refit on: set refit = { statistics = 'lda' }, which "
            "needs none, refit = 'none', or set share"
        )
    if restat and isinstance(refit, FromStatistics) and refit.privacy is not None:
        raise ValueError(
            "refit.privacy adds noise to the statistics of the classifier only, and restat would send those "
            "of batch norm without noise: set restat = false"
        )


def check_labelled(**recipes: Recipe | Off) -> None:
    """Check that these steps, which have no teachers, train by labels.

    Raises:
        ValueError: the loss of one is ``distillation``.
    """
    for name, recipe in recipes.items():
        if recipe != "none" and distils(recipe):
            raise ValueError(
                f"{name}.loss = 'distillation' has no teacher: only finetune of ecavg, ecavg_plus and "
                "decoupled can have this loss; set another one"
            )


def has_samples(share: Share | Off, finetune: Recipe) -> bool:
    """Return whether the cloud has samples to fine-tune on: a pool, or public ones for a distillation."""
    return share != "none" or distils(finetune)


def teachers_of(finetune: Recipe, local: Sequence[Update]) -> Sequence[Update]:
    """Return the edges' updates if fine-tuning needs them, which keeps their files."""
    return local if distils(finetune) else ()


class CloudSteps(Protocol):
    """The settings of these steps in a method; ``ECAvg`` describes them."""

    @property
    def share(self) -> Share | Off: ...
    @property
    def restat(self) -> bool: ...
    @property
    def refit(self) -> Refit: ...
    @property
    def rounds(self) -> int: ...


def fit(
    method: CloudSteps,
    theta: Params,
    fleet: Edges,
    cloud: Cloud,
    log: Log,
    n: int,
    bound: Mapping[str, Cut] | None = None,
) -> Params:
    """Return a merged model with new batch-norm statistics and a new classifier, each step optional.

    Each logs a row in round ``n``.

    Args:
        method: the method. Its batch-norm statistics come from the pool, or, if ``share`` is "none", from
            sums of the edges; ``refit.privacy`` is divided among its rounds.
        theta: the merged model.
        fleet, cloud, log: of its run.
        n: number of the round.
        bound: edge -> the cut of the sub-model from which ``theta`` is bound; None: it is no bound model.
    """
    refit = method.refit
    if method.restat:
        batch_norm = Statistic("batch_norm")
        sums = fleet.statistics(theta, batch_norm, bound=bound) if method.share == "none" else None
        theta = cloud.restat(theta, sums)
        log("new statistics", cloud.evaluate(theta), n)
    if isinstance(refit, FromStatistics):
        noise = None if refit.privacy is None else noise_for(refit.privacy, method.rounds)
        moments = fleet.statistics(theta, Statistic("features", noise=noise), bound=bound)
        theta = cloud.refit(theta, refit, moments)
    elif refit != "none":
        theta = cloud.refit(theta, refit)
    if refit != "none":
        log("refitted", cloud.evaluate(theta), n)
    return theta
