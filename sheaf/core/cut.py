"""The sub-model that a site holds, as plain data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from sheaf.core.errors import CutError

Runs = tuple[tuple[int, int], ...]
"""Sorted indices as half-open intervals: 0, 1, 2, 5 is ((0, 3), (5, 6))."""


@dataclass(frozen=True)
class Cut:
    """The channels and classes of a sub-model. Hashable plain data, made by ``ChannelStructure.cut``.

    Attributes:
        kept: (name, channels) of every channel group of which the sub-model holds only some channels.
        classes: sorted indices of the classes whose classifier rows the sub-model holds; None for all.
        other: the classifier has one more row, the last, for "none of these classes". Only the
            sub-model has this row; it is folded away when the sub-model is put back.
    """

    kept: tuple[tuple[str, Runs], ...] = ()
    classes: tuple[int, ...] | None = None
    other: bool = False

    def header(self) -> dict[str, Any]:
        """Return the cut as a JSON object."""
        kept = {name: [list(run) for run in runs] for name, runs in self.kept}
        classes = None if self.classes is None else list(self.classes)
        return {"kept": kept, "classes": classes, "other": self.other}

    @classmethod
    def of(cls, header: Mapping[str, Any]) -> Cut:
        """Return the cut with this ``header()``; ``ChannelStructure.submodel`` checks that it fits a model.

        Nothing is converted: 1.9 and "3" are no indices, 1 is no truth value.

        Raises:
            CutError: ``header`` is malformed.
        """
        try:
            kept = tuple(
                (_of_type(str, name), tuple(_run(*run) for run in runs))
                for name, runs in header["kept"].items()
            )
            classes = header["classes"]
            if classes is not None:
                classes = tuple(_of_type(int, number) for number in classes)
            return cls(kept, classes, _of_type(bool, header["other"]))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise CutError(f"malformed header of a cut: {type(error).__name__}: {error}") from error


Plain = TypeVar("Plain", str, int, bool)


def _run(start: object, stop: object) -> tuple[int, int]:
    return _of_type(int, start), _of_type(int, stop)


def _of_type(expected: type[Plain], value: object) -> Plain:
    if type(value) is not expected:
        raise TypeError(f"{value!r} must be of type {expected.__name__}")
    return value
