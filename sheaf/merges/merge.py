"""What a merge is, as a setting."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated

from sheaf.core.recipe import Statistic
from sheaf.core.settings import plugin_field
from sheaf.core.task import Update
from sheaf.core.types import Params
from sheaf.training.network import Network

Merge = Annotated[Callable[[Params, Sequence[Update], Network], Params], plugin_field("merges")]
"""A setting that names a merge: ``"mean"``, or a table ``{name = "…", …}`` where the merge has settings."""


def statistic_of(merge: Merge) -> Statistic | None:
    """What a merge weighs updates by beyond their examples: its ``statistic``, where it has one."""
    statistic: Statistic | None = getattr(merge, "statistic", None)
    return statistic
