"""A fleet in service: repeat an experiment, each time from the models of the last accepted run.

The folder of a service contains ``runs/NNNNNN`` (a run's folder for each round), ``model.safetensors`` (the
cloud's current model), ``history.jsonl``, and ``state.json``, from which a killed service continues.
"""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from filelock import FileLock, Timeout
from pydantic import BaseModel, Field, ValidationError

from sheaf.core.atomic_io import write_durably
from sheaf.core.errors import DevicesError, FleetError, QuorumError, RunFolderError, SheafError, first_line
from sheaf.core.types import CLOUD
from sheaf.experiments import run_on_fleet, service_history
from sheaf.experiments.cloud_accuracy import cloud_accuracy
from sheaf.experiments.config import Experiment
from sheaf.experiments.service_condition import Condition
from sheaf.experiments.service_history import HistoryLine
from sheaf.experiments.survey import Survey
from sheaf.runtime.observer import Observer
from sheaf.runtime.result import Result

logger = logging.getLogger("sheaf")

MODEL = "model.safetensors"
"""The file of the cloud's current model."""

RETRY = 60.0
"""Seconds until a run that lost too many devices, or the fleet's server, is resumed."""

RETRIES = 30
"""Maximum number of times that such a run is resumed before it counts as failed."""


class State(BaseModel):
    """The state of a service (``state.json``), from which it restarts.

    Attributes:
        round: number of the latest round, from 1; 0 before the first.
        running: whether it has begun and has no line of history yet.
        began: when it began, in seconds since 1970.
        due: when the next one may begin.
        accepted: name of the run's folder of the latest accepted round.
        samples: device -> its training samples in the latest finished run.
    """

    round: int = 0
    running: bool = False
    began: float = 0.0
    due: float = 0.0
    accepted: str | None = None
    samples: dict[str, int] = Field(default_factory=dict)


