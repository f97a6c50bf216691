"""Check before a run which devices of a fleet can take part in it, and what keeps the others from it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from sheaf.core.errors import DevicesError
from sheaf.core.task import Absence
from sheaf.experiments.planned_tasks import Demands, demands_of
from sheaf.experiments.setup import ExperimentSetup
from sheaf.fleets.remote.fleet import RemoteFleet
from sheaf.fleets.remote.messages import DeviceInfo


@dataclass(frozen=True)
class Survey:
    """The devices of a fleet before a run.

    Attributes:
        edges: the devices that were asked, in the order of summation.
        infos: device -> its report; without the absent ones and those that refuse the set-up.
        demands: device -> what the experiment demands of it.
        absent: device -> why it is absent. It may take part when it returns.
        misfits: device -> why it cannot take part, one line for each reason.
    """

    edges: tuple[str, ...]
    infos: dict[str, DeviceInfo]
    demands: dict[str, Demands]
    absent: dict[str, str]
    misfits: dict[str, list[str]]

    @property
    def fitting(self) -> list[str]:
        """The devices that can take part."""
        return [edge for edge in self.edges if edge in self.infos and edge not in self.misfits]

    @property
    def reasons(self) -> list[str]:
        """One line for each device that is absent and for each reason of one that cannot take part."""
        lines = [f"{edge}: {why}" for edge, why in self.absent.items()]
        return lines + [f"{edge}: {why}" for edge, reasons in self.misfits.items() for why in reasons]

    def check_quorum(self, quorum: float) -> None:
        """Check that the fraction ``quorum`` of the devices can take part.

        Raises:
            DevicesError: too few can.
        """
        needed = max(1, math.ceil(quorum * len(self.edges)))
        if len(self.fitting) < needed:
            raise DevicesError(
                f"{len(self.fitting)} of {len(self.edges)} devices can take part, but fleet.quorum = "
                f"{quorum:g} needs {needed}; nothing was trained",
                self.reasons,
            )

    def counts(self, classes: int) -> dict[str, list[int]]:
        """Return the class counts of each device that takes part; zeros for an absent one."""
        return {
            edge: self.infos[edge].counts if edge in self.infos else [0] * classes
            for edge in self.edges
            if edge not in self.misfits
        }

    def widths(self) -> dict[str, float]:
        """Return the widths below 1 of the devices that take part."""
        return {edge: self.infos[edge].width for edge in self.fitting if self.infos[edge].width < 1}


def survey(
    remote: RemoteFleet, prepare: Callable[[dict[str, list[int]], dict[str, float]], ExperimentSetup]
) -> Survey:
    """Ask all devices for their data and limits, and compare these with the experiment's demands.

    Args:
        remote: the fleet.
        prepare: (class counts, widths) -> the experiment's setup.

    Raises:
        SheafError: the experiment cannot run on these devices.
    """
    edges = remote.names()
    infos: dict[str, DeviceInfo] = {}
    absent: dict[str, str] = {}
    misfits: dict[str, list[str]] = {}
    for edge, reply in remote.devices().items():
        if isinstance(reply, DeviceInfo):
            infos[edge] = reply
        elif reply.refusal:
            misfits[edge] = [reply.refusal]
        else:
            absent[edge] = reply.why
    for edge in [edge for edge, info in infos.items() if not any(info.counts)]:
        misfits[edge] = ["it has no training examples; add some to the folder of its --data"]
    known = [edge for edge in infos if edge not in misfits]
    found = Survey(edges, infos, {}, absent, misfits)
    if not known:
        return found
    counts = {edge: infos[edge].counts for edge in known}
    found.demands.update(demands_of(prepare(counts, found.widths()), known))
    refusals = remote.check({edge: demands.tasks for edge, demands in found.demands.items()})
    for edge, refused in refusals.items():
        if isinstance(refused, Absence):
            absent[edge] = refused.why
            del infos[edge]
        elif reasons := refused + _shortages(found.demands[edge], infos[edge]):
            misfits[edge] = reasons
    return found


def _shortages(demands: Demands, info: DeviceInfo) -> list[str]:
    """Return which resource of a device is too small."""
    reasons = []
    if demands.memory > info.memory:
        reasons.append(
            f"training needs {demands.memory / 1e6:.0f} MB of memory and {info.memory / 1e6:.0f} MB are "
            "available; lower the experiment's batch_size, or free memory on the device"
        )
    if demands.disk > info.disk:
        reasons.append(
            f"its models need {demands.disk / 1e6:.0f} MB of disk and {info.disk / 1e6:.0f} MB are free; "
            "free space in its --state folder"
        )
    return reasons
