"""Refuse a simulated device whose memory is too small for its training, before anything is trained."""

from __future__ import annotations

from dataclasses import replace

from sheaf.core.errors import SettingError, SheafError
from sheaf.experiments.planned_tasks import Demands, demands_of
from sheaf.experiments.setup import ExperimentSetup

FEW = 4
"""Devices with the least memory, which are checked where all train the same network."""


def check_memory(setup: ExperimentSetup) -> None:
    """Check that each edge's training fits into the memory of its device.

    Raises:
        SettingError: the training of an edge does not fit.
    """
    if setup.devices is None:
        return
    memory = {site: setup.devices.profiles[site].device.memory for site in setup.edge_samples}
    for site, demands in _demands(setup, memory).items():
        if demands.memory > memory[site]:
            raise SettingError(
                f"{site}: training needs {demands.memory:,} bytes of memory, but its device "
                f"{setup.devices.profiles[site].name} has {memory[site]:,.0f}; give it a smaller sub-model "
                "(fleet.widths, with a method that cuts), a smaller batch size or another device"
            )


def _demands(setup: ExperimentSetup, memory: dict[str, float]) -> dict[str, Demands]:
    without_clock = replace(setup, devices=None)
    if not hasattr(setup.experiment.method, "cut"):
        least = sorted(memory, key=lambda site: memory[site])[:FEW]
        try:
            return demands_of(without_clock, least)
        except SheafError:  # the method needs more edges
            pass
    try:
        return demands_of(without_clock, list(memory))
    except SheafError:  # the run stops there, with the message for the real data
        return {}