@dataclass(frozen=True)
class Service:
    """The settings of a fleet in service.

    Attributes:
        experiment: what each round runs.
        fleet: the fleet's folder.
        folder: of the service.
        every: seconds between the beginnings of two rounds, above 0.
        condition: what must hold when a round is due; otherwise it is skipped.
        tolerance: accuracy, from 0 to 1, by which a new model may be worse than the current one.
        max_bytes: of the runs' folders; the oldest are deleted, but not those of the current model and the
            latest round.
        data, edges, wait: as for ``run_on_fleet.run``.
        start: the folder of a run, with whose models the first round starts.
        observer_for: (title, run's folder) -> an observer of a run.
        say: prints a line.
    """

    experiment: Experiment
    fleet: Path
    folder: Path
    every: float
    observer_for: Callable[[str, Path], Observer]
    say: Callable[[str], None]
    condition: Condition = field(default_factory=Condition)
    tolerance: float = 0.0
    max_bytes: int = 10**10
    data: Path | None = None
    edges: Sequence[str] = ()
    wait: float = 30.0
    start: Path | None = None

    def serve(self, rounds: int | None = None) -> None:
        """Run rounds until the process is stopped, or ``rounds`` more of them.

        Raises:
            SheafError: the first round cannot run, or another process serves the folder.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        try:
            with FileLock(self.folder / "lock", timeout=0):
                while rounds is None or rounds > 0:
                    self._one_round()
                    rounds = None if rounds is None else rounds - 1
        except Timeout as error:
            raise RunFolderError(f"{self.folder} is served by another process; stop it first") from error

    def _one_round(self) -> None:
        """Finish the round that a killed process left, or wait for the next one and run it."""
        state = self._read()
        if not state.running:
            while (seconds := state.due - time.time()) > 0:
                time.sleep(min(seconds, 60.0))  # the clock may be set meanwhile
            now = time.time()
            due = max(now, state.due) + self.every
            state = state.model_copy(
                update={"round": state.round + 1, "running": True, "began": now, "due": due}
            )
            self._write(state)
        line, state = self._finish(state)
        service_history.append(self.folder, line)
        self._write(state.model_copy(update={"running": False}))
        self._delete_old_runs(state)
        self.say(_describe(line) + f"; next round at {time.strftime('%F %T', time.localtime(state.due))}")

    def _finish(self, state: State) -> tuple[HistoryLine, State]:
        """Run or resume a round; return its line of history and the new state."""
        run = self.folder / "runs" / f"{state.round:06}"
        empty = HistoryLine(round=state.round, began=state.began, ended=time.time(), outcome="skipped")
        try:
            if not (run / "experiment.toml").exists():
                if run.exists():
                    shutil.rmtree(run)
                if (why := self._unmet(state)) is not None:
                    return empty.model_copy(update={"why": why, "ended": time.time()}), state
            result = self._run_or_resume(state, run)
        except DevicesError as error:
            return empty.model_copy(update={"why": str(error), "ended": time.time()}), state
        except SheafError as error:
            if state.round == 1 and not run.exists():
                self._write(State())  # a mistake in the settings: the next start tries again
                raise
            failed = {"outcome": "failed", "why": first_line(error), "ended": time.time(), "run": run.name}
            return empty.model_copy(update=failed), state
        return self._judge(state, run, result)

    def _unmet(self, state: State) -> str | None:
        """Return why the condition does not hold; None if it does."""
        if not self.condition.terms:
            return None
        found = run_on_fleet.survey_fleet(
            self.experiment, self.fleet, data=self.data, wait=self.wait, edges=self.edges
        )
        return self.condition.unmet(_quantities(found, state.samples))

    def _run_or_resume(self, state: State, run: Path) -> Result:
        accepted = None if state.accepted is None else self.folder / "runs" / state.accepted
        for attempt in range(RETRIES + 1):
            observer = self.observer_for(f"round {state.round}", run)
            try:
                if (run / "experiment.toml").exists():
                    return run_on_fleet.resume(run, data=self.data, wait=self.wait, observer=observer)
                return run_on_fleet.run(
                    self.experiment,
                    self.fleet,
                    data=self.data,
                    out=run,
                    wait=self.wait,
                    edges=self.edges,
                    start=accepted or self.start,
                    observer=observer,
                )
            except DevicesError:
                raise
            except (QuorumError, FleetError) as error:
                if attempt == RETRIES:
                    raise
                self.say(
                    f"round {state.round} is interrupted: {first_line(error)}; it goes on in {RETRY:g} s"
                )
                time.sleep(RETRY)
        raise AssertionError

    def _judge(self, state: State, run: Path, result: Result) -> tuple[HistoryLine, State]:
        """Compare the run's model with the current one, and make it the current one unless it is worse."""
        samples = {edge: sum(counts) for edge, counts in result.split.items() if any(counts)}
        accuracy = before = None
        outcome, why = "accepted", ""
        weights = result.weights.get(CLOUD)
        if weights is not None:
            accuracy = cloud_accuracy(self.experiment, self.data, run / weights)
            # Not from MODEL, which a killed service may have replaced already.
            if state.accepted is not None:
                accepted_run = self.folder / "runs" / state.accepted
                current = Result.read(accepted_run).weights.get(CLOUD)
                if current is not None:
                    before = cloud_accuracy(self.experiment, self.data, accepted_run / current)
            if before is not None and accuracy is not None and accuracy < before - self.tolerance:
                outcome = "rejected"
                why = f"accuracy {accuracy:.4f} is below {before:.4f} - {self.tolerance:g}"
            else:
                write_durably(self.folder / MODEL, (run / weights).read_bytes())
        line = HistoryLine(
            round=state.round,
            began=state.began,
            ended=time.time(),
            outcome=outcome,
            why=why,
            run=run.name,
            devices=list(samples),
            left_out={refusal.site: refusal.why for refusal in result.refused if refusal.call == 0},
            samples=sum(samples.values()),
            new_samples=_new_samples(samples, state.samples),
            accuracy=accuracy,
            before=before,
            replaced={edge: each.replaced for edge, each in result.replacements.items()},
            bytes=result.cost[CLOUD].bytes_sent + result.cost[CLOUD].bytes_received,
        )
        accepted = run.name if outcome == "accepted" else state.accepted
        known = state.samples | samples
        return line, state.model_copy(update={"accepted": accepted, "samples": known})

    def _delete_old_runs(self, state: State) -> None:
        """Delete the oldest runs above ``max_bytes``."""
        runs = sorted((self.folder / "runs").glob("*"))
        sizes = {run: _size(run) for run in runs}
        kept = {state.accepted, f"{state.round:06}"}
        for run in runs:
            if sum(sizes.values()) <= self.max_bytes:
                break
            if run.name not in kept:
                shutil.rmtree(run, ignore_errors=True)
                del sizes[run]

    def _read(self) -> State:
        path = self.folder / "state.json"
        if not path.exists():
            return State()
        try:
            return State.model_validate_json(path.read_bytes())
        except (ValidationError, OSError) as error:
            raise RunFolderError(
                f"{path} is damaged: {first_line(error)}; name a new folder with --out, and the latest run "
                f"in {self.folder}/runs with --from"
            ) from error

    def _write(self, state: State) -> None:
        write_durably(self.folder / "state.json", state.model_dump_json().encode())


def _quantities(found: Survey, before: dict[str, int]) -> dict[str, int]:
    """Return the quantities of a condition."""
    samples = {edge: sum(found.infos[edge].counts) for edge in found.fitting}
    return {
        "devices": len(samples),
        "samples": sum(samples.values()),
        "new samples": _new_samples(samples, before),
    }


def _new_samples(samples: dict[str, int], before: dict[str, int]) -> int:
    return sum(max(0, count - before.get(edge, 0)) for edge, count in samples.items())


def _size(folder: Path) -> int:
    """Return the bytes of a folder's files; a file of several names counts once over all of them."""
    size = 0
    for path in folder.rglob("*"):
        with suppress(OSError):
            status = path.lstat()
            size += status.st_size // max(1, status.st_nlink)
    return size


def _describe(line: HistoryLine) -> str:
    parts = [f"round {line.round}: {line.outcome}"]
    if line.why:
        parts.append(line.why)
    if line.accuracy is not None:
        before = "" if line.before is None else f", before {line.before:.4f}"
        parts.append(f"accuracy {line.accuracy:.4f}{before}")
    if line.run is not None and line.outcome != "failed":
        parts.append(f"{len(line.devices)} devices, {line.new_samples} new samples")
    return "; ".join(parts)
