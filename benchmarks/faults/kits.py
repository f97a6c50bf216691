"""Connections that the cloud must refuse: without a kit, and with a wrong one."""

from __future__ import annotations

import json
import re
import shutil
import socket
import ssl
import subprocess
import time
from pathlib import Path
from typing import Any

from benchmarks.faults.stage import SHEAF, Stage, Trial
from sheaf.fleets.nvflare import provision


def no_kit(stage: Stage) -> dict[str, Any]:
    """A client without a certificate connects to the cloud's port."""
    port = provision.read(stage.fleet).port
    trust = ssl.create_default_context(cafile=str(stage.fleet / "authority" / "server" / "rootCA.pem"))
    ended = "let in"
    try:
        with (
            socket.create_connection(("localhost", port), timeout=5) as plain,
            trust.wrap_socket(plain, server_hostname="localhost") as secure,
        ):
            secure.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
            if not secure.recv(1):
                ended = "connection closed"
    except (ssl.SSLError, OSError) as error:
        ended = re.sub(r"\s*\(_ssl.*", "", str(error))
    return {"ended": ended, "seconds": 0.0, "weights": "", "left_out": ""}


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
    edges = subprocess.run(
        [*SHEAF, "cloud", "edges", "--fleet", str(stage.fleet)], capture_output=True, text=True
    ).stdout
    (line,) = [line for line in edges.splitlines() if line.split()[:1] == ["edge-3"]]
    heartbeat = re.search(r"(\d+) s ago", line)
    inside = heartbeat is not None and int(heartbeat[1]) < 10
    last = log.read_text().strip().splitlines()[-1:]
    return {
        "ended": ("LET IN" if inside else "not let in") + f" (device: {' '.join(last)})",
        "seconds": 25.0,
        "weights": "",
        "left_out": "",
    }
