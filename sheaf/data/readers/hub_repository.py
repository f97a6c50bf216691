"""Any dataset of the Hugging Face Hub with parquet files, by its name ``hf:OWNER/NAME@REVISION``.

The files are downloaded with the Hub's client into its own cache. A repository without parquet files is read
from the branch into which the Hub converts datasets. Only parquet files and the declared configurations are
read; nothing of the repository is executed.

A name without a revision is resolved to a commit once. The list of the commit's files is stored in sheaf's
cache, so that later runs read the same commit, without a network. A branch is resolved at each use.
"""

from __future__ import annotations

import json
import logging
import re
import shutil
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import quote

from sheaf.core.atomic_io import write
from sheaf.core.cache_folder import cache_folder
from sheaf.core.errors import DataError, first_line
from sheaf.core.optional_imports import needs
from sheaf.data.readers.hub_files import choose_config, choose_splits, is_parquet

logger = logging.getLogger("sheaf")

PREFIX = "hf:"
NAME = re.compile(r"hf:(?P<repo>[\w.-]+/[\w.-]+)(?:@(?P<revision>[^\s@]+))?")
COMMIT = re.compile(r"[0-9a-f]{40}")
MAIN, CONVERTED = "main", "refs/convert/parquet"
"""The main branch, and the branch into which the Hub converts datasets."""
THREADS = 4  # that download files


@dataclass(frozen=True)
class Listing:
    """The parquet files of a repository at one commit.

    Attributes:
        commit: hash of the commit.
        files: path -> size in bytes, 0 if it is unknown.
        configs: the configurations that the repository declares, as in its ``README.md``.
    """

    commit: str
    files: dict[str, int]
    configs: list[Any]


@dataclass(frozen=True)
class HubFiles:
    """The downloaded files of a dataset.

    Attributes:
        repo: ``OWNER/NAME``.
        commit: hash of their commit.
        config: name of the configuration.
        folder: of the commit's files in the Hub's cache.
        splits: split -> its files.
    """

    repo: str
    commit: str
    config: str
    folder: Path
    splits: dict[str, list[Path]]


def find_hub_files(name: str, config: str | None, splits: tuple[str, str] | None) -> HubFiles:
    """Return the files of the dataset ``name``; download those that are not in the Hub's cache.

    Args:
        name: ``hf:OWNER/NAME`` or ``hf:OWNER/NAME@REVISION``.
        config: the configuration. Unset: the default one, or the only one.
        splits: the training and the test split. Unset: those of common names.

    Raises:
        DataError: the name is malformed, the dataset cannot be found or downloaded, or has no such
            configuration or split.
    """
    match = NAME.fullmatch(name)
    if not match:
        raise DataError(f"data.name = {name!r} must be hf:OWNER/NAME or hf:OWNER/NAME@REVISION")
    repo, revision = match["repo"], match["revision"]
    listing = _listing(repo, revision)
    config, all_splits = choose_config(repo, list(listing.files), listing.configs, config)
    chosen = choose_splits(repo, all_splits, splits)
    wanted = sorted({path for paths in chosen.values() for path in paths})
    local = _download(repo, listing, wanted)
    if revision != listing.commit:
        pinned = f"hf:{repo}@{listing.commit}"
        logger.info("%s is read at its commit %s; data.name = %r sets it", name, listing.commit, pinned)
    folder = local[wanted[0]].parents[len(PurePosixPath(wanted[0]).parts) - 1]
    found = {split: [local[path] for path in paths] for split, paths in chosen.items()}
    return HubFiles(repo, listing.commit, config, folder, found)


def _listing(repo: str, revision: str | None) -> Listing:
    """Return the files of a revision: as stored, from the Hub, or from the Hub's cache.

    Raises:
        DataError: none of these has it, or it contains no parquet file.
    """
    stored = cache_folder() / "hub" / quote(repo, safe="") / f"{quote(revision or MAIN, safe='')}.json"
    if revision is None or COMMIT.fullmatch(revision):
        with suppress(OSError, ValueError, TypeError):
            return Listing(**json.loads(stored.read_text("utf-8")))
    try:
        listing = _ask_hub(repo, revision or MAIN)
        if not listing.files and revision is None:
            listing = _ask_hub(repo, CONVERTED)
    except Exception as error:  # the Hub's client raises the errors of several libraries
        with suppress(OSError, ValueError, TypeError):
            return Listing(**json.loads(stored.read_text("utf-8")))
        for branch in [revision] if revision else [MAIN, CONVERTED]:
            if (found := _in_cache(repo, branch)) is not None:
                return found
        problem = _problem(revision, error)
        raise DataError(f"hf:{repo} is not in the Hub's cache, and {problem}") from error
    if not listing.files:
        raise DataError(
            f"hf:{repo} has no parquet files{f' at {revision}' if revision else ''}; "
            + ("leave the revision out to read the Hub's conversion, or " if revision else "")
            + "download it and name its folder"
        )
    with suppress(OSError):
        stored.parent.mkdir(parents=True, exist_ok=True)
        write(stored, json.dumps(asdict(listing)).encode())
    return listing


