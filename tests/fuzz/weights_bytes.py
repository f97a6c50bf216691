"""Files of weights: safetensors and ``.pth``, as start weights and as the data of a device."""

from __future__ import annotations

import io
import json
import tempfile
from collections import OrderedDict
from pathlib import Path

import torch
from fuzz.engine import Harness, mutated
from hypothesis import strategies as st
from torch import nn

from sheaf.core.tensor_file import encode
from sheaf.data.device_data import load_device_data
from sheaf.data.settings import DataSettings
from sheaf.models.checkpoints import load_weights


def model() -> nn.Sequential:
    """Return a network of a few parameters."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(
            OrderedDict(conv=nn.Conv2d(1, 2, 3), norm=nn.BatchNorm2d(2), head=nn.Linear(2, 3))
        )


def seeds() -> list[tuple[str, bytes]]:
    """Return (suffix, content) of checkpoints of the network, and of a device's data."""
    state = model().state_dict()
    device = {
        f"{split}.{name}": value
        for split in ("train", "test")
        for name, value in (
            ("inputs", torch.zeros(2, 1, 4, 4, dtype=torch.uint8)),
            ("labels", torch.arange(2)),
        )
    }
    contents = [(".safetensors", encode(state)), (".safetensors", encode(state, {"format": "pt"}))]
    contents.append((".safetensors", encode(device, {"classes": json.dumps(["a", "b"])})))
    wrapped = {"epoch": 3, "model": {f"module.{name}": value for name, value in state.items()}}
    for content in (state, wrapped):
        for is_zip in (True, False):
            file = io.BytesIO()
            torch.save(content, file, _use_new_zipfile_serialization=is_zip)
            contents.append((".pth", file.getvalue()))
    return contents


def read(source: tuple[str, bytes]) -> None:
    """Load the file into a network and, if it is one of safetensors, as a device's data."""
    suffix, content = source
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, f"weights{suffix}")
        path.write_bytes(content)
        if b"train.inputs" in content:
            load_device_data(DataSettings(name=str(path), cache=False), ("a", "b"))
        else:
            load_weights(model(), str(path))


HARNESS = Harness(
    st.one_of(
        [mutated([content]).map(lambda new, suffix=suffix: (suffix, new)) for suffix, content in seeds()]
    ),
    read,
)
