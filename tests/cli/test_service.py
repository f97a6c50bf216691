"""``sheaf cloud serve``: its unit for systemd, and mistakes in its options."""

from __future__ import annotations

import getpass
from pathlib import Path

import pytest
import tomli_w
from typer.testing import CliRunner

from sheaf.cli.main import app
from sheaf.core.errors import SheafError

SERVE = ["cloud", "serve", "fedavg-fleet"]


@pytest.fixture(autouse=True)
def _fleet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("fleet").mkdir()
    Path("fleet/fleet.toml").write_text(tomli_w.dumps({"host": "localhost", "edges": ["shop-1"]}))


def test_the_unit_repeats_the_command(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    command = [*SERVE, "--every", "12h", "--when", "new samples >= 500", "--systemd"]
    monkeypatch.setattr("sys.argv", ["/opt/sheaf/bin/sheaf", *command])
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 0, done.output
    program = "/opt/sheaf/bin/sheaf cloud serve fedavg-fleet --every 12h"
    assert f"\nExecStart={program} --when 'new samples >= 500'\nRestart=always\n" in done.output
    assert f"User={getpass.getuser()}\nWorkingDirectory={tmp_path}\n" in done.output
    assert not (tmp_path / "fleet" / "service").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--every", "soon"], "--every soon: write a duration"),
        (["--max-size", "1"], "--max-size 1: write a size"),
        (["--when", "samples"], "--when 'samples': write 'QUANTITY >= NUMBER'"),
        (["--edges", "berlin/*"], "--edges berlin/*: no device matches; there are: shop-1"),
    ],
)
def test_a_mistake_is_named_before_the_folder_is_made(options: list[str], message: str) -> None:
    done = CliRunner().invoke(app, [*SERVE, *options])
    assert isinstance(done.exception, SheafError)
    assert message in str(done.exception)
    assert "\n" not in str(done.exception)
    assert not Path("fleet/service").exists()
