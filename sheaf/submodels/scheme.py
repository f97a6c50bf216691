"""What a scheme of cuts is, as a setting."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated

from sheaf.core.cut import Cut
from sheaf.core.settings import plugin_field
from sheaf.submodels.cut import ChannelStructure, SiteNeeds

Scheme = Annotated[
    Callable[[ChannelStructure, Sequence[SiteNeeds], int], dict[str, Cut]], plugin_field("cuts")
]
"""A setting that names a scheme of cuts."""
