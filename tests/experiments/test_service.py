"""A fleet in service: rounds from the last accepted models, judged, resumed after a kill, rotated.

The rounds run in this process, by the same steps as on a fleet but for the link.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
from support import QUICK

from sheaf.core.errors import DevicesError, QuorumError, SettingError
from sheaf.experiments import run as runs
from sheaf.experiments import service, service_history
from sheaf.experiments.config import Experiment, load_experiment
from sheaf.experiments.execution import in_process
from sheaf.experiments.service import Service, State
from sheaf.experiments.service_condition import Condition
from sheaf.experiments.service_history import HistoryLine
from sheaf.experiments.setup import prepare
from sheaf.experiments.start_from import StartModels
from sheaf.runtime.observer import NullObserver
from sheaf.runtime.result import Result

EXPERIMENT = load_experiment("ecavg-digits", (*QUICK, "method.finetune.epochs=1"))


class Rounds:
    """The runs of a service in this process.

    Attributes:
        starts: the folder from which each run started.
        learning_rates: of the next runs; the first one is removed by each.
        error: is raised by the next run after its folder exists.
    """

    def __init__(self) -> None:
        self.starts: list[Path | None] = []
        self.learning_rates: list[float] = []
        self.error: Exception | None = None

    def run(
        self, experiment: Experiment, fleet: Path, *, out: Path, start: Path | None, **rest: Any
    ) -> Result:
        self.starts.append(start)
        models = None if start is None else StartModels.of_run(start)
        if self.learning_rates:
            recipe = replace(experiment.method.finetune, lr=self.learning_rates.pop(0))
            experiment = replace(experiment, method=replace(experiment.method, finetune=recipe))
        setup = prepare(experiment if models is None else models.adapt(experiment))
        setup = setup if models is None else models.begin(setup)
        engine = in_process
        if self.error is not None:
            error, self.error = self.error, None

            def engine(*_: Any) -> Any:
                raise error

        return runs.start(setup, out, {"data": None}, NullObserver(), engine, models)

    def resume(self, folder: Path, **rest: Any) -> Result:
        return runs.resume(folder)


@pytest.fixture
def rounds(monkeypatch: pytest.MonkeyPatch) -> Rounds:
    made = Rounds()
    monkeypatch.setattr(service.run_on_fleet, "run", made.run)
    monkeypatch.setattr(service.run_on_fleet, "resume", made.resume)
    monkeypatch.setattr(service, "RETRY", 0.0)
    return made


@pytest.fixture
def make(tmp_path: Path, rounds: Rounds) -> Callable[..., Service]:
    def make_service(**changes: Any) -> Service:
        settings: dict[str, Any] = {"every": 0.001, "say": lambda line: None}
        settings["observer_for"] = lambda title, folder: NullObserver()
        return Service(EXPERIMENT, tmp_path / "fleet", tmp_path / "service", **(settings | changes))

    return make_service


def history(made: Service) -> list[HistoryLine]:
    return list(service_history.read(made.folder))


def test_each_round_starts_from_the_last_accepted_one(make: Callable[..., Service], rounds: Rounds) -> None:
    made = make()
    rounds.learning_rates = [1e-3, 10.0, 1e-3]  # the second one destroys the model
    made.serve(rounds=3)
    first = made.folder / "runs" / "000001"
    assert rounds.starts == [None, first, first]
    lines = history(made)
    assert [line.outcome for line in lines] == ["accepted", "rejected", "accepted"]
    assert [line.round for line in lines] == [1, 2, 3]
    assert lines[1].accuracy is not None
    assert lines[0].accuracy == lines[1].before == lines[2].before
    assert lines[1].why.startswith(f"accuracy {lines[1].accuracy:.4f} is below ")
    assert (lines[0].samples, lines[0].new_samples, lines[1].new_samples) == (360, 360, 0)
    accepted = made.folder / "runs" / "000003" / "weights" / "cloud.safetensors"
    assert (made.folder / service.MODEL).read_bytes() == accepted.read_bytes()


def test_a_killed_service_continues(make: Callable[..., Service], rounds: Rounds) -> None:
    """Killed at the start of a run, after the run, and between the history and the state."""
    made = make()
    rounds.error = KeyboardInterrupt()  # type: ignore[assignment]
    with pytest.raises(KeyboardInterrupt):
        made.serve(rounds=1)
    assert State.model_validate_json((made.folder / "state.json").read_bytes()).running
    make().serve(rounds=1)
    assert [line.outcome for line in history(made)] == ["accepted"]
    assert rounds.starts == [None], "the run was resumed"
    state = (made.folder / "state.json").read_text()
    (made.folder / "state.json").write_text(state.replace('"running":false', '"running":true'))
    make().serve(rounds=1)
    assert [line.round for line in history(made)] == [1], "a round has one line"


def test_a_service_killed_before_its_line_of_history_compares_with_the_same_model(
    make: Callable[..., Service], rounds: Rounds, monkeypatch: pytest.MonkeyPatch
) -> None:
    rounds.learning_rates = [1e-4, 1e-3]
    make().serve(rounds=1)
    with monkeypatch.context() as patch:
        patch.setattr(service_history, "append", Mock(side_effect=KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            make().serve(rounds=1)
    make().serve(rounds=1)
    first, second = history(make())
    assert second.before == first.accuracy != second.accuracy


def test_lost_devices_interrupt_a_round_and_too_few_skip_it(
    make: Callable[..., Service], rounds: Rounds
) -> None:
    made = make()
    rounds.error = QuorumError("1 of 2 edges answered")
    made.serve(rounds=1)
    rounds.error = DevicesError("0 of 2 devices can take part", ["edge-1: not connected"])
    made.serve(rounds=1)
    skipped = history(made)[1]
    assert [line.outcome for line in history(made)] == ["accepted", "skipped"]
    assert skipped.why == "0 of 2 devices can take part (edge-1: not connected)"


def test_a_mistake_in_the_settings_ends_the_first_round(make: Callable[..., Service]) -> None:
    made = replace(make(), experiment=replace(EXPERIMENT, data=replace(EXPERIMENT.data, limit=3)))
    with pytest.raises(Exception, match=r"data\.limit = 3"):
        made.serve(rounds=1)
    assert history(made) == []
    make().serve(rounds=1)
    assert [line.outcome for line in history(made)] == ["accepted"]


def test_old_runs_are_deleted_by_size(make: Callable[..., Service]) -> None:
    made = make(max_bytes=1)
    made.serve(rounds=3)
    assert {path.name for path in (made.folder / "runs").iterdir()} <= {"000001", "000002", "000003"}
    state = State.model_validate_json((made.folder / "state.json").read_bytes())
    left = {path.name for path in (made.folder / "runs").iterdir()}
    assert left == {state.accepted, "000003"}


def test_the_history_rotates_by_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service_history, "LARGEST", 300)
    for number in range(1, 8):
        line = HistoryLine(round=number, began=1.0, ended=2.0, outcome="accepted")
        service_history.append(tmp_path, line)
        service_history.append(tmp_path, line)
    with (tmp_path / "history.jsonl").open("ab") as file:
        file.write(b'{"round": 8, "beg')  # a power failure
    service_history.append(tmp_path, HistoryLine(round=8, began=1.0, ended=2.0, outcome="skipped"))
    assert [line.round for line in service_history.read(tmp_path)] == list(range(1, 9))
    assert (tmp_path / "history.jsonl.1").exists()


@pytest.mark.parametrize(
    ("text", "unmet"),
    [
        ("new samples >= 500", "new samples = 499, not >= 500"),
        ("devices>2 and samples<10000", None),
        ("devices == 3 and new samples > 499", "new samples = 499, not > 499"),
    ],
)
def test_conditions(text: str, unmet: str | None) -> None:
    assert Condition.of(text).unmet({"devices": 3, "samples": 900, "new samples": 499}) == unmet


def test_mistakes_in_conditions_are_named() -> None:
    for text in ("new samples", "old samples > 3", "devices > x", "devices > 1 or devices < 3", ""):
        with pytest.raises(SettingError, match="quantities: new samples, samples, devices"):
            Condition.of(text)
