"""Who spent what: the cost of every site over a run."""

from __future__ import annotations

from dataclasses import dataclass

from sheaf.core.task import Cost, Task, Update
from sheaf.core.types import CLOUD
from sheaf.core.wire_format import message_bytes


@dataclass
class SiteCost:
    """What one site spent in a run.

    Attributes:
        macs_per_example: multiply-adds of one forward pass of what the site last trained, or of the whole
            model where it trained nothing.
        parameters: how many numbers that holds.
        train_macs: multiply-adds of all its training, forward and backward.
        bytes_sent, bytes_received: headers, parameters and samples through the seam; the cloud's are the sums
            of what the edges received and sent.
        seconds: measured, spent on tasks.
        peak_memory_bytes: measured, the highest of all its tasks.
    """

    macs_per_example: int = 0
    parameters: int = 0
    train_macs: int = 0
    bytes_sent: int = 0
    bytes_received: int = 0
    seconds: float = 0.0
    peak_memory_bytes: int = 0

    def add(self, cost: Cost) -> None:
        """Books one task."""
        self.macs_per_example = cost.macs_per_example or self.macs_per_example
        self.parameters = cost.parameters or self.parameters
        self.train_macs += cost.train_macs
        self.seconds += cost.seconds
        self.peak_memory_bytes = max(self.peak_memory_bytes, cost.peak_memory_bytes)


class Ledger:
    """Books every answer. ``macs_per_example`` and ``parameters`` are those of the whole model."""

    def __init__(self, sites: tuple[str, ...], macs_per_example: int, parameters: int) -> None:
        self.sites = {
            site: SiteCost(macs_per_example=macs_per_example, parameters=parameters)
            for site in (*sites, CLOUD)
        }

    def book(self, task: Task, update: Update) -> None:
        """Adds what one answer cost the site, and what the pair of messages weighs on the wire."""
        site = self.sites[update.site]
        site.add(update.cost)
        if update.site == CLOUD:
            return  # the cloud's own work crosses no wire
        down, up = message_bytes(task), message_bytes(update)
        site.bytes_received += down
        site.bytes_sent += up
        self.sites[CLOUD].bytes_sent += down
        self.sites[CLOUD].bytes_received += up
