"""``sheaf runs`` lists runs with verdicts; ``sheaf show`` prints the newest or a comparison; ``--seed``."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest
from support import QUICK
from typer.testing import CliRunner

import sheaf
from sheaf.cli import main
from sheaf.core.errors import RunFolderError

SETS = [word for change in QUICK for word in ("--set", change)]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ``runs/``: a run, a comparison that is newer, an unfinished run and a stray file."""
    folder = tmp_path_factory.mktemp("place")
    runs = folder / "runs"
    first = sheaf.run("ecavg-digits", changes=QUICK, out=runs / "first", seed=7)
    sheaf.compare("ecavg-digits", ["local"], changes=QUICK, out=runs / "compared")
    (runs / "open").mkdir()
    (runs / "open" / "experiment.toml").write_bytes((first.folder / "experiment.toml").read_bytes())
    (runs / "broken").mkdir()
    (runs / "broken" / "result.json").write_text("{")
    (runs / "notes.txt").touch()
    for age, name in enumerate(("open/experiment.toml", "compared/compare.json", "first/result.json")):
        os.utime(runs / name, (1_000_000 - age, 1_000_000 - age))
    os.utime(runs / "broken" / "result.json", (1, 1))
    return folder


def invoke(*arguments: str) -> str:
    result = CliRunner().invoke(main.app, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return " ".join(result.output.split())


def test_runs_lists_the_newest_first_with_verdicts(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)
    text = invoke("runs")
    order = [text.index(f"runs/{name}") for name in ("open", "compared", "first", "broken")]
    assert order == sorted(order)
    assert "ecavg on digits with mlp, seed 7" in text
    assert re.search(r"runs/first .*(better|no difference): [+−±]", text)
    assert "comparison of local" in text
    assert "unfinished; continue with: sheaf run --resume" in text
    assert "damaged" in text
    assert "notes.txt" not in text
    assert invoke("runs", "elsewhere") == "elsewhere holds no run; start one with: sheaf run"


def test_show_prints_the_newest_and_comparisons(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)
    assert invoke("show").endswith("folder: runs/compared")
    assert invoke("show", "runs/compared") == invoke("show")
    assert "local" in invoke("show")
    assert invoke("show", "runs/first").endswith("folder: runs/first")
    (place / "empty").mkdir(exist_ok=True)
    monkeypatch.chdir(place / "empty")
    with pytest.raises(RunFolderError, match="holds no finished run"):
        invoke("show")


def test_the_seed_as_an_option(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    invoke("run", "ecavg-digits", *SETS, "--set", "method=local", "--seed", "5", "--quiet")
    (folder,) = (tmp_path / "runs").iterdir()
    assert re.fullmatch(r"local-digits-mlp-\d{8}-\d{6}", folder.name)
    assert json.loads((folder / "result.json").read_text())["provenance"]["seed"] == 5
    refused = CliRunner().invoke(main.app, ["run", "--resume", str(folder), "--seed", "5"])
    assert "remove --seed" in str(refused.exception)


def test_version_help_and_completion(monkeypatch: pytest.MonkeyPatch) -> None:
    assert invoke("--version") == f"sheaf {sheaf.__version__}"
    assert invoke("run", "-h") == invoke("run", "--help")
    monkeypatch.setenv("_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION", "1")  # make runs the tests in sh
    assert "COMPREPLY" in invoke("--show-completion", "bash")
    words = {"_MAIN_COMPLETE": "complete_bash", "COMP_WORDS": "main run ecavg-d", "COMP_CWORD": "2"}
    completed = CliRunner().invoke(main.app, env=words, prog_name="main")
    assert completed.output.split() == ["ecavg-digits"]
