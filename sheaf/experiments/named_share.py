"""The rule that an experiment on a real fleet names how many samples leave the devices."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from sheaf.core.errors import SettingError
from sheaf.core.recipe import Share
from sheaf.core.settings import plain
from sheaf.experiments.config import Experiment, load_experiment, read_table


def load_for_fleet(source: str | Path | Experiment, changes: Iterable[str] = ()) -> Experiment:
    """Read an experiment as ``load_experiment`` does, for real devices.

    Raises:
        SettingError: its method sends samples to the cloud, and neither the file nor a change names how many.
            An ``Experiment`` names it.
    """
    changes = tuple(changes)
    experiment = load_experiment(source, changes)
    if isinstance(getattr(experiment.method, "share", None), Share) and not _is_named(source, changes):
        raise SettingError(
            f"method.share is not set: without it, {plain(experiment.method)['name']} sends 100 % of each "
            "device's training samples to the cloud; on a fleet, say how many may be sent, such as with "
            "--set method.share.fraction=0.05"
        )
    return experiment


def _is_named(source: str | Path | Experiment, changes: tuple[str, ...]) -> bool:
    """Return whether ``method.share`` is in the file or in a change."""
    if isinstance(source, Experiment):
        return True
    method: Any = read_table(source).get("method")
    named = isinstance(method, dict) and "share" in method
    for change in changes:
        key, _, value = change.partition("=")
        if key in ("method", "method.name"):
            named = "share" in value  # another method, or its table
        elif key == "method.share" or key.startswith("method.share."):
            named = bool(value)
    return named
