"""Datasets of the Hub by name: the Hub's client against a local server with its protocol."""

from collections.abc import Callable, Iterator
from pathlib import Path

import huggingface_hub
import huggingface_hub.constants
import pytest
from hub_server import HubServer, Repository, hub_server

from sheaf.core.errors import DataError
from sheaf.data.load import load_dataset
from sheaf.data.readers import hub_repository
from sheaf.data.readers.hub_repository import HubFiles, find_hub_files
from sheaf.data.settings import DataSettings
from sheaf.experiments.run import run

TRAIN, TEST = "data/train-00000-of-00001.parquet", "data/test-00000-of-00001.parquet"


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    monkeypatch.setenv("SHEAF_CACHE", str(tmp_path / "cache"))
    with hub_server(monkeypatch, tmp_path / "hub") as server:
        server.repositories["someone/pets"] = Repository()
        yield server


@pytest.fixture
def pets(server: HubServer) -> Repository:
    """A repository with one commit on its main branch."""
    repository = server.repositories["someone/pets"]
    repository.commit("main", {TRAIN: b"train", TEST: b"test", "loader.py": b"raise SystemExit"})
    return repository


def find(name: str = "hf:someone/pets", config: str | None = None) -> HubFiles:
    return find_hub_files(name, config, None)


def error(name: str = "hf:someone/pets") -> str:
    with pytest.raises(DataError) as raised:
        find(name)
    assert "\n" not in str(raised.value)
    return str(raised.value)


def test_parquet_files_are_downloaded_once(
    pets: Repository, server: HubServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "sheaf")
    found = find()
    assert found.commit == pets.branches["main"]
    assert found.config == "default"
    assert {split: [path.read_bytes() for path in paths] for split, paths in found.splits.items()} == {
        "train": [b"train"],
        "test": [b"test"],
    }
    assert found.splits["train"] == [found.folder / TRAIN]
    assert not any("loader.py" in request for request in server.requests)
    assert (
        f"is read at its commit {found.commit}; data.name = 'hf:someone/pets@{found.commit}'" in caplog.text
    )
    server.requests.clear()
    assert find() == find(f"hf:someone/pets@{found.commit}") == found
    assert not any(TRAIN in request for request in server.requests)


def test_a_name_stays_at_its_commit_and_a_branch_moves(pets: Repository, server: HubServer) -> None:
    first = find()
    second = pets.commit("main", {TRAIN: b"new", TEST: b"test"})
    server.requests.clear()
    assert find() == first
    assert server.requests == []
    assert find("hf:someone/pets@main").commit == second
    assert find(f"hf:someone/pets@{first.commit}").splits == first.splits


def test_without_a_network_the_last_commit_is_read(pets: Repository, monkeypatch: pytest.MonkeyPatch) -> None:
    found, branch = find(), find("hf:someone/pets@main")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    assert find() == found
    assert find("hf:someone/pets@main") == branch
    assert error("hf:someone/cars") == (
        "hf:someone/cars is not in the Hub's cache, and HF_HUB_OFFLINE is set or the Hub cannot be reached; "
        "run once with a network"
    )


def test_a_download_of_another_program_is_read(pets: Repository, monkeypatch: pytest.MonkeyPatch) -> None:
    readme = "---\nconfigs:\n- config_name: mine\n  data_files: data/*\n---\n# Pets\n"
    pets.commit("main", {TRAIN: b"train", TEST: b"test", "README.md": readme.encode()})
    for path in (TRAIN, TEST, "README.md"):
        huggingface_hub.hf_hub_download("someone/pets", path, repo_type="dataset")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    found = find()
    assert found.commit == pets.branches["main"]
    assert found.config == "mine"
    assert found.splits["test"][0].read_bytes() == b"test"


def test_the_conversion_of_the_hub_is_read(server: HubServer) -> None:
    repository = server.repositories["someone/pets"]
    repository.commit("main", {"cat/1.png": b"", "dog/1.png": b""})
    assert error() == (
        "hf:someone/pets is not in the Hub's cache, and it has no parquet files, nor has the Hub converted "
        "it; download it and name its folder"
    )
    commit = repository.commit("refs/convert/parquet", {"default/train/0000.parquet": b"converted"})
    assert find().commit == commit
    assert find("hf:someone/pets@refs/convert/parquet").splits == find().splits
    assert error("hf:someone/pets@main") == (
        "hf:someone/pets has no parquet files at main; leave the revision out to read the Hub's conversion, "
        "or download it and name its folder"
    )


def test_declared_configurations(pets: Repository) -> None:
    pets.configs = [
        {"config_name": "big", "data_files": [{"split": "train", "path": "data/*"}]},
        {"config_name": "small", "data_files": {"train": TEST}, "default": True},
    ]
    assert find().config == "small"
    assert [path.name for path in find(config="big").splits["train"]] == [Path(TEST).name, Path(TRAIN).name]


def test_errors_are_one_line(pets: Repository, server: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "must be hf:OWNER/NAME or hf:OWNER/NAME@REVISION" in error("hf:pets")
    assert "the Hub has no dataset of this name; correct it" in error("hf:someone/cats")
    assert "the Hub has no revision 'v9' of it; correct it" in error("hf:someone/pets@v9")
    server.gated.add("someone/pets")
    assert "it is gated; accept its terms on the Hub and set HF_TOKEN" in error()
    monkeypatch.setattr(hub_repository.shutil, "disk_usage", lambda folder: Usage)
    assert "has 0.0 GB to download, but" in error()


class Usage:
    free = 8


def test_an_interrupted_download_continues(pets: Repository, server: HubServer) -> None:
    content = pets.commits[pets.branches["main"]].pop(TEST)
    pets.commits[pets.branches["main"]][TEST] = b""
    listed = hub_repository._listing("someone/pets", None)
    del pets.commits[listed.commit][TEST]
    assert "is not whole in the Hub's cache, and the request to the Hub failed: " in error()
    pets.commits[listed.commit][TEST] = content
    assert find().splits["test"][0].read_bytes() == content


def test_a_run_records_the_commit(
    server: HubServer, shard: Callable[..., Path], png: Callable[..., bytes], tmp_path: Path
) -> None:
    images = [png(20 * row, (8, 8)) for row in range(10)]
    path = shard(tmp_path / "train.parquet", [0, 1] * 5, ["cat", "dog"], images)
    commit = server.repositories["someone/pets"].commit("main", {"data/train.parquet": path.read_bytes()})
    settings = DataSettings(name="hf:someone/pets", test_share=0.4)
    dataset = load_dataset(settings)
    assert dataset.commit == commit
    assert dataset.classes == ("cat", "dog")
    assert sorted(dataset.test.labels.tolist()) == [0, 0, 1, 1]
    changes = [
        "data.name=hf:someone/pets",
        "data.limit=6",
        "data.limit_test=2",
        'partition={name="iid",edges=1}',
        "data.held_out=0.0",
        "method.pretrain.epochs=1",
        "method.finetune.epochs=1",
        "method.retrain.epochs=1",
    ]
    result = run("ecavg-digits", changes=changes, out=tmp_path / "run")
    assert result.provenance["data_commits"] == {"hf:someone/pets": commit}


def test_settings_of_the_hub_are_errors_for_other_data(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"data.config and data.splits are for datasets hf:OWNER/NAME, not"):
        load_dataset(DataSettings(name=str(tmp_path), config="en"))
