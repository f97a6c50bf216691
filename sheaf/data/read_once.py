"""Decode a dataset once: later reads, of any process, map the decoded examples from the cache."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from contextlib import closing, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sheaf.core.dataset import Dataset, Samples, Sound
from sheaf.core.notes import hold_notes, log_notes
from sheaf.data import example_cache
from sheaf.data.array_store import ArrayStore, FileStore, MemoryStore, map_array
from sheaf.data.example_cache import CacheError, cache_errors
from sheaf.data.readers.folder_layout import printable
from sheaf.data.settings import DataSettings

logger = logging.getLogger("sheaf")

SPLITS = ("train", "test")

Read = Callable[[ArrayStore], Dataset]


def read_once(settings: DataSettings, folder: Path, reader: str, read: Read) -> Dataset:
    """Return the dataset in ``folder`` from the cache; read it and fill the cache if it is not there.

    Where the cache cannot be written, a note says so and the examples are in memory. The notes of ``read``
    are logged in both cases.

    Args:
        settings: the table ``[data]``. With ``cache = false`` the cache is neither read nor filled.
        folder: of the encoded files.
        reader: describes ``read``; another description is another entry.
        read: reads and decodes the dataset into a store.
    """
    if not settings.cache:
        return read(MemoryStore(", or data.cache = true"))
    try:
        name = example_cache.key(folder, reader, settings)
        entry = example_cache.examples_folder() / name
    except OSError:  # a file that cannot be read: reading reports it
        return read(MemoryStore())
    dataset, notes = _open(entry, settings) or _fill(settings, folder, reader, name, read)
    log_notes(notes)
    return dataset


def _fill(
    settings: DataSettings, folder: Path, reader: str, name: str, read: Read
) -> tuple[Dataset, list[str]]:
    """Return the dataset, read into a new entry or, if that cannot be written, into memory; and its notes."""
    problem = None
    with hold_notes() as notes:
        try:
            with example_cache.new_entry() as partial, closing(FileStore(partial)) as store:
                dataset = read(store)
                if example_cache.key(folder, reader, settings) == name:
                    _write_labels(partial, dataset)
                    example_cache.keep(partial, _card(folder, dataset, notes), name)
                else:
                    problem = f"{folder} changed while it was read"
        except CacheError as error:
            problem = str(error)
            notes.clear()
            dataset = read(MemoryStore(f", or SHEAF_CACHE to a folder on another disk: {error}"))
    if problem:
        logger.info(
            "%s: the decoded examples are not cached: %s; set SHEAF_CACHE to a folder on a writable disk, or "
            "data.cache = false",
            dataset.name,
            problem,
        )
    return dataset, notes


def _open(entry: Path, settings: DataSettings) -> tuple[Dataset, list[str]] | None:
    """Return the dataset in an entry, and its notes; None if the entry is absent or damaged."""
    if not entry.exists():
        return None
    try:
        card = example_cache.read_card(entry)
        splits = {}
        for split in SPLITS:
            inputs = map_array(entry / f"{split}.inputs.npy")
            labels = torch.from_numpy(np.load(entry / f"{split}.labels.npy", allow_pickle=False))
            if [str(inputs.dtype), list(inputs.shape), str(labels.dtype), list(labels.shape)] != [
                card["dtype"],
                card["shapes"][split],
                "torch.int64",
                card["shapes"][split][:1],
            ]:
                raise ValueError(f"the arrays of the {split} split are not those of the card")
            splits[split] = Samples.of(inputs, labels)
        dataset = Dataset(
            name=settings.name,
            train=splits["train"],
            test=splits["test"],
            classes=tuple(card["classes"]),
            mean=tuple(card["mean"]),
            std=tuple(card["std"]),
            fingerprint=card["fingerprint"],
            sound=card["sound"] and Sound(**card["sound"]),
            bits=card["bits"],
        )
        notes = [str(note) for note in card["notes"]]
    except (OSError, ValueError, KeyError, TypeError, EOFError) as error:
        logger.info("%s: %s cannot be used and is made again: %s", settings.name, entry, error)
        with suppress(OSError):
            example_cache.remove(entry)
        return None
    example_cache.touch(entry)
    return dataset, notes


def _write_labels(folder: Path, dataset: Dataset) -> None:
    for split, samples in zip(SPLITS, (dataset.train, dataset.test), strict=True):
        with cache_errors(folder):
            np.save(folder / f"{split}.labels.npy", samples.targets.numpy())


def _card(folder: Path, dataset: Dataset, notes: list[str]) -> dict[str, Any]:
    return {
        "name": dataset.name,
        "source": printable(Path(os.path.realpath(folder))),
        "dtype": str(dataset.train.inputs.dtype),
        "shapes": {"train": list(dataset.train.inputs.shape), "test": list(dataset.test.inputs.shape)},
        "classes": dataset.classes,
        "mean": dataset.mean,
        "std": dataset.std,
        "fingerprint": dataset.fingerprint,
        "sound": dataset.sound and asdict(dataset.sound),
        "bits": dataset.bits,
        "notes": notes,
    }
