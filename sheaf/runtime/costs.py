"""The cost of every site over a run: computation, memory, time and traffic."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from pydantic import ConfigDict

from sheaf.core.privacy import spent
from sheaf.core.recipe import Noise
from sheaf.core.task import Cost, Task, Update
from sheaf.core.types import CLOUD
from sheaf.core.wire_format import count_samples, message_bytes


@dataclass
class SiteCost:
    """The cost of one site in a run, booked task by task and stored in ``result.json``.

    Not a ``@settings`` class, because validation on every change would slow down booking. It is validated
    when a result is read.

    Attributes:
        macs_per_example: multiply-adds of one forward pass of the network that the site trained last, or of
            the whole model if it trained none.
        parameters: number of parameters of that network.
        train_macs: multiply-adds of all training, forward and backward.
        bytes_sent: bytes of the messages sent: headers, parameters and samples.
        bytes_received: bytes of the messages received. The cloud receives the bytes that the edges send, and
            sends the bytes that they receive.
        seconds: measured time spent on tasks.
        peak_memory_bytes: measured peak memory, the maximum over all tasks.
        samples_sent: training samples that an edge sent to the cloud, or that the cloud sent on to edges;
            None in a result of a version that did not record them.
        statistics_sent: statistics of its training samples that an edge sent: for a merge, of batch norm, or
            of features; see ``Statistic``.
        epsilon: privacy loss of all statistics with noise that the edge sent, at their delta; None: it sent
            none.
    """

    macs_per_example: int
    parameters: int
    train_macs: int
    bytes_sent: int
    bytes_received: int
    seconds: float
    peak_memory_bytes: int
    samples_sent: int | None = None
    statistics_sent: int = 0
    epsilon: float | None = None

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid", allow_inf_nan=False)

    def add(self, cost: Cost) -> None:
        """Add the cost of one task."""
        self.macs_per_example = cost.macs_per_example or self.macs_per_example
        self.parameters = cost.parameters or self.parameters
        self.train_macs += cost.train_macs
        self.seconds += cost.seconds
        self.peak_memory_bytes = max(self.peak_memory_bytes, cost.peak_memory_bytes)


class Ledger:
    """The costs of a run's sites.

    Args:
        sites: names of the edges; the cloud is added.
        macs_per_example: multiply-adds of one forward pass of the whole model.
        parameters: number of parameters of the whole model.

    Attributes:
        sites: site -> its cost so far.
    """

    def __init__(self, sites: tuple[str, ...], macs_per_example: int, parameters: int) -> None:
        self._releases: dict[str, list[Noise]] = {}
        self.sites = {
            site: SiteCost(
                macs_per_example=macs_per_example,
                parameters=parameters,
                train_macs=0,
                bytes_sent=0,
                bytes_received=0,
                seconds=0.0,
                peak_memory_bytes=0,
                samples_sent=0,
            )
            for site in (*sites, CLOUD)
        }

    def book(self, task: Task, update: Update) -> None:
        """Add the cost of one answer and the bytes of its two messages."""
        site, cloud = self.sites[update.site], self.sites[CLOUD]
        site.add(update.cost)
        if update.site == CLOUD:
            return  # the cloud's own work crosses no wire
        down, up = message_bytes(task), message_bytes(update)
        site.bytes_received += down
        site.bytes_sent += up
        cloud.bytes_sent += down
        cloud.bytes_received += up
        if task.statistic is not None and task.reply:
            site.statistics_sent += 1
            if task.statistic.noise is not None:
                releases = self._releases.setdefault(update.site, [])
                releases.append(task.statistic.noise)
                site.epsilon = spent(releases)
        if task.kind == "share":
            site.samples_sent = (site.samples_sent or 0) + count_samples(update.blob)
        elif task.kind == "lend":
            cloud.samples_sent = (cloud.samples_sent or 0) + count_samples(task.blob)
