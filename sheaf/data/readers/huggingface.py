"""Reading of a dataset of the Hugging Face Hub, from a folder, the cache, or by download."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from filelock import FileLock

from sheaf.core.cache_folder import cache_folder
from sheaf.core.errors import DataError, first_line
from sheaf.core.optional_imports import needs
from sheaf.data.readers.encoded import Encoded
from sheaf.data.readers.parquet_files import find_shards
from sheaf.data.settings import DataSettings


@dataclass(frozen=True)
class HubSet:
    """A dataset of the Hub. Calling it reads the dataset.

    Attributes:
        repo: the name of the repository.
        folder: of the shards, below the data folder and below the cache. The path after the first ``/`` is
            their folder in the repository.
        mean: the published mean of each channel, with images scaled to 0..1. Unset: computed.
        std: the published standard deviation, likewise.
        revision: the branch of the repository.
        test: the split that serves as the test split.
        label: the column of labels, unless the settings choose another one.
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
        """Read the dataset from ``root``, else from the cache, else download it into the cache.

        Raises:
            DataError: it is in none of them, or cannot be read.
        """
        return self.read(self.find(root), settings)

    def read(self, folder: Path, settings: DataSettings) -> Encoded:
        """Read the dataset from the folder of its shards.

        Raises:
            DataError: it cannot be read.
        """
        with needs("parquet"):
            from sheaf.data.readers.parquet import read_parquet
        encoded = read_parquet(folder, self.test, settings.label or self.label, settings.input, self.without)
        return replace(encoded, mean=self.mean, std=self.std)

    def find(self, root: Path | None) -> Path:
        """Return the folder of the shards; download them if they are on this machine nowhere.

        Raises:
            DataError: they cannot be downloaded.
        """
        candidates = [place / self.folder for place in (root, cache()) if place is not None]
        for candidate in candidates:
            if find_shards(candidate):
                return candidate
        problem = self._download()
        if problem is None:
            return candidates[-1]
        searched = " nor in ".join(map(str, candidates))
        raise DataError(
            f"{self.repo} is not in {searched}, and its download failed: {problem}; "
            f"run once with a network, or point --data or SHEAF_DATA to a folder that contains {self.folder}"
        )

    def _download(self) -> str | None:
        """Download the dataset into the cache, whole or not at all. Returns the problem, if any."""
        # Imported here because it takes a second and most runs download nothing.
        with needs("workstation"):
            from huggingface_hub import snapshot_download

        name, _, inside = self.folder.partition("/")
        whole, partial = cache() / name, cache() / f"{name}.partial"
        try:
            whole.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(cache() / f"{name}.lock"):
                if whole.exists():  # another process has downloaded it meanwhile
                    return None
                snapshot_download(
                    self.repo,
                    repo_type="dataset",
                    revision=self.revision,
                    allow_patterns=f"{inside}/*.parquet",
                    local_dir=partial,
                )
                if not find_shards(partial / inside):
                    return f"the repository has no {inside}/*.parquet"
                partial.rename(whole)
                return None
        except Exception as error:  # the Hub's client raises the errors of several libraries
            return first_line(error)


def cache() -> Path:
    """Return the folder of downloads."""
    return cache_folder() / "data"
