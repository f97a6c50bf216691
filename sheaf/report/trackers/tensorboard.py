"""Write TensorBoard event files to ``tensorboard/`` in the run's folder: ``tensorboard --logdir runs``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from sheaf.core.optional_imports import extra
from sheaf.report.stages import stage_label
from sheaf.report.trackers._axis import Axis
from sheaf.runtime.result import Row
from sheaf.runtime.timeline import Timeline


class TensorBoard:
    """An observer that writes event files.

    Scalars are ``loss/SITE`` over training steps, and ``accuracy/SITE`` and ``accuracy_all/SITE`` over
    measurements.

    Args:
        folder: the run's folder.

    Raises:
        MissingExtraError: tensorboard is not installed.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._library = extra("tensorboard", "torch.utils.tensorboard")
        self._axis = Axis()

    def __enter__(self) -> TensorBoard:
        events = self._folder / "tensorboard"
        if events.exists():
            self._axis = _resumed_axis(events)
        self._writer = self._library.SummaryWriter(str(events))
        experiment = (self._folder / "experiment.toml").read_text(encoding="utf-8")
        self._writer.add_text("experiment", "\n".join(f"    {line}" for line in experiment.splitlines()))
        return self

    def __exit__(self, *error: object) -> None:
        self._writer.close()

    def note(self, text: str) -> None:
        """Write a text ``note``."""
        self._writer.add_text("note", text)

    def began(self, kind: str, sites: Sequence[str]) -> None:
        """Start a call: the sites' next steps follow those of earlier calls."""
        self._axis.began(sites)

    def step(self, site: str, done: int, steps: int, loss: float, examples: int) -> None:
        """Write a point of ``loss/SITE``."""
        if at := self._axis.step(site, done, steps):
            self._writer.add_scalar(f"loss/{site}", loss, at)

    def answered(self, site: str) -> None:
        """Flush the event file."""
        self._writer.flush()

    def absent(self, site: str, why: str) -> None:
        """Write a text ``refused``."""
        self.refused(site, why)

    def refused(self, site: str, why: str) -> None:
        """Write a text ``refused``."""
        self._writer.add_text("refused", f"{site}: {why}")

    def timed(self, timeline: Timeline) -> None:
        """Write nothing."""

    def row(self, row: Row) -> None:
        """Write a point of each accuracy, and the stage as text."""
        if at := self._axis.row(row.site):
            self._writer.add_scalar(f"accuracy/{row.site}", row.accuracy, at)
            if row.accuracy_all is not None:
                self._writer.add_scalar(f"accuracy_all/{row.site}", row.accuracy_all, at)
            self._writer.add_text(f"stage/{row.site}", f"{stage_label(row.stage)}, round {row.round}", at)


def _resumed_axis(folder: Path) -> Axis:
    """Return the axis after the last points in the event files of a stopped run."""
    library = extra("tensorboard", "tensorboard.backend.event_processing.event_accumulator")
    accumulator = library.EventAccumulator(str(folder), size_guidance={library.SCALARS: 0})
    accumulator.Reload()
    last: dict[str, dict[str, int]] = {"loss": {}, "accuracy": {}, "accuracy_all": {}}
    for tag in accumulator.Tags()["scalars"]:
        name, _, site = tag.partition("/")
        last[name][site] = max(event.step for event in accumulator.Scalars(tag))
    return Axis(last["loss"], last["accuracy"] | last["accuracy_all"])