def _ask_hub(repo: str, revision: str) -> Listing:
    """Return the files of a revision.

    Raises:
        Exception: an error of the Hub's client.
    """
    with needs("workstation"):
        from huggingface_hub import HfApi  # imported here because it takes a second

    info = HfApi().dataset_info(repo, revision=revision, files_metadata=True)
    files = {one.rfilename: one.size or 0 for one in info.siblings or () if is_parquet(one.rfilename)}
    configs = info.card_data.get("configs") if info.card_data else None
    return Listing(str(info.sha), files, configs if isinstance(configs, list) else [])


def _in_cache(repo: str, revision: str) -> Listing | None:
    """Return the files of a revision that other programs have downloaded into the Hub's cache."""
    with needs("workstation"):
        from huggingface_hub import metadata_load, snapshot_download

    configs: Any = None
    try:
        folder = Path(
            snapshot_download(
                repo, repo_type="dataset", revision=revision, local_files_only=True, allow_patterns="-"
            )
        )
    except Exception:  # the Hub's client raises the errors of several libraries
        return None
    with suppress(OSError, ValueError):
        configs = (metadata_load(folder / "README.md") or {}).get("configs")
    paths = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*.parquet")}
    files = {name: path.stat().st_size for name, path in paths.items() if is_parquet(name) and path.is_file()}
    return Listing(folder.name, files, configs if isinstance(configs, list) else []) if files else None


def _download(repo: str, listing: Listing, paths: list[str]) -> dict[str, Path]:
    """Return path -> file in the Hub's cache, after the download of those that are missing there.

    Raises:
        DataError: the disk is too small, or a download fails.
    """
    with needs("workstation"):
        from huggingface_hub import constants, hf_hub_download, try_to_load_from_cache

    def cached(path: str) -> bool:
        found = try_to_load_from_cache(repo, path, revision=listing.commit, repo_type="dataset")
        return isinstance(found, str)

    def fetch(path: str) -> Path:
        return Path(hf_hub_download(repo, path, repo_type="dataset", revision=listing.commit))

    size = sum(listing.files[path] for path in paths if not cached(path))
    cache = Path(constants.HF_HUB_CACHE)
    existing = next(folder for folder in (cache, *cache.parents) if folder.exists())
    free = shutil.disk_usage(existing).free
    if size > free:
        raise DataError(
            f"hf:{repo} has {size / 1e9:.1f} GB to download, but {cache} has {free / 1e9:.1f} GB free; "
            "set HF_HOME to a folder on a larger disk"
        )
    try:
        with ThreadPoolExecutor(THREADS) as pool:
            return dict(zip(paths, pool.map(fetch, paths), strict=True))
    except Exception as error:  # the Hub's client raises the errors of several libraries
        problem = _problem(listing.commit, error)
        raise DataError(f"hf:{repo} is not whole in the Hub's cache, and {problem}") from error


def _problem(revision: str | None, error: Exception) -> str:
    """Return why a request to the Hub failed, and the remedy."""
    with needs("workstation"):
        from huggingface_hub import errors

    if isinstance(error, errors.GatedRepoError):
        return "it is gated; accept its terms on the Hub and set HF_TOKEN"
    if isinstance(error, errors.RepositoryNotFoundError):
        return "the Hub has no dataset of this name; correct it, or set HF_TOKEN if it is private"
    if isinstance(error, errors.RevisionNotFoundError):
        if revision is None:
            return "it has no parquet files, nor has the Hub converted it; download it and name its folder"
        return f"the Hub has no revision {revision!r} of it; correct it"
    if isinstance(error, errors.OfflineModeIsEnabled | errors.LocalEntryNotFoundError):
        return "HF_HUB_OFFLINE is set or the Hub cannot be reached; run once with a network"
    return f"the request to the Hub failed: {first_line(error)}; run once with a network"
