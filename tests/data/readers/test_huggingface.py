"""Data sets of the Hub: read from the data folder or the cache, or downloaded once and whole."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from sheaf.core.errors import DataError
from sheaf.data.readers.huggingface import HubSet, cache
from sheaf.data.settings import DataSettings

SET = HubSet(repo="someone/pets", folder="pets/plain", mean=(0.5,), std=(0.2,))
SETTINGS = DataSettings(name="pets")

Shard = Callable[..., Path]


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHEAF_CACHE", str(tmp_path / "cache"))


def hub(monkeypatch: pytest.MonkeyPatch, download: Callable[[Path], Any]) -> list[dict[str, Any]]:
    calls: list[dict[str, Any]] = []

    def snapshot_download(repo: str, **options: Any) -> None:
        calls.append({"repo": repo, **options})
        download(Path(options["local_dir"]))

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    return calls


def put(shard: Shard, folder: Path) -> None:
    for split in ("train", "test"):
        shard(folder / f"plain/{split}-00000-of-00001.parquet", [0, 1], ["cat", "dog"])


def test_the_data_folder_has_precedence(
    tmp_path: Path, shard: Shard, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(shard, tmp_path / "root/pets")
    calls = hub(monkeypatch, lambda folder: None)
    encoded = SET(SETTINGS, tmp_path / "root")
    assert encoded.classes == ("cat", "dog")
    assert encoded.mean == (0.5,)
    assert calls == []


def test_a_set_is_downloaded_once(tmp_path: Path, shard: Shard, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = hub(monkeypatch, lambda folder: put(shard, folder))
    for _ in range(2):
        assert SET(SETTINGS, None).train.labels.tolist() == [0, 1]
    assert len(calls) == 1
    assert calls[0]["repo"] == "someone/pets"
    assert calls[0]["repo_type"] == "dataset"
    assert calls[0]["allow_patterns"] == "plain/*.parquet"
    assert (cache() / "pets/plain/train-00000-of-00001.parquet").is_file()


def test_the_settings_choose_the_label_column(tmp_path: Path, shard: Shard) -> None:
    for split in ("train", "test"):
        shard(
            tmp_path / f"pets/plain/{split}-00000-of-00001.parquet",
            ["b", "a"],
            label="coarse",
            kind=pa.string(),
        )
    settings = DataSettings(name="pets", label="coarse", input="picture")
    assert SET(settings, tmp_path).classes == ("a", "b")


def test_an_interrupted_download_can_be_repeated(shard: Shard, monkeypatch: pytest.MonkeyPatch) -> None:
    def half(folder: Path) -> None:
        shard(folder / "plain/train-00000-of-00001.parquet", [0, 1])
        raise TimeoutError("the line is dead\nand more")

    hub(monkeypatch, half)
    with pytest.raises(DataError, match=r"its download failed: the line is dead;"):
        SET(SETTINGS, None)
    hub(monkeypatch, lambda folder: put(shard, folder))
    assert SET(SETTINGS, None).test.labels.tolist() == [0, 1]


def test_a_repository_without_shards_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    hub(monkeypatch, lambda folder: folder.mkdir())
    with pytest.raises(DataError, match=r"the repository has no plain/\*\.parquet"):
        SET(SETTINGS, None)
