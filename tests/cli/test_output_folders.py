"""A place that cannot be written gives a one-line message, from every command that writes."""

from __future__ import annotations

import errno
import sys
from pathlib import Path

import pytest

from sheaf.cli import main

BELOW_A_FILE = {
    "run": ["run", "ecavg-digits", "--out", "file/run"],
    "run, quiet": ["run", "ecavg-digits", "--quiet", "--out", "file/run"],
    "compare": ["compare", "ecavg-digits", "--methods", "local", "--out", "file/runs"],
    "plan": [
        *("plan", "ecavg-digits", "--out", "file/planned.toml"),
        *("--set", "method=decoupled", "--set", "fleet.budgets.edge-1.macs=5000"),
    ],
    "cloud init": ["cloud", "init", "file/fleet", "--host", "localhost", "--edges", "a"],
    "resume": ["run", "--resume", "file/run"],
    "show": ["show", "file/run"],
    "report": ["report", "file/run"],
    "export": ["export", "file/run"],
    "predict": ["predict", "file/model.onnx", "x.png"],
    "cloud add": ["cloud", "add", "b", "--fleet", "file/fleet"],
    "edge join": ["edge", "join", "file/a.kit", "--data", "."],
}


def run(arguments: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> str:
    """Return the message of a command that ends with exit code 2 and one line."""
    monkeypatch.setattr(sys, "argv", ["sheaf", *arguments])
    monkeypatch.setattr(sys, "path", list(sys.path))
    with pytest.raises(SystemExit) as stopped:
        main.main()
    error = capsys.readouterr().err
    assert stopped.value.code == 2, error
    assert error.startswith("sheaf: ")
    assert error.count("\n") == 1, error
    return error


@pytest.mark.parametrize("arguments", BELOW_A_FILE.values(), ids=BELOW_A_FILE)
def test_a_place_below_a_file(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    error = run(arguments, monkeypatch, capsys)
    assert "file" in error
    assert "--resume file" not in error, "there is nothing to continue"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("command", ["run", "compare", "cloud init"])
def test_a_read_only_folder(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """No folder can be made, as on a read-only file system; permissions do not bind an administrator."""

    def refuse(path: Path, *_: object, **__: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system", str(path))

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Path, "mkdir", refuse)
    rest = {"run": ["ecavg-digits"], "compare": ["ecavg-digits", "--methods", "local"]}.get(
        command, ["fleet", "--host", "localhost", "--edges", "a"]
    )
    error = run([*command.split(), *rest], monkeypatch, capsys)
    assert "Read-only file system" in error
