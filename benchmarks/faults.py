"""Test a run on a real fleet under faults, on a rehearsed fleet of three devices.

Each case starts a run as a user does, kills or stops one process during a certain call, and waits for the
end (after a fault of the cloud, it resumes the run with --resume). ``equal`` is whether the weights equal
those of the undisturbed run, bit for bit; ``lost_s`` the additional seconds; ``left_out`` the devices that
were skipped, by call.

Run: python -m benchmarks.faults [CASE ...]
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import resource
import shutil
import signal
import ssl
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import torch

from benchmarks.results import FOLDER, publish
from sheaf.core.errors import FleetError
from sheaf.experiments import rehearse as rehearsal
from sheaf.experiments.config import load_experiment
from sheaf.experiments.provenance import provenance
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
        found = [
            below
            for below in psutil.Process(process.pid).children(recursive=True)
            if any(name in " ".join(below.cmdline()) for name in ("job_process", "runner_process"))
        ]
        return max(found, key=lambda below: below.create_time())

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
        self.began, self.said = time.monotonic(), ""
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
        self.said, _ = self.process.communicate(timeout=300)
        return self.said

    def resume(self) -> str:
        """Resume the run; return the output."""
        self.process = self._sheaf("--resume", str(self.out))
        return self.end()

    def outcome(self) -> dict[str, Any]:
        """Return the outcome."""
        seconds = time.monotonic() - self.began
        if not (self.out / "result.json").exists():
            why = (self.said.strip().splitlines() or ["nothing was said"])[-1]
            ended = f"exit {self.process.returncode}: {why}"
            return {"ended": ended, "seconds": seconds, "weights": "", "left_out": ""}
        result = Result.read(self.out)
        digest = hashlib.sha256()
        for path in sorted((self.out / "weights").iterdir()):
            digest.update(path.name.encode() + path.read_bytes())
        left: dict[str, list[int]] = {}
        for refusal in result.refused:
            left.setdefault(f"{refusal.site}: {refusal.why}", []).append(refusal.call)
        out = "; ".join(f"{who} (call {', '.join(map(str, calls))})" for who, calls in left.items())
        return {"ended": "result", "seconds": seconds, "weights": digest.hexdigest(), "left_out": out}


def undisturbed(stage: Stage) -> dict[str, Any]:
    """No fault."""
    trial = Trial(stage, "undisturbed")
    trial.end()
    return trial.outcome()


def absent_at_start(stage: Stage) -> dict[str, Any]:
    """edge-3 is absent at the start and joins during the first training."""
    stage.kill(stage.edges["edge-3"])
    time.sleep(10)
    trial = Trial(stage, "absent")
    trial.wait_for_call(1)
    stage.mend()
    trial.end()
    return trial.outcome()


def killed(stage: Stage) -> dict[str, Any]:
    """edge-3 loses power during training and has it again after three seconds."""
    trial = Trial(stage, "killed")
    trial.wait_for_call(1)
    stage.kill(stage.edges["edge-3"])
    time.sleep(3)
    stage.mend()
    trial.end()
    return trial.outcome()


def job_killed(stage: Stage) -> dict[str, Any]:
    """The training process of edge-3 is killed; its supervisor is not."""
    trial = Trial(stage, "job-killed")
    trial.wait_for_call(1)
    stage.job_of(stage.edges["edge-3"]).kill()
    trial.end()
    return trial.outcome()


def paused(stage: Stage) -> dict[str, Any]:
    """edge-3 is suspended for six seconds during training."""
    trial = Trial(stage, "paused")
    trial.wait_for_call(1)
    job = stage.job_of(stage.edges["edge-3"])
    job.suspend()
    time.sleep(6)
    job.resume()
    trial.end()
    return trial.outcome()


def stopped(stage: Stage) -> dict[str, Any]:
    """edge-3 is suspended for good, with its connection open."""
    trial = Trial(stage, "stopped")
    trial.wait_for_call(1)
    job, waiting = stage.job_of(stage.edges["edge-3"]), stage.edges["edge-3"]
    job.suspend()
    for below in psutil.Process(waiting.pid).children(recursive=True):
        below.suspend()
    trial.end()
    outcome = trial.outcome()
    stage.kill(waiting)
    return outcome


def slow(stage: Stage) -> dict[str, Any]:
    """edge-3 computes at a twentieth of its speed; a call may take 15 s."""
    trial = Trial(stage, "slow", ("fleet.deadline=15.0",))
    trial.wait_for_call(1)
    job, over = stage.job_of(stage.edges["edge-3"]), threading.Event()

    def drag() -> None:
        with contextlib.suppress(psutil.NoSuchProcess):
            while not over.is_set():
                job.suspend()
                time.sleep(0.95)
                job.resume()
                time.sleep(0.05)

    thread = threading.Thread(target=drag)
    thread.start()
    trial.wait_for_call(3)
    over.set()
    thread.join()
    trial.end()
    return trial.outcome()


def out_of_disk(stage: Stage) -> dict[str, Any]:
    """edge-3 can write no file of more than 100 bytes from its first training on."""
    trial = Trial(stage, "disk")
    trial.wait_for_call(1)
    job = stage.job_of(stage.edges["edge-3"])
    resource.prlimit(job.pid, resource.RLIMIT_FSIZE, (100, 100))
    trial.end()
    outcome = trial.outcome()
    stage.kill(stage.edges["edge-3"])
    return outcome


def run_killed(stage: Stage) -> dict[str, Any]:
    """The run's own process on the cloud is killed in mid-training; then --resume."""
    trial = Trial(stage, "run-killed")
    trial.wait_for_call(1)
    trial.process.kill()
    trial.end()
    trial.resume()
    return trial.outcome()


