"""The cache of decoded examples on the user's disk: its entries, their keys, their removal.

An entry is a folder ``KEY`` below ``examples`` in the cache, with the arrays as ``.npy`` files and a card,
``card.json``. The key is a hash of the source folder, of the names, sizes and times of its files, of the
settings, and of the versions of the code that decodes. An entry is written under a temporary name, fsynced
and renamed, so it is complete or absent.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import json
import logging
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from sheaf.core.atomic_io import sync, write
from sheaf.core.cache_folder import cache_folder
from sheaf.core.progress_bar import bar
from sheaf.data.readers.folder_layout import is_ignored, printable
from sheaf.data.settings import DataSettings

logger = logging.getLogger("sheaf")

CARD = "card.json"
PARTIAL = ".partial-"
"""Prefix of folders of entries that are being written."""
LOCK = "lock"
"""File in such a folder that its writer locks."""
UNUSED = 86400.0
YOUNG = 60.0
"""Seconds during which such a folder may not be locked yet."""
DECODERS = ("numpy", "pillow", "pillow-heif", "scipy", "soundfile", "torch")
"""Packages whose versions can change decoded examples."""
LATER = ("name", "mean", "std", "held_out", "cache")
"""Settings that are applied after decoding."""


class CacheError(OSError):
    """An entry cannot be written."""


@contextmanager
def cache_errors(path: Path) -> Iterator[None]:
    """Raise CacheError for an OSError in the block, which writes ``path`` or below it."""
    try:
        yield
    except CacheError:
        raise
    except OSError as error:
        raise CacheError(f"{error.filename or path}: {error.strerror or error}") from error


@dataclass(frozen=True)
class Entry:
    """A dataset in the cache.

    Attributes:
        folder: of the entry.
        name: ``data.name`` of the run that filled it.
        source: the folder of the encoded files.
        shapes: of the training and the test inputs.
        size: of all arrays, in bytes.
        used: the time of its last use, in seconds since 1970.
    """

    folder: Path
    name: str
    source: str
    shapes: tuple[tuple[int, ...], tuple[int, ...]]
    size: int
    used: float


def examples_folder() -> Path:
    """Return the folder of the entries; it may not exist."""
    return cache_folder() / "examples"


def entries() -> list[Entry]:
    """Return all entries, the last used first; those that cannot be read are left out."""
    listed = []
    for folder in _subfolders(examples_folder()):
        with suppress(OSError, ValueError, KeyError, TypeError):
            card = read_card(folder)
            train, test = (tuple(card["shapes"][split]) for split in ("train", "test"))
            used = (folder / CARD).stat().st_mtime
            listed.append(Entry(folder, card["name"], card["source"], (train, test), _size(folder), used))
    return sorted(listed, key=lambda entry: -entry.used)


def remove(folder: Path) -> None:
    """Remove an entry. Runs that use it keep their mapping of its files.

    Raises:
        OSError: a file cannot be removed.
    """
    (folder / CARD).unlink(missing_ok=True)  # first, so that the entry is no longer used
    shutil.rmtree(folder)


def remove_all() -> None:
    """Remove all entries, readable or not, and the parts of those that no process is writing.

    Raises:
        OSError: a file cannot be removed.
    """
    _remove_abandoned(examples_folder(), 0.0)
    for folder in _subfolders(examples_folder()):
        remove(folder)


def _subfolders(root: Path) -> list[Path]:
    try:
        return sorted(path for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))
    except OSError:
        return []


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.iterdir())


def key(folder: Path, reader: str, settings: DataSettings) -> str:
    """Return the key of a dataset: hashes of its source and settings, its files' states, and the versions.

    Args:
        folder: of the encoded files.
        reader: describes the function that reads the folder.
        settings: the table ``[data]``.

    Raises:
        OSError: a file cannot be read.
    """
    real = os.path.realpath(folder)
    values = {name: value for name, value in asdict(settings).items() if name not in LATER}
    source = hashlib.sha256(json.dumps([reader, printable(Path(real)), values]).encode())
    files = hashlib.sha256()
    with bar(f"listing {printable(folder)}", None) as advance:
        _add_states(files, real, (), advance)
    if settings.labels is not None and os.path.exists(settings.labels):
        _add_state(files, os.path.realpath(settings.labels), os.stat(settings.labels))
    return "-".join(digest.hexdigest()[:24] for digest in (source, files, _versions()))


def _add_states(files: Any, folder: str, parents: tuple[str, ...], advance: Callable[[int], None]) -> None:
    """Add the names, sizes and times of all files below a folder, links followed, without ignored ones."""
    real = os.path.realpath(folder)
    if real in parents:
        return
    with os.scandir(folder) as found:
        listed = sorted(
            (entry for entry in found if not is_ignored(entry.name)), key=lambda entry: entry.name
        )
    files.update(f"{len(listed)} in ".encode() + os.fsencode(folder))
    for entry in sorted(listed, key=lambda entry: entry.name):
        if entry.is_dir():
            _add_states(files, entry.path, (*parents, real), advance)
        else:
            _add_state(files, entry.name, entry.stat())
    advance(len(listed))


def _add_state(files: Any, name: str, state: os.stat_result) -> None:
    # The time of the last change of the inode differs even if a program sets the time of the content.
    times = f"{state.st_size} {state.st_mtime_ns} {state.st_ctime_ns}"
    files.update(os.fsencode(name) + f"\0{times}\n".encode())


@functools.cache
def _versions() -> Any:
    """Return a hash of the code of this package and the versions of the libraries that it decodes with."""
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.rglob("*.py")):
        digest.update(path.read_bytes())
    for name in DECODERS:
        with suppress(importlib.metadata.PackageNotFoundError):
            digest.update(f"{name} {importlib.metadata.version(name)}\n".encode())
    return digest


def read_card(folder: Path) -> dict[str, Any]:
    """Return the card of an entry.

    Raises:
        OSError: the card cannot be read.
        ValueError: it is no JSON object.
    """
    card = json.loads((folder / CARD).read_text("utf-8"))
    if not isinstance(card, dict):
        raise ValueError(f"{folder / CARD} is no JSON object")
    return card


@contextmanager
def new_entry() -> Iterator[Path]:
    """Yield an empty folder for an entry that is being written; ``keep`` renames it, else it is removed.

    The folder is locked, so that other processes can tell it from one that a killed process left.

    Raises:
        CacheError: the folder cannot be made.
    """
    root = examples_folder()
    with cache_errors(root):
        root.parent.mkdir(parents=True, exist_ok=True)
        root.mkdir(mode=0o700, exist_ok=True)  # copies must not be more readable than the user's files
        _remove_abandoned(root, YOUNG)
        partial = Path(tempfile.mkdtemp(prefix=PARTIAL, dir=root))
    lock = FileLock(partial / LOCK)
    try:
        with suppress(OSError, NotImplementedError):  # some network drives have no locks
            lock.acquire(timeout=0)
        yield partial
    finally:
        lock.release()
        shutil.rmtree(partial, ignore_errors=True)


def keep(partial: Path, card: dict[str, Any], name: str) -> None:
    """Write the card of a complete entry, make all durable and rename it to its key.

    If another process has completed the same entry meanwhile, that one stays. Entries of the same source and
    settings are removed if the files have changed since, or if other versions filled them and they have not
    been used for ``UNUSED`` seconds.

    Raises:
        CacheError: the entry cannot be written.
    """
    entry = partial.parent / name
    with cache_errors(partial):
        for path in partial.glob("*.npy"):
            sync(path)
        write(partial / CARD, json.dumps(card, indent=1).encode())
        (partial / LOCK).unlink(missing_ok=True)
        sync(partial)
        try:
            partial.rename(entry)
        except OSError:
            if not (entry / CARD).exists():
                raise
        sync(entry.parent)
    source, files, _ = name.split("-")
    for other in entry.parent.glob(f"{source}-*"):
        with suppress(OSError):
            same_files = other.name.split("-")[1] == files
            if not same_files or (other != entry and time.time() - (other / CARD).stat().st_mtime > UNUSED):
                remove(other)


def touch(folder: Path) -> None:
    """Note the time of an entry's use, where the disk is writable."""
    with suppress(OSError):
        os.utime(folder / CARD)


def _remove_abandoned(root: Path, age: float) -> None:
    """Remove folders that killed processes left, from an age in seconds on."""
    for partial in root.glob(f"{PARTIAL}*"):
        with suppress(OSError, NotImplementedError, Timeout):
            if time.time() - partial.stat().st_mtime >= age:
                with FileLock(partial / LOCK, timeout=0):
                    shutil.rmtree(partial)
