"""docs/deploy.md followed to the letter on hosts of their own, from ``init`` to a rollback on a device.

It takes a minute or two of CPU time, so it runs only by ``make deployment``, which prints the transcript.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from network_namespaces import Host, hosts, why_not
from PIL import Image

from sheaf.data.load import load_dataset
from sheaf.data.settings import DataSettings

ROOT = Path(__file__).parents[2]
DOCUMENT = (ROOT / "docs" / "deploy.md").read_text(encoding="utf-8")
EDGES = ("shop-1", "shop-2")
"""The devices that join; shop-3 of the document stays away."""


def documented(start: str) -> str:
    """Return the document's command that begins like this, without its comment."""
    pattern = rf"^(?:cloud\$ +|edge\$ +)?({re.escape(start)}[^#\n]*)"
    (line, *_) = re.findall(pattern, DOCUMENT, re.M)
    return line.strip()


class Transcript:
    """Runs commands on hosts and prints them with their output."""

    def __init__(self, environment: str) -> None:
        self._environment = environment

    def __call__(self, host: Host, line: str, code: int = 0) -> str:
        done = host.run(f"export {self._environment}; {line}")
        where = host.folder.name
        print(f"{where}$ {line}\n{done.stdout}", flush=True)
        assert done.returncode == code, done.stdout
        assert "Traceback" not in done.stdout
        return done.stdout

    def quietly(self, host: Host, line: str) -> str:
        """Return the output of a command without printing it."""
        return host.run(f"export {self._environment}; {line}").stdout


def digits(folder: Path, first: int, count: int, split: str = "train") -> None:
    """Write digits as PNG files, in one folder for each class."""
    data = load_dataset(DataSettings(name="digits"))
    samples = data.train if split == "train" else data.test
    for position in range(first, first + count):
        place = folder / data.classes[int(samples.labels[position])]
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(samples.inputs[position, 0].numpy()).save(place / f"{position}.png")


@pytest.fixture
def network(tmp_path: Path) -> Iterator[dict[str, Host]]:
    if os.environ.get("SHEAF_DEPLOYMENT") != "1":
        pytest.skip("set SHEAF_DEPLOYMENT=1 or run: make deployment")
    if why := why_not():
        pytest.skip(why)
    with hosts(tmp_path, "cloud.example.org", *EDGES) as made:
        yield dict(made)


def test_the_document_to_the_letter(network: dict[str, Host]) -> None:
    program = Path(sys.executable).parent
    run = Transcript(f"PATH={program}:$PATH PYTHONPATH={ROOT} OMP_NUM_THREADS=1")
    cloud = network["cloud"]
    digits(cloud.folder / "srv" / "test" / "test", 0, 200, "test")
    edge_toml = re.search(r"^# file: edge.toml\n(.*?)^```", DOCUMENT, re.M | re.S)
    assert edge_toml is not None
    background: list[subprocess.Popen[bytes]] = []

    def start(host: Host, line: str) -> None:
        print(f"{host.folder.name}$ {line} &", flush=True)
        log = host.folder / "background.log"
        background.append(host.start(f"export PATH={program}:$PATH PYTHONPATH={ROOT}; exec {line}", log))

    try:
        run(cloud, documented("sheaf cloud init fleet"))
        start(cloud, documented("sheaf cloud start fleet"))
        for number, edge in enumerate(EDGES):
            host = network[edge]
            digits(host.folder / "srv" / "images", 400 * number, 300)
            (host.folder / "edge.toml").write_text(edge_toml[1])
            shutil.copy(cloud.folder / "fleet" / "kits" / f"{edge}.kit", host.folder)
            start(host, documented("sheaf edge join shop-1.kit").replace("shop-1", edge))
        wait_for(lambda: len(re.findall(r"\d s ago", run.quietly(cloud, "sheaf cloud edges"))) == 2)
        run(cloud, documented("sheaf cloud status"))
        command = documented("sheaf cloud run fedavg-fleet")
        assert "yes" in run(cloud, f"{command} --wait 5 --dry-run")
        first = folder_in(run(cloud, f"{command} --wait 5"))
        photo = network["shop-1"].folder / "photo.jpg"
        image = Image.open(next((cloud.folder / "srv" / "test" / "test" / "3").iterdir()))
        image.save(photo, quality=100)
        assert "3" in run(network["shop-1"], documented("sheaf edge predict photo.jpg"))
        digits(network["shop-1"].folder / "srv" / "images", 800, 200)
        second = folder_in(run(cloud, f"{command} --wait 5 --from {first}"))
        worse = f"{command} --wait 5 --from {second} --set method.rounds=1 --set method.local.lr=3"
        assert "shop-1" in run(cloud, worse)
        run(network["shop-1"], documented("sheaf edge models"))
        run(network["shop-1"], documented("sheaf edge rollback"))
        run(network["shop-1"], documented("sheaf edge models"))
        run(network["shop-1"], documented("sheaf edge status"))
        run(network["shop-1"], documented("sheaf edge predict photo.jpg"))
        served = "sheaf cloud serve fedavg-fleet --set data.name=/srv/test --wait 5 --every 1s --rounds 2 -q"
        run(cloud, f"{served} --set method.rounds=1 --from {second}")
        run(cloud, "cat fleet/service/history.jsonl")
    finally:
        for process in reversed(background):
            process.send_signal(signal.SIGTERM)
        for process in background:
            process.wait(timeout=60)
        for host in network.values():
            log = host.folder / "background.log"
            print(f"{host.folder.name}: {log.read_text() if log.exists() else ''}")


def folder_in(output: str) -> str:
    """Return the run's folder, which the last line of a run's output names."""
    return output.strip().splitlines()[-1].removeprefix("folder: ")


def wait_for(done: object, seconds: float = 120.0) -> None:
    assert callable(done)
    until = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < until
        time.sleep(1.0)
