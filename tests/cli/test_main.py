"""The command line's output; a one-line message and exit code 2 for every mistake."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
import pytest
import typer
from filelock import FileLock
from support import QUICK

from sheaf.cli import main
from sheaf.experiments import compare as comparing
from sheaf.experiments.config import Experiment
from sheaf.runtime.result import Result

Sheaf = Callable[..., "subprocess.CompletedProcess[str]"]
SETS = [word for change in QUICK for word in ("--set", change)]


def test_run_prints_the_tables_and_the_folder(sheaf: Sheaf, installed_sheaf: Sheaf, tmp_path: Path) -> None:
    done = installed_sheaf("run", "ecavg-digits", *SETS, "--out", "r")
    assert done.returncode == 0, done.stderr
    for shown in ("before update", "averaged weights", "after retraining", "peak memory", "folder: r"):
        assert shown in done.stdout
    again = sheaf("show", "r")
    assert again.stdout in done.stdout
    assert json.loads((tmp_path / "r" / "result.json").read_text())["method"] == "ecavg"
    assert all(len(line) <= 100 for line in done.stdout.splitlines())


def test_dry_run_writes_nothing(sheaf: Sheaf, tmp_path: Path) -> None:
    done = sheaf("run", "ecavg-digits", "--dry-run")
    assert done.returncode == 0, done.stderr
    for shown in ("[method.pretrain]", "epochs = 20", "edge-2", "in training"):
        assert shown in done.stdout
    assert list(tmp_path.iterdir()) == []


def test_compare_prints_a_table_and_reuses_finished_runs(sheaf: Sheaf, tmp_path: Path) -> None:
    arguments = ("compare", "ecavg-digits", *SETS, "--methods", "ecavg,local", "--seeds", "2", "--out", "c")
    done = sheaf(*arguments)
    assert done.returncode == 0, done.stderr
    assert "±: standard deviation over the 2 seeds" in done.stdout
    assert re.search(r"run 1 of 4: ecavg, seed 0\nrun 2 of 4, about .+ left: local, seed 0\n", done.stdout)
    title = "under one training budget: that of the experiment with method.pretrain.epochs=6, method."
    assert title in " ".join(done.stdout.split())
    assert re.search(r"^ecavg \(changed\)", done.stdout, re.M)
    assert re.search(r"^local +0", done.stdout, re.M)
    first = (tmp_path / "c" / "ecavg-1" / "result.json").stat().st_mtime_ns
    again = sheaf(*arguments)
    assert again.returncode == 0, again.stderr
    assert (tmp_path / "c" / "ecavg-1" / "result.json").stat().st_mtime_ns == first
    summaries = json.loads((tmp_path / "c" / "compare.json").read_text())
    assert [(s["method"], s["seeds"]) for s in summaries] == [("ecavg", 2), ("local", 2)]
    other = sheaf(*arguments, "--set", "method.rounds=2")
    assert other.returncode == 2
    assert "other settings" in other.stderr


def test_a_stopped_comparison_prints_the_command_that_continues_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = comparing.run_or_resume

    def stopped(experiment: Experiment, folder: Path, *arguments: Any) -> Result:
        if folder.name == "local-0":
            raise KeyboardInterrupt
        return run(experiment, folder, *arguments)

    def call(*arguments: str) -> int:
        monkeypatch.setattr(sys, "argv", ["sheaf", *arguments])
        try:
            main.main()
        except SystemExit as exited:
            return int(exited.code or 0)
        return 0

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(comparing, "run_or_resume", stopped)
    assert call("compare", "ecavg-digits", *SETS, "--methods", "ecavg,local", "-q") == 130
    hint = capsys.readouterr().err.strip()
    assert hint.startswith(
        "stopped after 1 finished runs; continue with: sheaf compare ecavg-digits --methods"
    )
    monkeypatch.setattr(comparing, "run_or_resume", run)
    program, *arguments = shlex.split(hint.partition("with: ")[2])
    assert (program, call(*arguments)) == ("sheaf", 0)
    assert "run 2 of 2: local" in capsys.readouterr().out


def test_list_prints_one_line_per_item(sheaf: Sheaf) -> None:
    done = sheaf("list")
    assert done.returncode == 0, done.stderr
    for name in ("ecavg-mnist", "fedavg", "mobilenet_v2@32", "speech_commands", "weighted_mean", "dirichlet"):
        assert name in done.stdout


def commands(command: click.Command, path: str = "sheaf") -> Iterator[tuple[str, click.Command]]:
    """Yield every command with its path, such as ``sheaf cloud pool ls``."""
    yield path, command
    for name, sub in getattr(command, "commands", {}).items():
        yield from commands(sub, f"{path} {name}")


def test_every_help_ends_with_an_example() -> None:
    found = dict(commands(typer.main.get_command(main.app)))
    assert {"sheaf", "sheaf run", "sheaf report", "sheaf cloud pool ls", "sheaf edge join"} <= found.keys()
    for path, command in found.items():
        assert (command.epilog or "").startswith(f"Example: {path}"), path


MISTAKES = {
    "an unknown experiment": (["run", "ecavg-minst"], "did you mean 'ecavg-mnist'?"),
    "an unknown key": (
        ["run", "ecavg-digits", "--set", "method.pretain.epochs=3"],
        "did you mean 'pretrain'?",
    ),
    "a wrong type": (
        ["run", "ecavg-digits", "--set", "method.pretrain.epochs=many"],
        "method.pretrain.epochs = 'many'",
    ),
    "out of range": (
        ["run", "ecavg-digits", "--set", "method.share.fraction=1.5"],
        "less than or equal to 1",
    ),
    "an unknown choice": (
        ["run", "ecavg-digits", "--set", "method.pretrain.optimizer=adm"],
        "'sgd', 'adam' or 'adamw'",
    ),
    "a sweep without values": (["compare", "--sweep", "method.share.fraction"], "write KEY=V1,V2"),
    "a guard without held-out data": (
        ["run", "ecavg-digits", "--set", "method=ecavg_plus", "--set", "data.held_out=0"],
        "set data.held_out above 0",
    ),
    "a change without value": (["run", "ecavg-digits", "--set", "seed"], "write key=value"),
    "an unknown method": (["run", "ecavg-digits", "--set", "method=ecavgg"], "did you mean 'ecavg'?"),
    "an unknown merge": (["run", "ecavg-digits", "--set", "method.merge=maen"], "did you mean 'mean'?"),
    "an unknown model": (["run", "ecavg-digits", "--set", "model.name=mlpp"], "did you mean 'mlp'?"),
    "an unknown variant": (["run", "ecavg-digits", "--set", "model.name=vgg16@64"], "vgg16@32"),
    "an unknown model option": (
        ["run", "ecavg-digits", "--set", "model.options.hiden=3"],
        "did you mean 'hidden'?",
    ),
    "a model that is not there": (
        ["run", "ecavg-digits", "--set", "model.name=no_such:net"],
        "cannot be imported",
    ),
    "data that is not there": (
        ["run", "ecavg-digits", "--set", "data.name=no/such/folder"],
        "no/such/folder",
    ),
    "too small images": (["run", "ecavg-digits", "--set", "model.name=vgg16@32"], "vgg16@32"),
    "more edges than classes": (["run", "ecavg-digits", "--set", "partition.edges=11"], "11"),
    "an edge left empty": (
        ["run", "ecavg-digits", "--set", "partition.name=iid", "--set", "partition.edges=2000"],
        "edge-",
    ),
    "a site name that is a path": (
        ["run", "ecavg-digits", "--set", 'partition.edges={"../x"=[0,1,2,3,4],b=[5,6,7,8,9]}'],
        "../x",
    ),
    "a site name that is a path, from a user's own partition": (
        ["run", "ecavg-digits", "--set", "partition=support:Paths"],
        "an edge cannot be named '../x'",
    ),
    "an edge named cloud": (
        ["run", "ecavg-digits", "--set", "partition.edges={cloud=[0,1,2,3,4],b=[5,6,7,8,9]}"],
        "cloud",
    ),
    "a width for an unknown edge": (
        ["run", "ecavg-digits", "--set", "fleet.widths.edg-1=0.5"],
        "no edge is named 'edg-1' (did you mean 'edge-1'?)",
    ),
    "a step that needs a pool without one": (
        ["run", "ecavg-digits", "--set", "method=decoupled", "--set", "method.refit={ridge=0.1}"],
        "method: share = 'none' leaves no pool of samples to refit on: set refit = { statistics = 'lda' }",
    ),
    "a model that cannot be cut": (
        ["run", "ecavg-digits", "--set", "method=decoupled", "--set", "model={name='toys:Uncuttable'}"],
        "the model cannot be cut: a sub-model's logits inside the network are off",
    ),
    "too few channels for the edges": (
        [
            *("run", "ecavg-digits", "--set", "method=decoupled"),
            *("--set", "partition.edges=10", "--set", "model.options.hidden=8"),
        ],
        "the 8 independent channels of 'fc1' are too few for 10 sites",
    ),
    "no edge that is strong enough": (
        [
            *("run", "ecavg-digits", "--set", "method=fedavg", "--set", "method.only_strong=true"),
            *("--set", "fleet.widths={edge-1=0.5,edge-2=0.5}"),
        ],
        "method.only_strong leaves no edge",
    ),
    "weights that are not there": (
        ["run", "ecavg-digits", "--set", "model.weights=no.safetensors"],
        "no.safetensors",
    ),
    "no run to show": (["show", "nowhere"], "holds no finished run"),
    "no run to resume": (["run", "--resume", "nowhere"], "holds no run"),
    "resuming with changes": (
        ["run", "--resume", "nowhere", "--set", "seed=1"],
        "remove --set, or start",
    ),
    "an unknown list": (["list", "modles"], "did you mean 'models'?"),
    "a plan without budgets": (
        ["plan", "ecavg-digits", "--set", "method=decoupled"],
        "fleet.budgets is empty",
    ),
    "a plan for a method without cuts": (["plan", "ecavg-digits"], "method has no cut to plan"),
    "a budget for no edge": (
        ["plan", "ecavg-digits", "--set", "method=decoupled", "--set", "fleet.budgets.edge-9.macs=1"],
        "no edge has this name; edges: edge-1, edge-2",
    ),
    "a budget that nothing fits": (
        ["plan", "ecavg-digits", "--set", "method=decoupled", "--set", "fleet.budgets.edge-1.macs=10"],
        "edge-1: even the narrowest sub-model needs",
    ),
    "quiet and JSON": (["run", "--quiet", "--json"], "--quiet and --json exclude each other"),
    "a dry run as JSON": (["run", "--dry-run", "--json"], "--dry-run excludes --quiet, --json"),
    "no run to export": (["export", "nowhere"], "holds no finished run"),
    "an unknown format": (["export", "nowhere", "--to", "onxn"], "did you mean 'onnx'?"),
    "no model to predict with": (["predict", "no.onnx", "no.png"], "there is no model 'no.onnx'"),
    "no run to predict with": (["predict", ".", "no.png"], "holds no finished run"),
    "an invalid MLflow store": (["run", "--mlflow", "nonsense://x"], "--mlflow nonsense://x cannot be"),
    "no methods": (["compare", "--methods", ","], "--methods names no method"),
    "an unknown method to compare": (["compare", "--methods", "fedavgg"], "did you mean 'fedavg'?"),
}


@pytest.mark.parametrize(("arguments", "said"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_gives_a_one_line_error_and_writes_nothing(
    arguments: list[str],
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert_refused(arguments, said, tmp_path, monkeypatch, capsys)
    assert list(tmp_path.iterdir()) == []


def assert_refused(
    arguments: list[str],
    said: str,
    cwd: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(cwd)
    monkeypatch.setattr(sys, "argv", ["sheaf", *arguments])
    monkeypatch.setattr(sys, "path", list(sys.path))
    with pytest.raises(SystemExit) as stopped:
        main.main()
    error = capsys.readouterr().err
    assert stopped.value.code == 2, error
    assert said in error
    assert error.count("\n") == 1, f"more than one line: {error}"
    assert "Traceback" not in error


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"title = ", "mine.toml cannot be read as TOML"),
        (b"\xff\xfe", "mine.toml cannot be read as TOML"),
        (b"seed = 1", "data is missing"),
        (b"seed = 1\nlr = 3", "is missing"),
    ],
)
def test_a_broken_experiment_file(
    content: bytes,
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "mine.toml").write_bytes(content)
    assert_refused(["run", "mine.toml"], said, tmp_path, monkeypatch, capsys)


def test_a_folder_in_use_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "r").mkdir()
    (tmp_path / "r" / "experiment.toml").touch()
    with FileLock(tmp_path / "r" / "lock"):
        assert_refused(["run", "--resume", "r"], "in use by another run", tmp_path, monkeypatch, capsys)
    assert_refused(["run", "--out", "r"], "r is not empty", tmp_path, monkeypatch, capsys)


def test_a_run_resumes_after_a_full_disk(sheaf: Sheaf, tmp_path: Path) -> None:
    limit = "ulimit -f 40; "  # blocks of 1 KiB: the journal's samples do not fit
    done = subprocess.run(
        [
            "bash",
            "-c",
            f"{limit} trap '' XFSZ; exec {Path(sys.executable).with_name('sheaf')} run ecavg-digits --out r",
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env=os.environ,
    )
    assert done.returncode == 2, done.stdout + done.stderr
    assert "File too large" in done.stderr
    assert "sheaf run --resume r" in done.stderr
    assert done.stderr.count("\n") == 1
    assert sheaf("run", "--resume", "r").returncode == 0
