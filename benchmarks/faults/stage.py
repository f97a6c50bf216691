"""A rehearsed fleet whose processes can be killed, and runs on it."""

from __future__ import annotations

import contextlib
import hashlib
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil

from sheaf.core.errors import FleetError
from sheaf.experiments import rehearse as rehearsal
from sheaf.experiments.config import load_experiment
from sheaf.experiments.setup import prepare
from sheaf.fleets.nvflare import provision
from sheaf.runtime.result import Result

EDGES = ("edge-1", "edge-2", "edge-3")
SETTINGS = (
    "partition.edges=3",
    "data.limit=1000",
    "data.limit_test=100",
    "method.pretrain.epochs=1000",
    "method.retrain.epochs=60",
    "method.finetune.epochs=5",
    "method.reference=false",
    "method.share.fraction=1.0",
    "fleet.threads=1",
    "fleet.quorum=0.5",
)
SHEAF = (sys.executable, "-c", "from sheaf.cli.main import main; main()")


class Stage:
    """A fleet in separate processes, each of which can be killed or stopped."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.fleet = folder / "fleet"
        prepared = prepare(load_experiment("ecavg-digits", SETTINGS))
        provision.init(self.fleet, "localhost", rehearsal.free_port(), list(EDGES))
        rehearsal.write_edges(prepared, folder)
        self.cloud = rehearsal.start_cloud(self.fleet)
        rehearsal.wait_for_cloud(self.fleet)
        self.edges = {edge: rehearsal.start_edge(self.fleet, folder, edge) for edge in EDGES}

    def mend(self) -> None:
        """Restart the processes that have ended."""
        if self.cloud.poll() is not None:
            self.cloud = rehearsal.start_cloud(self.fleet)
            rehearsal.wait_for_cloud(self.fleet)
        for edge, process in self.edges.items():
            if process.poll() is not None:
                self.edges[edge] = rehearsal.start_edge(self.fleet, self.folder, edge)

    def job_of(self, process: subprocess.Popen[bytes]) -> psutil.Process:
        """Return the newest job process of FLARE below ``process``."""
        jobs = [
            below
            for below in psutil.Process(process.pid).children(recursive=True)
            if any(name in " ".join(below.cmdline()) for name in ("job_process", "runner_process"))
        ]
        return max(jobs, key=lambda below: below.create_time())

    def kill(self, process: subprocess.Popen[bytes]) -> None:
        """Kill a process and its descendants, as a power failure does."""
        below = psutil.Process(process.pid).children(recursive=True)
        for one in [psutil.Process(process.pid), *below]:
            with contextlib.suppress(psutil.NoSuchProcess):
                one.kill()
        process.wait()

    def close(self) -> None:
        """Stop all processes."""
        for process in (*self.edges.values(), self.cloud):
            if process.poll() is None:
                self.kill(process)


class Trial:
    """A run on a stage."""

    def __init__(self, stage: Stage, name: str, changes: tuple[str, ...] = ()) -> None:
        self.stage, self.out = stage, stage.folder / f"run-{name}"
        sets = [part for change in (*SETTINGS, *changes) for part in ("--set", change)]
        self.began, self.output = time.monotonic(), ""
        self.process = self._sheaf("ecavg-digits", *sets, "--out", str(self.out), "--wait", "12")

    def _sheaf(self, *arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [*SHEAF, "cloud", "run", *arguments, "--fleet", str(self.stage.fleet)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def wait_for_call(self, number: int, seconds: float = 120.0) -> None:
        """Block until a call has begun."""
        log, until = self.out / "log.txt", time.monotonic() + seconds
        while not (log.exists() and f"call {number}:" in log.read_text()):
            if time.monotonic() > until or self.process.poll() is not None:
                raise FleetError(f"call {number} did not come: {self.end()}")
            time.sleep(0.05)
        time.sleep(0.5)

    def end(self) -> str:
        """Wait for the end; return the output."""
        self.output, _ = self.process.communicate(timeout=300)
        return self.output

    def resume(self) -> str:
        """Resume the run; return the output."""
        self.process = self._sheaf("--resume", str(self.out))
        return self.end()

    def outcome(self) -> dict[str, Any]:
        """Return the outcome."""
        seconds = time.monotonic() - self.began
        if not (self.out / "result.json").exists():
            why = (self.output.strip().splitlines() or ["no output"])[-1]
            ended = f"exit {self.process.returncode}: {why}"
            return {"ended": ended, "seconds": seconds, "weights": "", "left_out": ""}
        result = Result.read(self.out)
        digest = hashlib.sha256()
        for path in sorted((self.out / "weights").iterdir()):
            digest.update(path.name.encode() + path.read_bytes())
        refused: dict[str, list[int]] = {}
        for refusal in result.refused:
            refused.setdefault(f"{refusal.site}: {refusal.why}", []).append(refusal.call)
        out = "; ".join(f"{why} (call {', '.join(map(str, calls))})" for why, calls in refused.items())
        return {"ended": "result", "seconds": seconds, "weights": digest.hexdigest(), "left_out": out}
