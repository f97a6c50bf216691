"""The command line of a real fleet: a refused command prints one line and leaves no files."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from made_up_fleet import write_fleet
from typer.testing import CliRunner

from sheaf.cli.cloud import cloud
from sheaf.core.errors import FleetError
from sheaf.experiments.rehearse import free_port
from sheaf.fleets.nvflare import provision

Sheaf = Callable[..., subprocess.CompletedProcess[str]]


def refused(done: subprocess.CompletedProcess[str]) -> str:
    """Return the message of a refused command."""
    assert done.returncode == 2, done.stdout + done.stderr
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith("sheaf: ")
    return done.stderr


@pytest.fixture
def fleet(tmp_path: Path) -> Path:
    provision.init(tmp_path / "fleet", "localhost", free_port(), ["shop-1"])
    return tmp_path / "fleet"


def test_a_kit_that_other_users_can_read_is_refused(sheaf: Sheaf, fleet: Path, tmp_path: Path) -> None:
    kit = tmp_path / "shop-1.kit"
    shutil.copy(fleet / "kits" / "shop-1.kit", kit)
    kit.chmod(0o644)
    said = refused(sheaf("edge", "join", kit, "--data", tmp_path))
    assert "others can read it (mode 0644): chmod 600" in said
    assert not (tmp_path / "shop-1.state").exists()


def test_a_stopped_cloud_is_reported(sheaf: Sheaf, fleet: Path, tmp_path: Path) -> None:
    said = refused(sheaf("cloud", "run", "--out", tmp_path / "run"))
    assert f"start it with: sheaf cloud start {fleet.name}" in said
    assert not (tmp_path / "run").exists()


def test_a_folder_without_a_fleet_is_refused(sheaf: Sheaf, tmp_path: Path) -> None:
    for command in ("run", "status", "start"):
        assert "fleet holds no fleet; make one with: sheaf cloud init" in refused(sheaf("cloud", command))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (["--fleet", "nothing"], "nothing holds no fleet; make one with: sheaf cloud init nothing"),
        (["--host", "192.0.2.1"], "the page cannot listen at 192.0.2.1:8003 ("),
        (["--host", "no such host"], "the page cannot listen at no such host:8003 ("),
    ],
)
def test_a_page_that_cannot_be_served_is_refused(
    options: list[str], problem: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    write_fleet(tmp_path / "fleet", ["shop-1"])
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(cloud, ["page", *options])
    assert isinstance(done.exception, FleetError)
    assert problem in str(done.exception)


def test_a_run_of_one_process_cannot_be_resumed_on_a_fleet(sheaf: Sheaf, tmp_path: Path) -> None:
    epochs = ("pretrain", "finetune", "retrain")
    sets = [part for step in epochs for part in ("--set", f"method.{step}.epochs=1")]
    assert sheaf("run", *sets, "--out", tmp_path / "run").returncode == 0
    assert "holds no run on a fleet" in refused(sheaf("cloud", "run", "--resume", tmp_path / "run"))


def test_the_pool_of_a_run_without_samples(sheaf: Sheaf, tmp_path: Path) -> None:
    assert sheaf("cloud", "pool", "ls", tmp_path).returncode == 0
    said = refused(sheaf("cloud", "pool", "rm", tmp_path, "--edge", "shop-1"))
    assert "holds no samples of 'shop-1'" in said
