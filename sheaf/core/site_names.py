"""Names of sites. The commands that start a cloud or a device use them and import no torch."""

from __future__ import annotations

import re

from sheaf.core.errors import PartitionError

CLOUD = "cloud"
"""The name of the only site that is not an edge."""


def check_edge_name(name: str) -> None:
    """Check that an edge's name is safe as part of a file name.

    Raises:
        PartitionError: the name is not allowed.
    """
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", name) or name == CLOUD:
        raise PartitionError(
            f"an edge cannot be named {name!r}: letters, digits, '.', '_' and '-', at most 64, not {CLOUD!r}"
        )
