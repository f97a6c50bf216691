"""The exceptions of sheaf, as one tree.

SheafError                 an error that a user can correct; the command line prints one line, exit code 2
├── SettingError           a key of an experiment is unknown, of the wrong type or out of range
├── UnknownNameError       a method, merge, model, dataset, partition or experiment does not exist
├── DataError              a dataset is missing, unreadable or inconsistent
├── PartitionError         the data cannot be split among the edges, for example because an edge stays empty
├── CutError               a model cannot be cut, or a cut does not fit its model
├── WeightsError           a weights file is unreadable, of another model or not finite
├── ModelFileError         an exported model cannot be written, read, trusted or used
├── MissingExtraError      an optional library is not installed
├── RunFolderError         a run's folder is in use, of another experiment or damaged
├── FleetError             a real fleet is not running, a kit is unusable or a message is malformed
│   └── RefusedError       a device refuses an operation
├── TrainingError          training produced values that are not finite
└── QuorumError            too few edges sent a usable answer to a call
    └── DevicesError       too few devices of a fleet can take part in a run
"""

from __future__ import annotations

import difflib
import unicodedata
from collections.abc import Iterable, Sequence

LONGEST = 3000
"""Characters of a message, of which the middle is left out if there are more."""
CONTROL = {"Cc", "Cs", "Zl", "Zp"}
"""Unicode's categories of characters that break a line, control a terminal, or cannot be encoded."""


LISTED = 100
"""Names that a message lists at most."""


class SheafError(Exception):
    """An error that a user can correct. The message is one line: the value, the limit and the remedy.

    Names and values of a user's files can contain line breaks and control characters, which are escaped.
    """

    def __init__(self, message: str = "") -> None:
        super().__init__(one_line(message))


class SettingError(SheafError):
    """A key of an experiment is unknown, of the wrong type or out of range."""


class UnknownNameError(SheafError):
    """No plugin of a kind has this name; the message lists the known names."""

    def __init__(self, kind: str, name: str, known: Iterable[str]) -> None:
        known = sorted(known)
        listed = ", ".join(known) if len(known) <= LISTED else f"{len(known)} names"
        super().__init__(f"no {kind} is named {name!r}{nearest(name, known)}; there are: {listed}")


class DataError(SheafError):
    """A dataset is missing, unreadable or inconsistent."""


class PartitionError(SheafError):
    """The data cannot be split among the edges as the settings ask."""


class CutError(SheafError):
    """A model cannot be cut, or a cut does not fit its model."""


class WeightsError(SheafError):
    """A weights file cannot be read or does not fit the model."""


class ModelFileError(SheafError):
    """An exported model cannot be written, read, trusted or used."""


class MissingExtraError(SheafError):
    """An optional library is not installed."""


class RunFolderError(SheafError):
    """A run's folder is in use, belongs to another experiment or is damaged."""


class FleetError(SheafError):
    """A real fleet cannot be reached or used, or a message is malformed."""


class RefusedError(FleetError):
    """A device refuses an operation.

    Args:
        reason: the device's.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(f"refused: {reason}")
        self.reason = one_line(reason)


class TrainingError(SheafError):
    """Training produced values that are not finite."""


class QuorumError(SheafError):
    """Too few edges sent a usable answer to a call."""


class DevicesError(QuorumError):
    """Too few devices of a fleet can take part in a run.

    Args:
        summary: how many can, and how many must.
        reasons: one line for each reason of each other device.
    """

    def __init__(self, summary: str, reasons: Sequence[str]) -> None:
        super().__init__(f"{summary} ({'; '.join(reasons)})" if reasons else summary)
        self.summary = one_line(summary)
        self.reasons = [one_line(reason) for reason in reasons]


def one_line(message: str) -> str:
    """Return a message with its control characters escaped and, if it is very long, without its middle."""
    escaped = "".join(
        repr(character)[1:-1] if unicodedata.category(character) in CONTROL else character
        for character in message
    )
    half = LONGEST // 2
    return escaped if len(escaped) <= LONGEST else f"{escaped[:half]} … {escaped[-half:]}"


def nearest(name: str, known: Iterable[str]) -> str:
    """Return ``" (did you mean 'x'?)"`` for the most similar known name, or ``""`` if none is similar."""
    match = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f" (did you mean {match[0]!r}?)" if match else ""


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message, or the name of its type if the message is empty."""
    return str(error).strip().partition("\n")[0] or type(error).__name__
