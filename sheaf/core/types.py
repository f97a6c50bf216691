"""Names that every package uses."""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

from sheaf.core.errors import PartitionError

Params = Mapping[str, Tensor]
"""A CPU state_dict, never written in place."""


CLOUD = "cloud"
"""The site that is not an edge."""


def check_edge_name(name: str) -> None:
    """A site's name becomes a file's name, so it can be no path.

    Raises:
        PartitionError: an edge cannot have that name.
    """
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", name) or name == CLOUD:
        raise PartitionError(
            f"an edge cannot be named {name!r}: letters, digits, '.', '_' and '-', at most 64, not {CLOUD!r}"
        )
