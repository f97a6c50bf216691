"""--json: standard output carries JSON lines and nothing else, and the documents name every key."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from support import QUICK

Sheaf = Callable[..., "subprocess.CompletedProcess[str]"]
SETS = [word for change in QUICK for word in ("--set", change)]
DOCUMENT = Path(__file__).parents[2] / "docs" / "experiments.md"


def events(output: str) -> list[dict[str, object]]:
    return [json.loads(line, parse_constant=pytest.fail) for line in output.splitlines()]


def test_a_run_as_json_lines(sheaf: Sheaf) -> None:
    done = sheaf("run", *SETS, "--out", "r", "--json")
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
    times = [one["time"] for one in said]
    assert times == sorted(times)
    text = DOCUMENT.read_text(encoding="utf-8")
    for one in said:
        assert f"`{one['event']}`" in text, f"the documents do not name the event {one['event']}"
        for key in one:
            assert re.search(rf"[`.\]]{key}\b", text), f"the documents do not say what {key} is"


def test_a_comparison_as_json_lines(sheaf: Sheaf) -> None:
    done = sheaf("compare", *SETS, "--methods", "ecavg,local", "--out", "c", "--json")
    assert done.returncode == 0, done.stderr
    said = events(done.stdout)
    assert {one["run"] for one in said} == {"c", "c/ecavg-0", "c/local-0"}
    assert said[-1]["event"] == "compared"
    assert [method["method"] for method in said[-1]["methods"]] == ["ecavg", "local"]


def test_a_run_that_fails_says_so_and_the_mistake_is_on_stderr(sheaf: Sheaf) -> None:
    done = sheaf("run", *SETS, "--out", "r", "--json", "--set", "method.pretrain.lr=1e30")
    assert done.returncode == 2
    said = events(done.stdout)
    assert [one["site"] for one in said if one["event"] == "refused"] == ["edge-1", "edge-2"]
    assert (said[-1]["event"], said[-1]["error"]) == ("ended", "QuorumError")
    assert done.stderr.startswith("sheaf: ")


def test_quiet_prints_the_folder_alone(sheaf: Sheaf, tmp_path: Path) -> None:
    done = sheaf("run", *SETS, "-q")
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert (tmp_path / done.stdout.rstrip("\n") / "result.json").exists()
    assert sheaf("compare", *SETS, "--methods", "local", "-q", "--out", "c").stdout == "c\n"
