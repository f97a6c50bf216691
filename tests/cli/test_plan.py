"""The command ``plan`` with limits of seconds, bytes and joules."""

from __future__ import annotations

import itertools
import shlex
from pathlib import Path

import pytest
from typer.testing import CliRunner

from sheaf.cli.main import app
from sheaf.experiments.config import load_experiment

GIVEN = (
    *("ecavg-digits", "--set", "data.limit=400", "--set", "data.limit_test=60"),
    *("--set", "method=decoupled", "--set", "method.train.epochs=4"),
    *("--set", "fleet.devices.edges={edge-1='raspberry-pi-4+lte', edge-2='laptop'}"),
)


def invoke(*arguments: str) -> str:
    result = CliRunner().invoke(app, ["plan", *GIVEN, *arguments], env={"COLUMNS": "80"})
    assert result.exit_code == 0, result.output
    return result.output


def test_the_printed_command_runs_the_written_plan(tmp_path: Path) -> None:
    """The answer comes first; the table has a row for each device, and fits 80 columns."""
    out = tmp_path / "planned.toml"
    limits = ("--finish-within", "0.26s", "--joules", "1Wh")
    printed = invoke(*limits)
    assert "written: " in invoke(*limits, "--out", str(out))
    lines = printed.splitlines()
    assert lines[0].startswith("The run ends after ")
    assert "(limit 260.0 ms)" in lines[0]
    assert any(line.startswith("edge-1 *") for line in lines)
    assert any(line.startswith("edge-2 ") for line in lines)
    assert all(len(line) <= 80 for line in lines[:-1])
    command = shlex.split(lines[-1])
    assert command[:3] == ["sheaf", "run", "ecavg-digits"]
    changes = [value for option, value in itertools.pairwise(command) if option == "--set"]
    assert load_experiment("ecavg-digits", changes) == load_experiment(out)
    assert any("edge-1=" in change for change in changes[5:])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--finish-within", "soon"), "--finish-within soon: write a duration above 0 such as 90s"),
        (("--data-cap", "50"), "--data-cap 50: write a size above 0 such as 500MB"),
        (("--joules", "0kJ"), "--joules 0kJ: write an energy above 0 such as 500J, 20kJ or 5Wh"),
        (("--data-cap", "1kB"), "--data-cap: edge-1 (raspberry-pi-4+lte) sends and receives at least"),
        (("--finish-within", "1s", "--set", "fleet.devices="), "needs devices with a virtual clock"),
    ],
)
def test_a_mistake_is_one_line(arguments: tuple[str, ...], message: str) -> None:
    result = CliRunner().invoke(app, ["plan", *GIVEN, *arguments])
    assert result.exit_code != 0
    assert message in str(result.exception)
    assert "\n" not in str(result.exception)
