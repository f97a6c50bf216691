"""The optional steps of the cloud between a merge and fine-tuning, and how a setting leaves a step out."""

from __future__ import annotations

from typing import Literal

from sheaf.core.recipe import Recipe, Ridge
from sheaf.core.types import Params
from sheaf.runtime.cloud import Cloud
from sheaf.runtime.result import Log

Off = Literal["none"]
"""The value of a setting that leaves its step out; TOML has no null."""


def fit(
    theta: Params, cloud: Cloud, log: Log, n: int, *, restat: bool, refit: Recipe | Ridge | Off
) -> Params:
    """Return a merged model with new batch-norm statistics and a new classifier, each step optional.

    Both steps use the cloud's pool. Each logs a row in round ``n``.
    """
    if restat:
        theta = cloud.restat(theta)
        log("new statistics", cloud.evaluate(theta), n)
    if refit != "none":
        theta = cloud.refit(theta, refit)
        log("refitted", cloud.evaluate(theta), n)
    return theta
