"""Short timeouts, and devices that take turns: in a real fleet, each device has a process of its own."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from sheaf.fleets import absences
from sheaf.fleets.remote import fleet
from sheaf.fleets.remote.device import EdgeSite


@pytest.fixture(autouse=True)
def _short_timeouts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(absences, "DEAD_AFTER", 0.6)
    monkeypatch.setattr(fleet, "POLL_WAIT", 0.05)


@pytest.fixture(autouse=True)
def _one_device_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two devices in one process would draw from the same global generator at the same time."""
    lock, run = threading.Lock(), EdgeSite._run

    def locked(self: EdgeSite, *arguments: Any) -> None:
        with lock:
            run(self, *arguments)

    monkeypatch.setattr(EdgeSite, "_run", locked)
