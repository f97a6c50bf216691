"""A run as TensorBoard event files, in ``tensorboard/`` in its folder: tensorboard --logdir runs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from sheaf.core.optional_imports import extra
from sheaf.report.trackers._axis import Axis
from sheaf.runtime.result import Row


class TensorBoard:
    """``loss/SITE`` over training steps, ``accuracy/SITE`` and ``accuracy_all/SITE`` over measurements.

    Args:
        folder: the run's.

    Raises:
        MissingExtraError: tensorboard is not installed.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._library = extra("tensorboard", "torch.utils.tensorboard")
        self._axis = Axis()

    def __enter__(self) -> TensorBoard:
        place = self._folder / "tensorboard"
        if place.exists():
            self._axis = _axis_of(place)
        self._writer = self._library.SummaryWriter(str(place))
        experiment = (self._folder / "experiment.toml").read_text(encoding="utf-8")
        self._writer.add_text("experiment", "\n".join(f"    {line}" for line in experiment.splitlines()))
        return self

    def __exit__(self, *error: object) -> None:
        self._writer.close()

    def note(self, text: str) -> None:
        """A text."""
        self._writer.add_text("note", text)

    def began(self, kind: str, sites: Sequence[str]) -> None:
        """Steps go on from where the sites are."""
        self._axis.began(sites)

    def step(self, site: str, done: int, steps: int, loss: float, examples: int) -> None:
        """A point of ``loss/SITE``."""
        if at := self._axis.step(site, done, steps):
            self._writer.add_scalar(f"loss/{site}", loss, at)

    def answered(self, site: str) -> None:
        """What was written can be seen."""
        self._writer.flush()

    def absent(self, site: str, why: str) -> None:
        """As what is refused."""
        self.refused(site, why)

    def refused(self, site: str, why: str) -> None:
        """A text."""
        self._writer.add_text("refused", f"{site}: {why}")

    def row(self, row: Row) -> None:
        """A point of the accuracies."""
        if at := self._axis.row(row.site):
            self._writer.add_scalar(f"accuracy/{row.site}", row.accuracy, at)
            self._writer.add_scalar(f"accuracy_all/{row.site}", row.accuracy_all, at)
            self._writer.add_text(f"stage/{row.site}", f"{row.stage}, round {row.round}", at)


def _axis_of(place: Path) -> Axis:
    """Where the event files of a stopped run end."""
    events = extra("tensorboard", "tensorboard.backend.event_processing.event_accumulator")
    found = events.EventAccumulator(str(place), size_guidance={events.SCALARS: 0})
    found.Reload()
    last: dict[str, dict[str, int]] = {"loss": {}, "accuracy": {}, "accuracy_all": {}}
    for tag in found.Tags()["scalars"]:
        name, _, site = tag.partition("/")
        last[name][site] = max(event.step for event in found.Scalars(tag))
    return Axis(last["loss"], last["accuracy_all"])
