"""What can go wrong, as one tree.

SheafError                 anything a user can mend; the command line prints it as one line, exit code 2
├── SettingError           a key of an experiment: unknown, of the wrong type, out of range
├── UnknownNameError       a method, merge, model, dataset, partition or experiment that does not exist
├── DataError              a dataset: not found, unreadable, inconsistent
├── PartitionError         a split that cannot be made, such as one that leaves an edge empty
├── CutError               a model that cannot be cut, or a cut that does not fit its model
├── WeightsError           a weights file: unreadable, of another model, not finite
├── ModelFileError         an exported model: cannot be written, read, trusted or used
├── MissingExtraError      an optional library that is not installed
├── RunFolderError         a run's folder: in use, of another experiment, damaged
├── FleetError             a real fleet: not running, a kit that cannot be used, a message that is none
├── TrainingError          training that ended in values which are not finite
└── QuorumError            too few edges answered a call with something usable
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class SheafError(Exception):
    """Anything a user can mend. The message is one line: what, where, what is allowed."""


class SettingError(SheafError):
    """A key of an experiment is unknown, of the wrong type or out of range."""


class UnknownNameError(SheafError):
    """Nothing of that kind has that name."""

    def __init__(self, kind: str, name: str, known: Iterable[str]) -> None:
        known = sorted(known)
        super().__init__(f"no {kind} is named {name!r}{nearest(name, known)}; there are: {', '.join(known)}")


class DataError(SheafError):
    """A dataset cannot be found, read or used as it is."""


class PartitionError(SheafError):
    """The data cannot be split among the edges as asked."""


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
    """A real fleet cannot be reached or used as asked, or something that came over the wire is malformed."""


class TrainingError(SheafError):
    """Training ended in values that are not finite."""


class QuorumError(SheafError):
    """Too few edges answered a call with something usable."""


def nearest(name: str, known: Iterable[str]) -> str:
    """``" (did you mean 'x'?)"``, or nothing where no known name is near."""
    match = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f" (did you mean {match[0]!r}?)" if match else ""


def first_line(error: Exception) -> str:
    """Return the first line of an error's message, or the name of its type if the message is empty."""
    return str(error).strip().partition("\n")[0] or type(error).__name__