def server_killed(stage: Stage) -> dict[str, Any]:
    """The cloud's server and all below it are killed in mid-training; then start and --resume."""
    trial = Trial(stage, "server-killed")
    trial.wait_for_call(1)
    stage.kill(stage.cloud)
    said = trial.end()
    assert trial.process.returncode == 2, said
    assert "sheaf cloud start" in said, said
    stage.mend()
    trial.resume()
    return trial.outcome()


def relay_killed(stage: Stage) -> dict[str, Any]:
    """The job's process on the cloud is killed in mid-training."""
    trial = Trial(stage, "relay-killed")
    trial.wait_for_call(1)
    stage.job_of(stage.cloud).kill()
    trial.end()
    return trial.outcome()


def no_kit(stage: Stage) -> dict[str, Any]:
    """A client without a certificate connects to the cloud's port."""
    port = provision.read(stage.fleet).port
    trust = ssl.create_default_context(cafile=str(stage.fleet / "authority" / "server" / "rootCA.pem"))
    seen = "let in"
    try:
        import socket

        with (
            socket.create_connection(("localhost", port), timeout=5) as plain,
            trust.wrap_socket(plain, server_hostname="localhost") as secure,
        ):
            secure.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
            if not secure.recv(1):
                seen = "connection closed"
    except (ssl.SSLError, OSError) as error:
        seen = re.sub(r"\s*\(_ssl.*", "", str(error))
    return {"ended": seen, "seconds": 0.0, "weights": "", "left_out": ""}


def foreign_kit(stage: Stage) -> dict[str, Any]:
    """A device with the kit of another fleet, changed to point at this cloud."""
    other = stage.folder / "other"
    provision.init(other, "localhost", provision.read(stage.fleet).port, ["edge-3"])
    stage.kill(stage.edges["edge-3"])
    kit = other / "kits" / "edge-3.kit"
    return _not_let_in(stage, kit, "foreign")


def forged_kit(stage: Stage) -> dict[str, Any]:
    """The same, with this fleet's authority put into the kit, so that the device trusts this cloud."""
    other = stage.folder / "forged-fleet"
    provision.init(other, "localhost", provision.read(stage.fleet).port, ["edge-3"])
    stage.kill(stage.edges["edge-3"])
    ours = json.loads((stage.fleet / "kits" / "edge-3.kit").read_text())
    kit = other / "kits" / "edge-3.kit"
    forged = json.loads(kit.read_text())
    forged["kit"]["authority"] = ours["kit"]["authority"]
    kit.write_text(json.dumps(forged))
    return _not_let_in(stage, kit, "forged")


