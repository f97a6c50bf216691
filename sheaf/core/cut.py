"""Which part of a model a site holds, as plain data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sheaf.core.errors import CutError

Runs = tuple[tuple[int, int], ...]
"""Sorted indices as half-open runs: 0, 1, 2, 5 is ((0, 3), (5, 6))."""


@dataclass(frozen=True)
class Cut:
    """Which part of a model is held. Small, hashable plain data; made by ``ChannelStructure.cut``.

    Attributes:
        kept: the channels held of each group that is not held whole, by the group's name.
        classes: the classes whose rows of the classifier are held, sorted; None for all.
        other: the part has one more row, after those of its classes: "none of mine". It is the
            part's own, and folded away when the part is put back.
    """

    kept: tuple[tuple[str, Runs], ...] = ()
    classes: tuple[int, ...] | None = None
    other: bool = False

    def header(self) -> dict[str, Any]:
        """The cut as JSON knows it."""
        kept = {name: [list(run) for run in runs] for name, runs in self.kept}
        classes = None if self.classes is None else list(self.classes)
        return {"kept": kept, "classes": classes, "other": self.other}

    @classmethod
    def of(cls, header: Mapping[str, Any]) -> Cut:
        """The cut that ``header()`` came from. Whether it fits a model, ``ChannelStructure.part`` checks.

        Raises:
            CutError: it is no cut's header.
        """
        try:
            kept = tuple(
                (str(name), tuple((int(start), int(stop)) for start, stop in runs))
                for name, runs in header["kept"].items()
            )
            classes = header["classes"]
            return cls(
                kept, None if classes is None else tuple(int(c) for c in classes), bool(header["other"])
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise CutError(f"not the header of a cut: {type(error).__name__}: {error}") from error
