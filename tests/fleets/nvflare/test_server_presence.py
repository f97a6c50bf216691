"""The record of the devices' heartbeats, by a component of FLARE's server."""

from __future__ import annotations

import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from nvflare.apis.client import Client
from nvflare.apis.event_type import EventType

from sheaf.fleets.nvflare import server_presence
from sheaf.fleets.nvflare.server_presence import PresenceRecord
from sheaf.fleets.remote.status import Presence, read_status, write_status


def test_heartbeats_are_recorded_and_outlive_the_connection(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SHEAF_FLEET", str(tmp_path))
    monkeypatch.setattr(server_presence, "PERIOD", 0.01)
    before = Presence(started=1, written=2, heard={"shop-1": 1.5})
    write_status(tmp_path, Presence, before.model_dump_json().encode())
    clients = [Client("shop-2", "token")]
    engine = SimpleNamespace(get_clients=lambda: clients)
    PresenceRecord().handle_event(EventType.SYSTEM_START, SimpleNamespace(get_engine=lambda: engine))

    def recorded(changed: float) -> Presence:
        while (presence := read_status(tmp_path, Presence)) is None or presence.written <= changed:
            time.sleep(0.005)
        return presence

    first = recorded(2)
    assert first.heard == {"shop-1": 1.5, "shop-2": clients[0].last_connect_time}
    clients.clear()
    assert recorded(first.written + 0.02).heard == first.heard
