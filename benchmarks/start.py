"""Measure how long the start of a run takes, and its peak memory: the first start on data, and the second.

A start is ``sheaf run`` until the first call to train: it imports the libraries, reads and splits the data
and builds the model. Before a first start the cache is emptied and the system's pages of the data are
dropped. Each start is a process of its own; memory is read from /proc every 5 ms. The versions alternate.

The data are MNIST and CIFAR-10 from SHEAF_DATA, and two folders that are made up: 100,000 images of about
3 kB, and 2,000 photos at 224x224.

Run: python -m benchmarks.start --before CHECKOUT, where CHECKOUT is another checkout of sheaf with its .venv
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from PIL import Image
from rich.progress import Progress

from benchmarks.results import publish
from sheaf.data.load import load_dataset
from sheaf.data.settings import DataSettings

REPEATS = 3
FILES, CLASSES_OF_FILES = 100_000, 20
PHOTOS, CLASSES_OF_PHOTOS = 2_000, 8
FOLDER = ["--set", "partition.name=iid", "--set", "partition.edges=2"]
JOBS = {
    # name: arguments of sheaf run, in which {made} is the folder of the data that are made up
    "MNIST": ["ecavg-mnist"],
    "CIFAR-10": ["ecavg-mnist", "--set", "data.name=cifar10"],
    "100,000 files of 3 kB": ["ecavg-digits", "--set", "data.name={made}/files", *FOLDER],
    "2,000 photos at 224x224": [
        *("ecavg-digits", "--set", "data.name={made}/photos", *FOLDER),
        *("--set", "model.name=mobilenet_v2"),
    ],
}


def make_files(folder: Path) -> None:
    """Write images of 31x31 random pixels, which PNG cannot compress."""
    draws = np.random.default_rng(0)
    for number in range(FILES):
        path = folder / f"class-{number % CLASSES_OF_FILES:02}" / f"{number:06}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(draws.integers(0, 256, (31, 31, 3), dtype=np.uint8)).save(path, compress_level=1)


def make_photos(folder: Path) -> None:
    """Write smooth random images."""
    draws = np.random.default_rng(0)
    for number in range(PHOTOS):
        path = folder / f"class-{number % CLASSES_OF_PHOTOS}" / f"{number:05}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        coarse = Image.fromarray(draws.integers(0, 256, (14, 14, 3), dtype=np.uint8))
        coarse.resize((224, 224), Image.Resampling.BICUBIC).save(path, quality=90)


def files_below(folder: Path) -> Iterator[Path]:
    """Yield all files, at any depth."""
    for parent, _, names in os.walk(folder):
        yield from (Path(parent, name) for name in names)


def drop_pages(folder: Path) -> None:
    """Drop the system's pages of all files in ``folder``, so that they are read from the disk."""
    for path in files_below(folder):
        handle = os.open(path, os.O_RDONLY)
        os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(handle)


class PeakOfProcess(threading.Thread):
    """Samples the memory of a process every 5 ms, from the start of the thread until ``stop``.

    Attributes:
        resident: the peak of its resident memory, in bytes.
        anonymous: the peak of that without pages of files, in bytes.
    """

    def __init__(self, process: psutil.Process) -> None:
        super().__init__(daemon=True)
        self.resident = self.anonymous = 0
        self._process = process
        self._stopped = threading.Event()

    def run(self) -> None:
        """Sample until ``stop``."""
        while not self._stopped.wait(0.005):
            try:
                memory = self._process.memory_info()
            except psutil.NoSuchProcess:  # it failed; its message is on stderr
                return
            self.resident = max(self.resident, memory.rss)
            self.anonymous = max(self.anonymous, memory.rss - memory.shared)

    def stop(self) -> None:
        """Stop sampling; the process must still exist."""
        self._stopped.set()
        self.join()


def start(checkout: Path, arguments: list[str], folder: Path) -> dict[str, float]:
    """Start a run, and stop it when training begins.

    Args:
        checkout: of sheaf.
        arguments: of ``sheaf run``.
        folder: receives the cache and the run.

    Returns:
        The seconds until then, and the peaks of resident and of anonymous memory in bytes.
    """
    # Byte code is cached, as users have it.
    environment = os.environ | {"SHEAF_CACHE": str(folder / "cache"), "PYTHONDONTWRITEBYTECODE": ""}
    environment.pop("PYTHONPATH", None)  # which would name one checkout for both
    with tempfile.TemporaryDirectory(dir=folder) as out:
        command = [str(checkout / ".venv/bin/sheaf"), "run", *arguments, "--json", "--out", f"{out}/run"]
        began = time.perf_counter()
        with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment) as process:
            assert process.stdout is not None
            peak = PeakOfProcess(psutil.Process(process.pid))
            peak.start()
            for line in process.stdout:
                if json.loads(line)["event"] == "began":
                    break
            else:
                sys.exit(f"{' '.join(command)} ended before training")
            seconds = time.perf_counter() - began
            peak.stop()
            process.kill()
    return {"seconds": seconds, "peak": peak.resident, "anonymous": peak.anonymous}


def commit(checkout: Path) -> str:
    """Return the hash of a checkout's commit."""
    command = ["git", "-C", str(checkout), "rev-parse", "HEAD"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def main() -> None:
    """Measure all starts, and publish ``start.json``."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--before", type=Path, required=True, help="checkout of another version")
    parser.add_argument("--made", type=Path, help="folder for the data that are made up; kept [temporary]")
    parser.add_argument("--repeats", type=int, default=REPEATS)
    options = parser.parse_args()
    root = Path(os.environ["SHEAF_DATA"])
    checkouts = {"before": options.before.resolve(), "after": Path(__file__).parents[1]}
    of: dict[tuple[str, str, str], list[dict[str, float]]] = {}
    with tempfile.TemporaryDirectory(prefix="sheaf-start-") as scratch, Progress() as progress:
        made = (options.made or Path(scratch, "made")).resolve()
        for name, make in (("files", make_files), ("photos", make_photos)):
            if not (made / name).exists():
                make(made / name)
        task = progress.add_task("starts", total=options.repeats * len(JOBS) * 4)
        for repeat in range(options.repeats):
            for name, job in JOBS.items():
                folder = made if "{made}" in " ".join(job) else root / name.lower().replace("-", "")
                versions = list(checkouts)[:: 1 if repeat % 2 else -1]
                for version in versions:
                    own = Path(tempfile.mkdtemp(dir=scratch))
                    drop_pages(folder)
                    for which in ("first", "second"):
                        arguments = [word.format(made=made) for word in job]
                        measured = start(checkouts[version], arguments, own)
                        of.setdefault((name, version, which), []).append(measured)
                        progress.advance(task)
                    shutil.rmtree(own)
        os.environ["SHEAF_CACHE"] = str(Path(scratch, "cache-fingerprints"))
        names = ("mnist", "cifar10", f"{made}/files", f"{made}/photos")
        data = {Path(name).name: load_dataset(DataSettings(name=name), root).fingerprint for name in names}
    rows: list[dict[str, Any]] = [
        {
            "data": name,
            "version": version,
            "commit": commit(checkouts[version]),
            "start": which,
            **{key: statistics.median(each[key] for each in found) for key in found[0]},
            "all": found,
        }
        for (name, version, which), found in of.items()
    ]
    settings = {"repeats": options.repeats, "jobs": JOBS}
    publish("start", rows, settings, 0, data, ("data", "version", "start", "seconds", "peak", "anonymous"))


if __name__ == "__main__":
    main()
