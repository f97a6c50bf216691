"""--json: standard output contains only JSON lines, and the documents describe every key."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from support import QUICK

from sheaf.cli import main

Sheaf = Callable[..., "subprocess.CompletedProcess[str]"]
SETS = [word for change in QUICK for word in ("--set", change)]
DOCUMENT = Path(__file__).parents[3] / "docs" / "experiments.md"


def events(output: str) -> list[dict[str, object]]:
    return [json.loads(line, parse_constant=pytest.fail) for line in output.splitlines()]


def test_a_run_as_json_lines(sheaf: Sheaf) -> None:
    clock = ("--set", "fleet.devices.mix={laptop = 1}")
    done = sheaf("run", "ecavg-digits", *SETS, *clock, "--out", "r", "--json")
    assert done.returncode == 0, done.stderr
    said = events(done.stdout)
    assert [said[0]["event"], said[-2]["event"], said[-1]["event"]] == ["started", "ended", "finished"]
    assert said[-1]["result"] == "r/result.json"
    assert {one["run"] for one in said} == {"r"}
    began = [one for one in said if one["event"] == "began"]
    answered = [one for one in said if one["event"] == "answered"]
    assert sum(len(one["sites"]) for one in began) == len(answered)
    steps = [one for one in said if one["event"] == "step"]
    assert {one["site"] for one in steps} == {"edge-1", "edge-2", "cloud"}
    ends = [one for one in steps if one["step"] == one["steps"]]
    assert len(ends) == 6, "pretrain and retrain on two edges, fine-tuning and its reference in the cloud"
    measured = [one for one in said if one["event"] == "measured"]
    assert [(one["site"], one["stage"]) for one in measured][:2] == [
        ("edge-1", "before update"),
        ("edge-2", "before update"),
    ]
    assert len(measured) == 9
    timed = [one for one in said if one["event"] == "timed"]
    assert len(timed) == len(began)
    assert timed[-1]["virtual"]
    for spent in ("seconds", "bytes", "joules"):
        assert 0 < timed[0][spent] < timed[-1][spent]
    times = [one["time"] for one in said]
    assert times == sorted(times)
    text = DOCUMENT.read_text(encoding="utf-8")
    for one in said:
        assert f"`{one['event']}`" in text, f"the documents do not name the event {one['event']}"
        for key in one:
            assert re.search(rf"[`.\]]{key}\b", text), f"the documents do not say what {key} is"


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """Runs ``sheaf ARGUMENTS`` in this process, in a folder of the test's own; returns the exit code."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))

    def run(*arguments: str) -> int:
        monkeypatch.setattr(sys, "argv", ["sheaf", *arguments])
        with pytest.raises(SystemExit) as stopped:
            main.main()
        return int(stopped.value.code or 0)

    return run


Here = Callable[..., int]
Capsys = pytest.CaptureFixture[str]


def test_a_comparison_as_json_lines(here: Here, capsys: Capsys) -> None:
    assert here("compare", "ecavg-digits", *SETS, "--methods", "ecavg,local", "--out", "c", "--json") == 0
    said = events(capsys.readouterr().out)
    assert {one["run"] for one in said} == {"c", "c/ecavg-0", "c/local-0"}
    assert said[-1]["event"] == "compared"
    assert [method["method"] for method in said[-1]["methods"]] == ["ecavg", "local"]


def test_a_failed_run_ends_with_its_error_and_a_message_on_stderr(here: Here, capsys: Capsys) -> None:
    assert here("run", "ecavg-digits", *SETS, "--out", "r", "--json", "--set", "method.pretrain.lr=1e30") == 2
    told = capsys.readouterr()
    said = events(told.out)
    assert [one["site"] for one in said if one["event"] == "refused"] == ["edge-1", "edge-2"]
    assert (said[-1]["event"], said[-1]["error"]) == ("ended", "QuorumError")
    assert told.err.startswith("sheaf: ")


def test_quiet_prints_only_the_folder(here: Here, capsys: Capsys, tmp_path: Path) -> None:
    assert here("run", "ecavg-digits", *SETS, "-q") == 0
    told = capsys.readouterr()
    assert told.err == ""
    assert (tmp_path / told.out.rstrip("\n") / "result.json").exists()
    assert here("compare", "ecavg-digits", *SETS, "--methods", "local", "-q", "--out", "c") == 0
    assert capsys.readouterr().out == "c\n"
