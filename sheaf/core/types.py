"""Types and names that every package uses."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from sheaf.core.site_names import CLOUD as CLOUD

Params = Mapping[str, Tensor]
"""A CPU state_dict, never modified in place."""
