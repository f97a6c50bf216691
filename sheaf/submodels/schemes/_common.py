"""What the cuts share."""

from __future__ import annotations

from math import ceil

from sheaf.submodels.structure import ChannelGroup


def part_of(count: int, share: float) -> int:
    """``share`` of ``count``, rounded up, at least 1. A hair above a whole number is that number."""
    return max(1, ceil(share * count - 1e-9))


def window(group: ChannelGroup, share: float, start: int) -> tuple[int, ...]:
    """``share`` of the group's channels from position ``start`` of each run on, going round its end."""
    return group.channels((start + step) % group.units for step in range(part_of(group.units, share)))
