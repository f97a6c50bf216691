"""Windows of a group's channels, shared by the schemes."""

from __future__ import annotations

from math import ceil

from sheaf.submodels.structure import ChannelGroup


def fraction_of(count: int, width: float) -> int:
    """Return ``width`` times ``count``, rounded up, at least 1.

    A value less than 1e-9 above an integer counts as that integer.
    """
    return max(1, ceil(width * count - 1e-9))


def window(group: ChannelGroup, width: float, start: int) -> tuple[int, ...]:
    """Return a fraction ``width`` of the channels from ``start`` of each block on, with wrap-around."""
    return group.channels((start + step) % group.units for step in range(fraction_of(group.units, width)))
