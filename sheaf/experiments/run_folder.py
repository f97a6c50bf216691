"""The folder of a run: its lock, its command, its models, and the files that only an unfinished run needs."""

from __future__ import annotations

import json
import logging
import re
import shutil
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from sheaf.core import objects
from sheaf.core.atomic_io import sync, write_durably
from sheaf.core.cut import Cut
from sheaf.core.errors import RunFolderError
from sheaf.core.log_capture import logging_to
from sheaf.core.settings import plain
from sheaf.core.stored_params import blob_of
from sheaf.core.task import Update
from sheaf.core.tensor_file import Blob
from sheaf.core.types import CLOUD, Params
from sheaf.experiments.config import Experiment
from sheaf.experiments.setup import ExperimentSetup
from sheaf.models.card import Card
from sheaf.models.checkpoints import save_weights
from sheaf.runtime.edges import Edges
from sheaf.runtime.measured_logits import MeasuredLogits, write_measured

WRITERS = 2
"""The number of models in memory while writing: one is encoded while the disk syncs another."""

REMOVERS = 16
"""The number of threads that remove files: a removal takes as long for many files as for one."""


RUNS = Path("runs")
"""The directory of runs whose folder is not chosen."""


def new_folder(experiment: Experiment, comparison: bool = False) -> Path:
    """Return the default folder of a run, ``runs/METHOD-DATA-MODEL-TIME``; ``compare-…`` for a comparison."""
    data = objects.readable(experiment.data.name)
    method = "compare" if comparison else objects.readable(plain(experiment.method)["name"])
    names = method, Path(data).name or "data", objects.readable(experiment.model.name)
    name = "-".join(re.sub("[^A-Za-z0-9_@.]+", "_", each)[:40] for each in names)
    folder = RUNS / f"{name}-{datetime.now():%Y%m%d-%H%M%S}"
    number = 1
    while folder.exists():
        number += 1
        folder = folder.with_name(f"{folder.name.partition('~')[0]}~{number}")
    return folder


def write_command(folder: Path, command: dict[str, Any], experiment: str) -> None:
    """Write the arguments of a run and its experiment, as TOML, which resuming reads."""
    write_durably(folder / "command.json", json.dumps(command).encode())
    write_durably(folder / "experiment.toml", experiment.encode())


def read_command(folder: Path) -> dict[str, Any]:
    """Return the arguments with which the run in ``folder`` was started.

    Raises:
        RunFolderError: they cannot be read.
    """
    path = folder / "command.json"
    try:
        command = json.loads(path.read_text())
        command["data"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunFolderError(
            f"{path} is missing or damaged; pass the directory of the data with --data"
        ) from error
    return dict(command)


def data_root(folder: Path) -> Path | None:
    """Return the directory in which the run looks for named datasets first.

    Raises:
        RunFolderError: the run's arguments cannot be read.
    """
    root = read_command(folder)["data"]
    return Path(root) if root else None


@contextmanager
def lock(folder: Path) -> Iterator[None]:
    """Lock the folder inside the block.

    Raises:
        RunFolderError: another process holds the lock.
    """
    try:
        with FileLock(folder / "lock", timeout=0):
            yield
    except Timeout as error:
        raise RunFolderError(f"{folder} is in use by another run; wait until it ends") from error


@contextmanager
def log_to_file(folder: Path) -> Iterator[None]:
    """Write the log messages of sheaf to ``log.txt`` inside the block."""
    handler = logging.FileHandler(folder / "log.txt", encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    with logging_to(handler):
        yield


def save_models(
    setup: ExperimentSetup,
    folder: Path,
    edges: Edges,
    theta: Params | None,
    measured: Mapping[str, MeasuredLogits],
) -> dict[str, str]:
    """Write the final model of each site, and the logits ``measured`` of it; return site -> file.

    Sites with the same model get hard links to one file.
    """
    (folder / "weights").mkdir(exist_ok=True)
    card = Card.of_dataset(setup.dataset, setup.experiment.model)
    updates = edges.collect()
    sites = [update.site for update in updates] + [CLOUD] * (theta is not None)
    files = {site: f"weights/{site}.safetensors" for site in sites}
    equal: dict[tuple[str, Cut | None], list[Update]] = {}
    for update in updates:
        assert update.blob is not None
        equal.setdefault((update.blob.sha256, edges.cut_of(update.site)), []).append(update)

    def save(site: str, params: Params, cut: Cut | None) -> None:
        metadata = replace(card, cut=None if cut is None else cut.header()).metadata()
        save_weights(folder / files[site], params, metadata, named=False)

    def save_equal(group: list[Update]) -> None:
        first, *others = group
        save(first.site, first.params, edges.cut_of(first.site))
        if others:
            written = Blob.at(folder / files[first.site])
            for other in others:
                written.write(folder / files[other.site], named=False)

    with ThreadPoolExecutor(WRITERS) as writers:
        list(writers.map(save_equal, equal.values()))
    models = {update.site: update.blob.sha256 for update in updates if update.blob is not None}
    if theta is not None:
        save(CLOUD, theta, None)
        models[CLOUD] = blob_of(theta).sha256
    sync(folder / "weights")
    final = {site: record for site, record in measured.items() if record.model == models.get(site)}
    write_measured(folder, final, setup.dataset.test)
    return files


def tidy(folder: Path) -> None:
    """Remove the files that only an unfinished run needs; the lines of the journal stay."""
    patterns = "journal/*.safetensors", "sites/*", "incoming/*"
    paths = [path for pattern in patterns for path in folder.glob(pattern) if path.is_file()]
    with ThreadPoolExecutor(REMOVERS) as removers:
        list(removers.map(lambda path: path.unlink(missing_ok=True), paths))
    for name in ("sites", "incoming"):
        shutil.rmtree(folder / name, ignore_errors=True)
