"""A device's record of the statistics with noise that have left it, and their privacy loss over all runs."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from sheaf.core.atomic_io import write_durably
from sheaf.core.errors import FleetError
from sheaf.core.privacy import spent
from sheaf.core.recipe import Noise
from sheaf.core.task import Task
from sheaf.core.wire_format import task_digest
from sheaf.fleets.remote.device_settings import ShareSettings

RECORD = "statistics.json"
"""The file of the record."""


@dataclass(frozen=True)
class Release:
    """A statistic that has left the device.

    Attributes:
        task: hash of the task.
        answer: hash of the statistic.
        noise: its noise.
    """

    task: str
    answer: str
    noise: Noise


class PrivacyRecord:
    """The durable record of one device.

    A statistic that leaves again, because its request is repeated, is the same one and counts once.

    Args:
        folder: the device's folder.

    Raises:
        FleetError: the record is damaged.
    """

    def __init__(self, folder: Path) -> None:
        self._file = folder / RECORD
        try:
            text = self._file.read_text(encoding="utf-8") if self._file.exists() else "[]"
            self._releases = [
                Release(each["task"], each["answer"], Noise(**each["noise"])) for each in json.loads(text)
            ]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise FleetError(
                f"{self._file} is damaged ({error}); restore it from a backup, or remove it to start again"
            ) from error

    @property
    def epsilon(self) -> float:
        """The privacy loss so far; 0 without a release."""
        return spent(each.noise for each in self._releases) if self._releases else 0.0

    def check(self, task: Task, limits: ShareSettings) -> None:
        """Check that the statistic of a task may leave.

        Raises:
            FleetError: it may not.
        """
        assert task.statistic is not None
        if limits.max_epsilon is None or task_digest(task) in {each.task for each in self._releases}:
            return
        if task.statistic.noise is None:
            raise FleetError(
                f"a {task.statistic.kind} statistic without noise exceeds [share] max_epsilon = "
                f"{limits.max_epsilon:g}; set refit.privacy in the experiment, and no other statistics"
            )
        self._check(task.statistic.noise, limits.max_epsilon)

    def add(self, task: Task, answer: str, limits: ShareSettings) -> None:
        """Record a statistic, durably, before it is sent.

        Args:
            task: its task.
            answer: hash of the statistic.
            limits: of the device.

        Raises:
            FleetError: it exceeds the limit; nothing is recorded.
        """
        assert task.statistic is not None
        noise = task.statistic.noise
        if noise is None or answer in {each.answer for each in self._releases}:
            return
        if limits.max_epsilon is not None:
            self._check(noise, limits.max_epsilon)
        self._releases.append(Release(task_digest(task), answer, noise))
        write_durably(self._file, json.dumps([asdict(each) for each in self._releases]).encode())

    def _check(self, noise: Noise, limit: float) -> None:
        total = spent([*(each.noise for each in self._releases), noise])
        if total > limit * (1 + 1e-9):
            raise FleetError(
                f"a statistic with noise would raise the privacy loss over all runs from {self.epsilon:.3g} "
                f"to {total:.3g}, above [share] max_epsilon = {limit:g}; set a smaller refit.privacy.epsilon "
                "in the experiment, or raise the limit in the device's edge.toml"
            )
