"""The runs that a report is about."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from sheaf.core.errors import RunFolderError
from sheaf.runtime.result import Result


@dataclass(frozen=True)
class Run:
    """A finished run and its folder."""

    folder: Path
    result: Result


def gather(folders: Iterable[Path]) -> tuple[list[Run], list[Path]]:
    """The runs in these folders, each a run's own or one with runs in it (as ``sheaf compare`` leaves).

    Returns:
        The finished runs, and the folders within a folder of runs that hold an unfinished one.

    Raises:
        RunFolderError: a folder holds no finished run, or a damaged one; a run is named twice.
    """
    runs: dict[Path, Run] = {}
    unfinished: list[Path] = []
    for folder in folders:
        inner = [folder] if (folder / "result.json").exists() else _inner(folder)
        for place in inner or [folder]:  # a folder without any run says so itself
            if place != folder and not (place / "result.json").exists():
                unfinished.append(place)
                continue
            if place.resolve() in runs:
                raise RunFolderError(f"{place} is named twice")
            runs[place.resolve()] = Run(place, _checked(Result.read(place), place))
    if not runs:
        raise RunFolderError(f"no run is finished yet; go on with: sheaf run --resume {unfinished[0]}")
    return list(runs.values()), unfinished


def _inner(folder: Path) -> list[Path]:
    if (folder / "experiment.toml").exists() or not folder.is_dir():
        return []
    return sorted(place for place in folder.iterdir() if (place / "experiment.toml").exists())


def _checked(result: Result, folder: Path) -> Result:
    """A result whose parts fit together, as pictures need them to.

    Raises:
        RunFolderError: they do not.
    """
    k = len(result.classes)
    whole = {
        "split": bool(result.split) and all(len(counts) == k for counts in result.split.values()),
        "rows": bool(result.rows)
        and all(len(r.confusion) == k and all(len(line) == k for line in r.confusion) for r in result.rows),
        "cost": result.cost.keys() >= result.split.keys(),
        "cuts": result.cuts is None or all(part.sites for part in result.cuts.parts),
    }
    if wrong := [key for key, fits in whole.items() if not fits]:
        raise RunFolderError(f"{folder / 'result.json'} is damaged: {wrong[0]} does not fit the rest")
    return result
