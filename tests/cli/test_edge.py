"""The commands for a device: its models, its predictions and what may leave it."""

from __future__ import annotations

import json
import os
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import ThreadingHTTPServer
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
import torch
from device_rig import SITES, Rig, theta
from PIL import Image
from typer.testing import CliRunner

from sheaf.cli.main import app
from sheaf.core.errors import FleetError, ModelFileError
from sheaf.core.recipe import Share
from sheaf.core.settings import plain
from sheaf.core.task import Task, Update
from sheaf.core.tensor_file import Blob
from sheaf.fleets.remote.device_models import DeviceModels
from sheaf.fleets.remote.device_settings import EdgeFile, EdgeSettings, ShareSettings

DOCUMENT = Path(__file__).parents[2] / "docs" / "deploy.md"
OWN = EdgeFile(edge=EdgeSettings(guard="off"), share=ShareSettings(max_fraction=0.5))


def run(folder: Path, name: str, answer: int) -> None:
    """Run once: share ten samples, and end with a model that answers the same class to all inputs."""
    rig = Rig(folder, {"left": OWN}, deadline=300.0, setup={"name": name})
    params = {key: torch.zeros_like(value) for key, value in theta().items()}
    (bias,) = (key for key, value in params.items() if value.shape == (3,))
    params[bias][answer] = 4.0
    tasks = Task("share", 1, 5, share=Share(count=10)), Task("adopt", 2, 5, Blob.of(params))
    for task in (*tasks, Task("collect", 3, 5)):
        (update,) = rig.fleet.run({"left": task})
        assert isinstance(update, Update), update


@pytest.fixture(scope="module")
def device(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a device after two runs, whose models answer ``a`` and ``b``; and a photo."""
    folder = tmp_path_factory.mktemp("device")
    for name, answer in (("monday", 0), ("tuesday", 1)):
        run(folder, name, answer)
    state = folder / SITES[0] / "state"
    data = str(folder / "left" / "own.safetensors")
    (state / "join.json").write_text(json.dumps({"edge": "left", "data": data, "file": plain(OWN)}))
    (folder / "shop-1.state").symlink_to(state)
    Image.new("L", (4, 4), 9).save(folder / "photo.png")
    return folder


def sheaf(folder: Path, *arguments: str) -> str:
    """Run ``sheaf edge ARGUMENTS`` in a folder and return its output."""
    before = Path.cwd()
    os.chdir(folder)
    try:
        return CliRunner().invoke(app, ["edge", *arguments], catch_exceptions=False).output
    finally:
        os.chdir(before)


def test_status_shows_the_model_and_the_allowance(device: Path) -> None:
    shown = " ".join(sheaf(device, "status").split())
    assert "model 2, of tuesday, held-out accuracy 0." in shown
    assert "samples 30, of which 3 are held out" in shown
    assert "may leave 15 over all runs ([share] max_fraction = 0.5) have left 10 left 5" in shown


def test_models_are_listed_and_rolled_back(device: Path) -> None:
    def states() -> list[tuple[str, str]]:
        rows = sheaf(device, "models").splitlines()
        assert all(len(row) <= 80 for row in rows)
        cells = [row.split() for row in rows if row[:1].isdigit()]
        return [(row[3], " ".join(row[7:])) for row in cells]

    assert states() == [("tuesday", "current"), ("monday", "")]
    assert json.loads(sheaf(device, "predict", "photo.png", "--json"))["label"] == "b"
    assert "model 1, of monday, is current again; to undo this: sheaf edge rollback 2" in sheaf(
        device, "rollback"
    )
    assert states() == [("tuesday", "rolled back"), ("monday", "current")]
    assert json.loads(sheaf(device, "predict", "photo.png", "--json"))["label"] == "a"
    assert "photo.png" in sheaf(device, "predict", "photo.png")
    sheaf(device, "rollback", "2")
    assert "is current already" in sheaf(device, "rollback", "2")


def test_a_folder_without_a_device_or_a_model_is_refused(tmp_path: Path, device: Path) -> None:
    with pytest.raises(FleetError, match=r"no device's folder \(\*\.state\) is here"):
        sheaf(tmp_path, "models")
    with pytest.raises(FleetError, match="is no device's folder"):
        sheaf(tmp_path, "status", "--state", "nowhere")
    for name in ("one.state", "two.state"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "join.json").write_text((device / "left" / "state" / "join.json").read_text())
    with pytest.raises(FleetError, match="2 devices' folders are here"):
        sheaf(tmp_path, "models")
    assert "holds no model yet" in sheaf(tmp_path, "models", "--state", "one.state")
    assert "not counted yet" in sheaf(tmp_path, "status", "--state", "one.state")
    with pytest.raises(FleetError, match="holds no model yet"):
        sheaf(tmp_path, "predict", "photo.png", "--state", "one.state")


def test_a_model_of_the_users_own_needs_the_owners_permission(tmp_path: Path, device: Path) -> None:
    from sheaf.export.trained_model import read_card
    from sheaf.fleets.remote.model_keeper import load_allowed
    from sheaf.models.checkpoints import save_weights

    file = DeviceModels(device / "left" / "state").current_file
    metadata = read_card(file).metadata() | {"model": json.dumps({"name": "toys:anything"})}
    save_weights(tmp_path / "model.safetensors", Blob.at(file).open(), metadata)
    with pytest.raises(ModelFileError, match=r"'toys:anything', which \[edge\] allow does not list"):
        load_allowed(tmp_path / "model.safetensors", ())


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """Serve the example of the document in ``folder``, and yield its address."""
    text = DOCUMENT.read_text(encoding="utf-8")
    start = text.index("# file: serve.py\n")
    names: dict[str, Any] = {"__name__": "serve"}
    before = Path.cwd()
    os.chdir(folder)
    try:
        exec(compile(text[start : text.index("```", start)], "serve.py", "exec"), names)
        with ThreadingHTTPServer(("127.0.0.1", 0), names["Handler"]) as server:
            threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
            yield f"http://127.0.0.1:{server.server_address[1]}"
            server.shutdown()
    finally:
        os.chdir(before)


def test_the_server_of_the_document_reloads_the_model_without_a_dropped_request(device: Path) -> None:
    models, content = DeviceModels(device / "left" / "state"), BytesIO()
    Image.new("L", (4, 4), 9).save(content, "png")
    labels: list[str] = []
    failures: list[Exception] = []
    ended = threading.Event()

    def request(address: str, body: bytes) -> str:
        with urllib.request.urlopen(urllib.request.Request(address, body), timeout=30) as reply:
            return str(json.loads(reply.read())["class"])

    def requests(address: str) -> None:
        while not ended.is_set():
            try:
                labels.append(request(address, content.getvalue()))
            except Exception as error:
                failures.append(error)

    with served(device) as address:
        threads = [threading.Thread(target=requests, args=(address,)) for _ in range(2)]
        for thread in threads:
            thread.start()
        for number in (1, 2) * 15:
            models.roll_back(number)
            seen = len(labels)
            while len(labels) < seen + 4 and not failures:
                ended.wait(0.002)
        ended.set()
        for thread in threads:
            thread.join()
        assert not failures
        assert set(labels) == {"a", "b"}
        assert request(address, content.getvalue()) == "b", "the newest model answers"
        models.current_file.with_suffix(".part").write_bytes(b"damaged")
        models.current_file.with_suffix(".part").replace(models.current_file)
        assert request(address, content.getvalue()) == "b", "a damaged file does not end the service"
        with pytest.raises(urllib.error.HTTPError, match="400"):
            request(address, b"no image")
