"""The commands print names that look like rich markup as they are."""

from __future__ import annotations

import io
import subprocess
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

Sheaf = Callable[..., "subprocess.CompletedProcess[str]"]
CLASSES = ("[silence]", "[/INST]", ":dog:")


def png(value: int) -> bytes:
    file = io.BytesIO()
    Image.new("L", (8, 8), value).save(file, "PNG")
    return file.getvalue()


def test_class_and_file_names(sheaf: Sheaf, tmp_path: Path) -> None:
    (tmp_path / "[set]").mkdir()
    images = [png(10 * number) for number in range(24)]
    table = pa.table({"image": images, "label": [CLASSES[number % 3] for number in range(24)]})
    for split in ("train", "test"):
        pq.write_table(table, tmp_path / "[set]" / f"{split}.parquet")
    changes = ["data.name=./[set]", "partition.edges=[[0,1],[2]]"]
    changes += [f"method.{recipe}.epochs=1" for recipe in ("pretrain", "finetune", "retrain")]
    options = [word for change in changes for word in ("--set", change)]
    dry = sheaf("run", "ecavg-digits", *options, "--dry-run")
    assert dry.returncode == 0, dry.stderr
    assert all(name in dry.stdout for name in CLASSES)
    done = sheaf("run", "ecavg-digits", *options, "--out", "[run]")
    assert done.returncode == 0, done.stderr
    assert "on ./[set], seed" in done.stdout
    assert "folder: [run]" in done.stdout
    (tmp_path / "[bold]1.png").write_bytes(images[1])
    predicted = sheaf("predict", "[run]", "[bold]1.png")
    assert predicted.returncode == 0, predicted.stderr
    assert "[bold]1.png" in predicted.stdout
    assert any(name in predicted.stdout for name in CLASSES)
    refused = sheaf("show", "[/nowhere]")
    assert refused.returncode == 2
    assert "[/nowhere]" in refused.stderr
