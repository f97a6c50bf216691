"""A device needs the base dependencies only: all the other libraries may be absent."""

import subprocess
from importlib.metadata import requires
from pathlib import Path

import numpy as np
import pytest
from packaging.requirements import Requirement
from PIL import Image

from sheaf.core import optional_imports

ABSENT = (
    *("aiohttp", "docker", "flask", "gunicorn", "huggingface_hub", "matplotlib", "mlflow"),
    *("numba", "onnx", "onnxruntime", "onnxscript", "pandas", "pyarrow", "pyhocon", "requests", "scipy"),
    *("sklearn", "soundfile", "sqlalchemy", "tensorboard", "urllib3"),
)
"""The libraries of the extras, and those that FLARE requires but a device never imports."""

SCRIPT = f"""
import sys
from pathlib import Path

class Absent:
    def find_spec(name, path=None, target=None):
        if name.partition(".")[0] in {ABSENT!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

for name in list(sys.modules):
    if name.partition(".")[0] in {ABSENT!r}:
        del sys.modules[name]
sys.meta_path.insert(0, Absent)
sys.modules["torch._dynamo"] = None  # torch's compiler, whose import would double the time of a start

import nvflare.fuel.f3.drivers.grpc_driver, nvflare.private.fed.app.client.client_train
import nvflare.private.fed.app.client.worker_process
import sheaf.cli.main, sheaf.fleets.nvflare.device_app, sheaf.fleets.nvflare.join
import sheaf
from sheaf.data.device_data import load_device_data

print(len(load_device_data(sheaf.DataSettings(name="images"), ("cat", "dog")).train), "images")
sets = ["partition.edges=2", *(f"method.{{phase}}.epochs=1" for phase in ("pretrain", "finetune", "retrain"))]
run = sheaf.run("ecavg-digits", changes=[*sets, "data.name=images", "model.name=kws_cnn"], out="run")
print(len(run.sites), "sites")
for use in (
    lambda: sheaf.run("ecavg-digits", out="digits"),
    lambda: sheaf.load_dataset(sheaf.DataSettings(name="shards")),
    lambda: sheaf.load_dataset(sheaf.DataSettings(name="sounds")),
    lambda: run.report(),
    lambda: sheaf.Ridge(),
):
    try:
        use()
    except sheaf.SheafError as error:
        print(error)
"""


def test_a_device_needs_few_libraries(fork_server: Path, tmp_path: Path) -> None:
    for number in range(20):
        path = tmp_path / "images" / ("cat", "dog")[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(number).integers(0, 256, (8, 8), dtype=np.uint8)
        Image.fromarray(pixels).save(path)
    for name in ("shards/train-0.parquet", *(f"sounds/{n % 2}/{n}.wav" for n in range(4))):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    script = tmp_path / "device.py"
    script.write_text(SCRIPT)
    done = subprocess.run(
        [fork_server / "python", script], capture_output=True, text=True, cwd=tmp_path, timeout=300
    )
    assert done.returncode == 0, done.stderr
    command = "is not installed; install it with: pip install 'sheaf-edge"
    assert done.stdout.splitlines()[-7:] == [
        "14 images",
        "3 sites",
        f"sklearn {command}[workstation]'",
        f"pyarrow {command}[parquet]'",
        f"soundfile {command}[audio]'",
        f"matplotlib {command}[workstation]'",
        f"scipy {command}[workstation]'",
    ]


def test_the_extra_of_a_device_completes_flare() -> None:
    """Each requirement of FLARE is installed on a device, or its absence is tested above."""
    own = names("sheaf-edge", "") | names("sheaf-edge", "device")
    absent = {"flask-jwt-extended", "flask-sqlalchemy", *ABSENT}  # the two import flask
    assert names("nvflare", "") <= own | absent


def names(distribution: str, extra: str) -> set[str]:
    """Return the distributions that one requires, without extras or for one extra."""
    required = [Requirement(line) for line in requires(distribution) or ()]
    wanted = [each for each in required if not each.marker or each.marker.evaluate({"extra": extra})]
    return {each.name.lower() for each in wanted}


def test_a_library_that_cannot_be_imported_is_an_error_of_one_line() -> None:
    message = "libx.so: not found; install it with: pip install 'sheaf-edge.audio.'"
    with pytest.raises(optional_imports.MissingExtraError, match=message), optional_imports.needs("audio"):
        raise ImportError("libx.so: not found")
