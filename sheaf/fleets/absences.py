"""Why a device gives no answer: the same messages for real and simulated devices."""

from __future__ import annotations

NOT_CONNECTED = "not connected"
"""The device was not connected when its task was sent."""

DEAD_AFTER = 10.0
"""Time in seconds without a reply after which a device is dead; with the timeout of a message, at most 15."""


def late(deadline: float) -> str:
    """Return the reason of a device that has exceeded the deadline, in seconds."""
    return f"no update within {deadline:g} s; raise fleet.deadline for slower devices"


def silent(seconds: float, cause: object) -> str:
    """Return the reason of a device that has given no reply for some seconds."""
    return f"no reply for {seconds:g} s ({cause})"
