"""Devices with folders of images: the files that the owner allows leave, and give the bits of the tensors."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from device_rig import CLASSES, SITES, Rig, absent
from PIL import Image
from safetensors.torch import load, save

from sheaf.core.recipe import Share
from sheaf.core.task import Cost, Task, Update
from sheaf.core.tensor_file import Blob
from sheaf.data.shared_samples import decode_shared, shared_files
from sheaf.fleets.remote.device import describe
from sheaf.fleets.remote.device_settings import EdgeFile, ShareSettings
from sheaf.fleets.remote.messages import DataForm

SHAPE = (3, 32, 32)
TASK = Task("share", 1, 5, share=Share(fraction=0.5))


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve small JPEG files in each class, half of them of the fleet's size."""
    folder = tmp_path_factory.mktemp("pictures")
    for number in range(36):
        size = 32 + 8 * (number % 2)
        slope = np.add.outer(np.arange(size) * (1 + number % 5), np.arange(size) * (number // 3))
        path = folder / CLASSES[number % 3] / f"{number:02}.jpg"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(slope.astype(np.uint8)).convert("RGB").resize((size, size)).save(path, quality=40)
    return folder


def rig(folder: Path, pictures: Path, files: Any, **more: Any) -> Rig:
    own = dict.fromkeys(SITES, EdgeFile(share=ShareSettings(max_fraction=1.0, files=files)))
    form = {"form": DataForm(size=(32, 32), channels=3)}
    return Rig(folder, own, setup=form, pictures=pictures, shape=SHAPE, **more)


def test_the_cloud_has_the_same_bits_whatever_files_leave(tmp_path: Path, pictures: Path) -> None:
    sizes, pooled, recorded, files = {}, {}, {}, {}
    for allowed in ("none", "same", "any"):
        folder = tmp_path / allowed
        fleet = rig(folder, pictures, allowed)
        update = fleet.run(TASK)["left"]
        assert isinstance(update, Update)
        assert update.blob is not None
        sizes[allowed], files[allowed] = update.blob.size, shared_files(update.blob)
        pooled[allowed] = decode_shared(update.blob, SHAPE, None)
        recorded[allowed] = (folder / "left/state/shared.txt").read_bytes()
        (path,) = (file.path for file in fleet.pool.files() if file.edge == "left")
        table = pq.read_table(path).to_pydict()
        assert table["is_file"] == list(map(bool, files[allowed]))
        rows = zip(table["sample"], table["is_file"], strict=True)
        assert [row for row, is_file in rows if is_file] == [*filter(None, files[allowed])]
    assert all(torch.equal(samples.inputs, pooled["none"].inputs) for samples in pooled.values())
    assert all(samples.labels.tolist() == pooled["none"].labels.tolist() for samples in pooled.values())
    assert len({*recorded.values()}) == 1, "the record of consent does not depend on the encoding"
    assert not any(files["none"])
    assert all(files["any"])
    assert sizes["any"] < sizes["same"] < sizes["none"]
    assert sizes["any"] < sizes["none"] / 3


def changed(change: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]) -> Any:
    """Change the tensors that a device shares, with matching hashes."""
    encoded = b""

    def tamper(kind: str, header: dict[str, Any], content: bytes) -> tuple[dict[str, Any], bytes]:
        nonlocal encoded
        if header.get("blob"):
            encoded = save(change(load(content)))
            blob = Blob(encoded, hashlib.sha256(encoded).hexdigest(), len(encoded))
            update = Update("left", "share", blob, (), {}, Cost())
            header["blob"] = describe(update, encoded).model_dump()
            return header, b""
        return ({}, encoded) if kind == "get" else (header, content)

    return tamper


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda own: own | {"digest": own["digest"] + 1}, "decode to other pixels than on the edge"),
        (lambda own: own | {"files": own["files"] ^ 1}, "shared image 1 of "),
        (lambda own: own | {"labels": own["labels"].repeat(9)}, "shared samples exceed the maximum"),
        (lambda own: own | {"labels": own["labels"] + 9}, "labels outside of 0 to 2"),
    ],
)
def test_hostile_files_are_refused_and_the_other_device_is_used(
    tmp_path: Path, pictures: Path, change: Any, message: str
) -> None:
    fleet = rig(tmp_path, pictures, "any", tamper={"left": changed(change)})
    results = fleet.run(TASK)
    assert message in absent(results["left"])
    assert isinstance(results["right"], Update)
    assert [file.edge for file in fleet.pool.files()] == ["right"]
