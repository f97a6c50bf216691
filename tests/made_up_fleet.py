"""The folder of a fleet with status files as cloud and runs write them, without any process."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import tomli_w

from sheaf.fleets.remote.status import (
    CurrentModel,
    DeviceRecord,
    DeviceRecords,
    MeasuredModel,
    Measurement,
    Presence,
    RunStatus,
    SiteStatus,
    write_status,
)

MEASURED = [
    Measurement(stage="before update", round=1, reference=False, edges=(0.8, 0.85, 0.9), count=3),
    Measurement(stage="average", round=1, reference=False, cloud=0.91),
]

HOSTILE = "<img src=x onerror=alert(1)>"
"""A text as a device may send it."""


def write_fleet(folder: Path, edges: Sequence[str], removed: Sequence[str] = (), **more: Any) -> Path:
    """Write ``fleet.toml`` and return the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    values = {"host": "cloud.example.org", "port": 8002, "edges": list(edges), "removed": list(removed)}
    (folder / "fleet.toml").write_text(tomli_w.dumps(values | more))
    return folder


def write_presence(fleet: Path, ages: Mapping[str, float], written: float = 0.0) -> None:
    """Write the heartbeats; all ages are in seconds."""
    now = time.time()
    heard = {device: now - age for device, age in ages.items()}
    presence = Presence(started=now - 7200, written=now - written, heard=heard)
    write_status(fleet, Presence, presence.model_dump_json().encode())


def write_run(fleet: Path, sites: Mapping[str, Mapping[str, Any]], **fields: Any) -> RunStatus:
    """Write a run that trains in its third call."""
    now = time.time()
    run = RunStatus(
        **{
            "run": "/srv/runs/ecavg-digits-mlp-20261128-010203",
            "title": "ecavg on digits with mlp",
            "began": now - 90,
            "written": now,
            "call": 3,
            "kind": "train",
            "call_began": now - 12,
            "sites": {
                site: SiteStatus(**{"call": 3, "since": now} | values) for site, values in sites.items()
            },
        }
        | fields  # type: ignore[arg-type]
    )
    write_status(fleet, RunStatus, run.model_dump_json().encode())
    return run


def write_models(fleet: Path, devices: Sequence[str], kept_out: str = "") -> None:
    """Write a current model for each device, and a measurement of the latest run's."""
    day_ago, run = time.time() - 86400, "ecavg-digits-mlp-20261127-010203"
    record = DeviceRecord(
        measured=MeasuredModel(run=run, stage="after retraining", at=day_ago, accuracy=0.98),
        current=CurrentModel(run=run, at=day_ago, held_out=0.9778),
        kept_out=kept_out,
    )
    records = DeviceRecords(devices=dict.fromkeys(devices, record))
    write_status(fleet, DeviceRecords, records.model_dump_json().encode())
