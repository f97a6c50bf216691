"""Experiments whose edges stand for devices: memory, changed files, and the profile of this machine."""

from __future__ import annotations

from pathlib import Path

import pytest
from support import QUICK, one_line
from typer.testing import CliRunner

from sheaf.cli.main import app
from sheaf.core.errors import RunFolderError, SettingError
from sheaf.experiments import run as runs
from sheaf.experiments.config import load_experiment
from sheaf.profiles.profile import find_profile

OWN = "title = 'own'\n[device]\nmacs_per_second = {{ float32 = {speed} }}\nmemory = {memory}\n"


def own(folder: Path, speed: float = 1e9, memory: float = 1e9) -> list[str]:
    """Write a profile, and return the changes that use it for one of the edges."""
    (folder / "own.toml").write_text(OWN.format(speed=speed, memory=memory))
    devices = [f"fleet.devices.edges={{edge-1='{folder}/own.toml'}}", "fleet.devices.mix={laptop=1}"]
    return [*QUICK, *devices]


def test_a_device_with_too_little_memory_is_refused_before_training(tmp_path: Path) -> None:
    experiment = load_experiment("ecavg-digits", own(tmp_path, memory=1000))
    with pytest.raises(SettingError) as error:
        runs.run(experiment, out=tmp_path / "run")
    message = one_line(error)
    assert message.startswith("edge-1: training needs ")
    assert "has 1,000; give it a smaller sub-model" in message
    assert not (tmp_path / "run").exists()


def test_the_memory_of_a_method_that_shares_few_images_is_checked(tmp_path: Path) -> None:
    changes = [*own(tmp_path, memory=1000), "method.share={fraction=0.02}"]
    with pytest.raises(SettingError, match="edge-1: training needs"):
        runs.run(load_experiment("ecavg-digits", changes), out=tmp_path / "run")


def test_a_run_does_not_resume_with_another_profile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    experiment = load_experiment("ecavg-digits", own(tmp_path))
    with monkeypatch.context() as patch:
        patch.setattr("sheaf.experiments.run_folder.save_models", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            runs.run(experiment, out=tmp_path / "run")
    own(tmp_path, speed=2e9)
    with pytest.raises(RunFolderError, match="started with another profile"):
        runs.resume(tmp_path / "run")
    own(tmp_path)
    assert runs.resume(tmp_path / "run").time is not None


def test_the_profile_of_this_machine_is_one_that_a_fleet_can_use(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sheaf.experiments.measure_profile.SECONDS", 0.2)
    out = tmp_path / "mine.toml"
    arguments = ["profile", "ecavg-digits", "--set", "data.limit=200", "--watts-idle", "3", "--out", str(out)]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    profile = find_profile(f"{out}+lte")
    assert 1e5 < profile.device.speed("float32") < 1e14
    assert profile.device.memory > 1e8
    assert profile.device.watts_idle == 3
    assert profile.device.watts_busy is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["fleet.stop_at.seconds=5"], "fleet.stop_at.seconds needs a virtual clock: set fleet.devices"),
        (["fleet.devices.jitter=2"], "fleet.devices.jitter = 2"),
        (["fleet.devices.cloud=none-such"], "fleet.devices gives edge-1 no profile"),
    ],
)
def test_a_mistake_is_one_line_before_training(changes: list[str], message: str, tmp_path: Path) -> None:
    with pytest.raises(SettingError) as error:
        runs.run(load_experiment("ecavg-digits", [*QUICK, *changes]), out=tmp_path / "run")
    assert message in one_line(error)
    assert not (tmp_path / "run").exists()
