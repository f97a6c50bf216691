"""Load the finished runs that a report covers."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from sheaf.core.errors import RunFolderError
from sheaf.runtime.result import Result


@dataclass(frozen=True)
class Run:
    """A finished run.

    Attributes:
        folder: the run's folder.
        result: the content of its ``result.json``.
    """

    folder: Path
    result: Result


def load_runs(folders: Iterable[Path]) -> tuple[list[Run], list[Path]]:
    """Load the runs in these folders.

    Args:
        folders: each is a run's folder, or a folder of runs' folders such as ``sheaf compare`` writes.

    Returns:
        The finished runs, and the folders of unfinished runs inside folders of runs.

    Raises:
        RunFolderError: a folder contains no finished run or a damaged result, or a run is given twice.
    """
    runs: dict[Path, Run] = {}
    unfinished: list[Path] = []
    for folder in folders:
        inner = [folder] if (folder / "result.json").exists() else _run_folders(folder)
        for run_folder in inner or [folder]:  # for a folder without runs, Result.read raises
            if run_folder != folder and not (run_folder / "result.json").exists():
                unfinished.append(run_folder)
                continue
            if run_folder.resolve() in runs:
                raise RunFolderError(f"{run_folder} is given twice; give each run once")
            runs[run_folder.resolve()] = Run(run_folder, _checked(Result.read(run_folder), run_folder))
    if not runs:
        raise RunFolderError(f"no run is finished yet; continue one with: sheaf run --resume {unfinished[0]}")
    return list(runs.values()), unfinished


def _run_folders(folder: Path) -> list[Path]:
    if (folder / "experiment.toml").exists() or not folder.is_dir():
        return []
    return sorted(inner for inner in folder.iterdir() if (inner / "experiment.toml").exists())


def _checked(result: Result, folder: Path) -> Result:
    """Return the result after checking that the shapes of its fields agree.

    Raises:
        RunFolderError: they do not agree.
    """
    classes = len(result.classes)
    consistent = {
        "split": bool(result.split) and all(len(counts) == classes for counts in result.split.values()),
        "rows": bool(result.rows)
        and all(
            len(row.confusion) == classes and all(len(line) == classes for line in row.confusion)
            for row in result.rows
        ),
        "cost": result.cost.keys() >= result.split.keys(),
        "cuts": result.cuts is None or all(part.sites for part in result.cuts.parts),
    }
    for field, agrees in consistent.items():
        if not agrees:
            raise RunFolderError(
                f"{folder / 'result.json'} is damaged: {field} does not fit the other fields"
            )
    return result
