"""A set that lies on the Hugging Face hub: found on this machine, or downloaded once."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path

from filelock import FileLock

from sheaf.core.errors import DataError, first_line
from sheaf.data.readers.encoded import Encoded
from sheaf.data.readers.parquet import find_shards, read_parquet
from sheaf.data.settings import DataSettings


@dataclass(frozen=True)
class HubSet:
    """Where a set lies on the hub, and what is usual with it. Called, it reads the set.

    Attributes:
        repo: the hub's name of it.
        folder: where its shards lie, under the data folder and in the cache alike. What follows the
            first ``/`` is their folder within the repository.
        mean, std: the constants it is usually normalised by, images scaled to 0..1; unset:
            computed.
        revision: a branch of the repository.
        test: the split that is the test part.
        label: the column of labels.
        without: classes that are left out.
    """

    repo: str
    folder: str
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    revision: str = "main"
    test: str = "test"
    label: str = "label"
    without: tuple[str, ...] = ()

    def __call__(self, settings: DataSettings, root: Path | None) -> Encoded:
        """Looks under ``root``, then in the cache, then on the hub.

        Raises:
            DataError: it is in none of them, or cannot be read.
        """
        encoded = read_parquet(self._find(root), self.test, self.label, self.without)
        return replace(encoded, mean=self.mean, std=self.std)

    def _find(self, root: Path | None) -> Path:
        places = [place / self.folder for place in (root, cache()) if place is not None]
        for place in places:
            if find_shards(place):
                return place
        problem = self._download()
        if problem is None:
            return places[-1]
        looked = " and ".join(str(place) for place in places)
        raise DataError(
            f"{self.repo} is neither in {looked}, nor can it be downloaded ({problem}); "
            f"go online once, or name with --data or SHEAF_DATA the folder that holds {self.folder}"
        )

    def _download(self) -> str | None:
        """Puts the set into the cache, all of it or nothing. Returns what prevented it."""
        # Imported where it is used: it takes a second, and most runs download nothing.
        from huggingface_hub import snapshot_download

        name, _, inside = self.folder.partition("/")
        whole, partial = cache() / name, cache() / f"{name}.partial"
        try:
            whole.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(cache() / f"{name}.lock"):
                if whole.exists():  # another process was quicker
                    return None
                snapshot_download(
                    self.repo,
                    repo_type="dataset",
                    revision=self.revision,
                    allow_patterns=f"{inside}/*.parquet",
                    local_dir=partial,
                )
                if not find_shards(partial / inside):
                    return f"the hub has no {inside}/*.parquet in it"
                partial.rename(whole)
                return None
        except Exception as error:  # the hub's client lets through what several libraries raise
            return first_line(error)


def cache() -> Path:
    """Where downloads are kept: ``sheaf/data`` in ``$XDG_CACHE_HOME``, by default ``~/.cache``."""
    base = os.environ.get("XDG_CACHE_HOME")
    return Path(base or Path.home() / ".cache") / "sheaf" / "data"
