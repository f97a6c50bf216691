"""Fixtures that write small images and parquet shards in the layout of the Hub."""

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image


def png(value: int = 0, size: tuple[int, int] = (4, 4), mode: str = "L") -> bytes:
    file = io.BytesIO()
    colour: Any = value if mode == "L" else (value,) * 3
    Image.new(mode, size, colour).save(file, "PNG")
    return file.getvalue()


@pytest.fixture(name="png")
def png_fixture() -> Callable[..., bytes]:
    return png


@pytest.fixture
def shard() -> Callable[..., Path]:
    def write(
        path: Path,
        labels: list[Any],
        names: list[str] | None = None,
        images: list[bytes | None] | None = None,
        label: str = "label",
        kind: pa.DataType | None = None,
        **options: Any,
    ) -> Path:
        images = images or [png(10 * row) for row in range(len(labels))]
        cells = [{"bytes": data, "path": "../../etc/passwd"} for data in images]
        table = pa.table(
            {
                "id": np.arange(len(labels)),
                "picture": pa.array(cells, pa.struct([("bytes", pa.binary()), ("path", pa.string())])),
                label: pa.array(labels, kind or pa.int64()),
            }
        )
        if names is not None:
            features = {label: {"names": names, "_type": "ClassLabel"}}
            table = table.replace_schema_metadata(
                {"huggingface": json.dumps({"info": {"features": features}})}
            )
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(table, path, **options)
        return path

    return write


@pytest.fixture
def folder(tmp_path: Path, shard: Callable[..., Path]) -> Path:
    """Write a dataset of 5 + 2 training rows and two test rows."""
    names = ["cat", "dog"]
    shard(tmp_path / "data/train-00000-of-00002.parquet", [0, 1, 0, 1, 1], names, row_group_size=2)
    shard(tmp_path / "data/train-00001-of-00002.parquet", [1, 0], names)
    shard(tmp_path / "data/test-00000-of-00001.parquet", [1, 0], names)
    return tmp_path
