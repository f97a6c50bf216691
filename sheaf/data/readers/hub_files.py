"""Parquet files of a repository of the Hugging Face Hub: which belong to which configuration and split.

A repository declares its configurations in the YAML at the top of ``README.md``, or its paths show them, as
in ``CONFIG/train-00000-of-00002.parquet`` and ``CONFIG/train/0000.parquet``. The folder ``data`` and the root
are the configuration ``default``.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Collection, Iterator, Sequence
from pathlib import PurePosixPath
from typing import Any

from sheaf.core.errors import DataError
from sheaf.data.readers.encoded import abbreviate
from sheaf.data.readers.folder_layout import SPLIT_OF, is_ignored
from sheaf.data.readers.parquet_files import SPLIT_PREFIX

DEFAULT = "default"
NUMBERED = re.compile(r"(.+)-[0-9]+-of-[0-9]+(-[0-9a-f]+)?")
"""Matches the name of a shard without its suffix; the first group is the split."""

Splits = dict[str, list[str]]
"""Split -> its files."""


def is_parquet(path: str) -> bool:
    """Return whether a path of a repository is a parquet file that is not hidden."""
    return path.lower().endswith(".parquet") and not any(map(is_ignored, PurePosixPath(path).parts))


def choose_config(
    repo: str, files: Collection[str], entries: Sequence[Any], config: str | None
) -> tuple[str, Splits]:
    """Return the name and the splits of a configuration.

    Args:
        repo: the name of the repository, for messages.
        files: its parquet files.
        entries: the configurations that it declares, as in its ``README.md``.
        config: the configuration to choose. Unset: the default one, or the only one.

    Raises:
        DataError: it does not exist, or there are several and none is the default.
    """
    entries = [one for one in entries if isinstance(one, dict) and isinstance(one.get("config_name"), str)]
    configs = dict(_declared(entries, files)) or _by_path(files)
    if config is None:
        defaults = [one["config_name"] for one in entries if one.get("default") is True]
        names = [name for name in (*defaults, DEFAULT) if name in configs] or list(configs)
        if len({*names}) > 1 and not defaults:
            raise DataError(
                f"hf:{repo} has several configurations; choose one with data.config: "
                f"{abbreviate(sorted(configs), 20)}"
            )
        config = names[0]
    if config not in configs:
        raise DataError(
            f"hf:{repo} has no configuration {config!r} in parquet files; choose one of these with "
            f"data.config: {abbreviate(sorted(configs), 20)}"
        )
    return config, configs[config]


def choose_splits(repo: str, splits: Splits, chosen: tuple[str, str] | None) -> Splits:
    """Return the files of the splits that are read: ``train`` and, if there are any, of test splits.

    Args:
        repo: the name of the repository, for messages.
        splits: all splits.
        chosen: the splits that serve as training and test split. Unset: those of common names.

    Raises:
        DataError: there is no such split, or the Hub has converted only a part of it.
    """
    if chosen is not None:
        for name in chosen:
            if name not in splits:
                raise DataError(
                    f"hf:{repo} has no split {name!r}; set data.splits to two of these: "
                    f"{abbreviate(sorted(splits), 20)}"
                )
        if chosen[0] == chosen[1]:
            raise DataError(f"data.splits names {chosen[0]!r} twice; training and test split must differ")
        return {"train": splits[chosen[0]], "test": splits[chosen[1]]}
    known: Splits = {}
    for name, files in splits.items():
        if (split := SPLIT_OF.get(name.lower())) is not None:
            if split in known:
                raise DataError(
                    f"hf:{repo} has several splits for {split}; choose with data.splits = [train, test] "
                    f"from these: {abbreviate(sorted(splits), 20)}"
                )
            known[split] = files
    if "train" not in known and len(splits) == 1:
        known = {"train": next(iter(splits.values()))}
    if "train" not in known:
        if partial := [name for name in splits if name.startswith("partial-")]:
            raise DataError(
                f"hf:{repo} is no set of parquet files, and the Hub has converted only a part of it "
                f"({abbreviate(partial)}); download it and name its folder"
            )
        raise DataError(
            f"hf:{repo} has no train split; choose with data.splits = [train, test] from these: "
            f"{abbreviate(sorted(splits), 20)}"
        )
    return known


def _declared(entries: Sequence[dict[str, Any]], files: Collection[str]) -> Iterator[tuple[str, Splits]]:
    """Yield (name, splits) of the declared configurations that have parquet files."""
    for entry in entries:
        folder = entry.get("data_dir")
        data_files = entry.get("data_files", "**" if isinstance(folder, str) else None)
        if isinstance(data_files, dict):
            data_files = [{"split": split, "path": path} for split, path in data_files.items()]
        splits: Splits = {}
        for one in data_files if isinstance(data_files, list) else [data_files]:
            split, paths = (one.get("split"), one.get("path")) if isinstance(one, dict) else (None, one)
            paths = paths if isinstance(paths, list) else [paths]
            patterns = [path for path in paths if isinstance(path, str)]
            if isinstance(folder, str):
                patterns = [f"{folder.strip('/')}/{pattern}" for pattern in patterns]
            matched = [file for file in files if any(_matches(file, pattern) for pattern in patterns)]
            if isinstance(split, str):
                splits.setdefault(split, []).extend(matched)
            else:
                for config in _by_path(matched).values():
                    for name, own in config.items():
                        splits.setdefault(name, []).extend(own)
        if splits := {split: sorted({*own}) for split, own in splits.items() if own}:
            yield entry["config_name"], splits


def _matches(file: str, pattern: str) -> bool:
    pattern = pattern.removeprefix("./")
    return fnmatch.fnmatchcase(file, pattern) or fnmatch.fnmatchcase(file, pattern.replace("**/", ""))


def _by_path(files: Collection[str]) -> dict[str, Splits]:
    """Return the configurations that the paths show; files without a split are of ``train``."""
    configs: dict[str, Splits] = {}
    for file in sorted(files):
        path = PurePosixPath(file)
        if (match := NUMBERED.fullmatch(path.stem)) or (match := SPLIT_PREFIX.match(path.stem)):
            split, folder = match[1], path.parent
        elif path.parent.name.lower() in SPLIT_OF or (path.stem.isdecimal() and path.parent.name):
            split, folder = path.parent.name, path.parent.parent
        else:
            split, folder = "train", path.parent
        parts = folder.parts[1:] if folder.parts[:1] == ("data",) else folder.parts
        configs.setdefault("/".join(parts) or DEFAULT, {}).setdefault(split, []).append(file)
    return configs