def revoked_kit(stage: Stage) -> dict[str, Any]:
    """edge-3 is removed in mid-training (four times as many steps), and tries to come back with its kit."""
    kit = stage.folder / "kept.kit"
    shutil.copy(stage.fleet / "kits" / "edge-3.kit", kit)
    kit.chmod(0o600)
    trial = Trial(stage, "revoked", ("method.pretrain.batch_size=16",))
    trial.wait_for_call(1)
    subprocess.run([*SHEAF, "cloud", "remove", "edge-3", "--fleet", str(stage.fleet)], check=True)
    trial.end()
    outcome = trial.outcome()
    stage.kill(stage.edges["edge-3"])
    return outcome | {"ended": f"result; then {_not_let_in(stage, kit, 'revoked')['ended']}"}


def _not_let_in(stage: Stage, kit: Path, name: str) -> dict[str, Any]:
    """Return the output of a device that joins with this kit, after 25 s."""
    place = stage.folder / "edge-3"
    log = stage.folder / f"{name}.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [
                *(*SHEAF, "edge", "join", str(kit), "--state", str(stage.folder / name)),
                *("--data", str(place / "data.safetensors")),
            ],
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    time.sleep(25)
    stage.kill(process)
    said = subprocess.run(
        [*SHEAF, "cloud", "edges", "--fleet", str(stage.fleet)], capture_output=True, text=True
    ).stdout
    (line,) = [line for line in said.splitlines() if line.split()[:1] == ["edge-3"]]
    heard = re.search(r"(\d+) s ago", line)
    inside = heard is not None and int(heard[1]) < 10
    told = log.read_text().strip().splitlines()[-1:]
    return {
        "ended": ("LET IN" if inside else "not let in") + f" (device: {' '.join(told)})",
        "seconds": 25.0,
        "weights": "",
        "left_out": "",
    }


CASES: tuple[Callable[[Stage], dict[str, Any]], ...] = (
    undisturbed,
    absent_at_start,
    killed,
    job_killed,
    paused,
    stopped,
    slow,
    out_of_disk,
    run_killed,
    server_killed,
    relay_killed,
    no_kit,
    foreign_kit,
    forged_kit,
    revoked_kit,  # the last one: edge-3 is out for good
)


def main() -> None:
    """Run the named cases, or all, and publish ``faults.json``; earlier cases stay."""
    wanted = sys.argv[1:] or [case.__name__ for case in CASES]
    path = FOLDER / "faults.json"
    before = json.loads(path.read_text()) if path.exists() else {"rows": []}
    rows = {row["case"]: {"commit": before["provenance"]["commit"], **row} for row in before["rows"]}
    commit = provenance({}, 0, {}, torch.device("cpu"))["commit"]
    with tempfile.TemporaryDirectory(prefix="sheaf-faults-") as folder:
        stage = Stage(Path(folder))
        try:
            for case in CASES:
                if case.__name__ not in wanted:
                    continue
                stage.mend()
                what = " ".join((case.__doc__ or "").split())
                row = {"case": case.__name__, "what": what, **case(stage), "commit": commit}
                rows[case.__name__] = row
                print(rows[case.__name__], flush=True)
                tell(rows)
        finally:
            stage.close()


def tell(rows: dict[str, dict[str, Any]]) -> None:
    """Publish all cases, each compared with the undisturbed one."""
    reference = rows.get("undisturbed", {})
    for row in rows.values():
        row["equal"] = row["weights"] != "" and row["weights"] == reference.get("weights")
        row["lost_s"] = row["seconds"] - reference.get("seconds", 0.0) if row["weights"] else 0.0
    publish(
        "faults",
        [rows[case.__name__] for case in CASES if case.__name__ in rows],
        {"settings": list(SETTINGS)},
        0,
        {},
    )


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    main()
