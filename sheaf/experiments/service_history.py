"""The history of a fleet in service: one JSON line for each round, in files that rotate by size."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, Field, ValidationError

FILE = "history.jsonl"

LARGEST = 5_000_000
"""Bytes of the file from which on it is renamed and a new one begun."""

KEPT = 4
"""Renamed files that are kept: ``history.jsonl.1`` is the newest."""


class HistoryLine(BaseModel):
    """One round of a fleet in service.

    Attributes:
        round: its number, from 1.
        began, ended: in seconds since 1970.
        outcome: ``accepted``: the run's model is the current one from now on; ``rejected``: it was worse on
            the cloud's test data; ``skipped``: no run was started; ``failed``: the run did not finish.
        why: reason of a round that was not accepted.
        run: name of the run's folder in ``runs``; None without a run.
        devices: devices that took part.
        left_out: device -> why it took no part.
        samples: training samples of the devices that took part.
        new_samples: those that they have gained since the last finished run.
        accuracy: of the run's model on the cloud's test data; None if the run has no model of the cloud.
        before: of the model that was current, on the same data; None if none was or it cannot be compared.
        replaced: device -> whether it made its model of the run its current one; see ``edge.guard``.
        bytes: sent between the cloud and all devices, both ways.
    """

    round: int
    began: float
    ended: float
    outcome: Literal["accepted", "rejected", "skipped", "failed"]
    why: str = ""
    run: str | None = None
    devices: list[str] = Field(default_factory=list)
    left_out: dict[str, str] = Field(default_factory=dict)
    samples: int = 0
    new_samples: int = 0
    accuracy: float | None = None
    before: float | None = None
    replaced: dict[str, bool] = Field(default_factory=dict)
    bytes: int = 0


def append(folder: Path, line: HistoryLine) -> None:
    """Append a line durably, unless the round has one; rotate the files first if the newest is large."""
    path = folder / FILE
    newest = last_line(folder)
    if newest is not None and newest.round >= line.round:
        return
    if path.exists() and path.stat().st_size > LARGEST:
        for number in range(KEPT, 0, -1):
            older = folder / f"{FILE}.{number}"
            newer = folder / f"{FILE}.{number - 1}" if number > 1 else path
            if newer.exists():
                newer.replace(older)
    with path.open("ab+") as file:
        if file.tell() and not _ends_with_newline(path):
            file.write(b"\n")  # after a line that a power failure has cut
        file.write(line.model_dump_json().encode() + b"\n")
        file.flush()
        os.fsync(file.fileno())


def read(folder: Path) -> Iterator[HistoryLine]:
    """Yield the lines, the oldest first; lines that a power failure has cut are left out."""
    for path in [folder / f"{FILE}.{number}" for number in range(KEPT, 0, -1)] + [folder / FILE]:
        if path.exists():
            for text in path.read_bytes().splitlines():
                try:
                    yield HistoryLine.model_validate_json(text)
                except ValidationError:
                    continue


def last_line(folder: Path) -> HistoryLine | None:
    """Return the newest line, or None before the first."""
    newest = None
    for newest in read(folder):  # noqa: B007  # files of a few megabytes
        pass
    return newest


def _ends_with_newline(path: Path) -> bool:
    with path.open("rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read(1) == b"\n"
