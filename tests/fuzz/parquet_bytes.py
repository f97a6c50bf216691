"""Parquet shards."""

from __future__ import annotations

import io
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from fuzz.engine import Harness, mutated

from sheaf.data.readers.parquet import read_splits

STRUCT = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def seeds() -> list[bytes]:
    """Return shards with columns of several types, encodings and compressions."""
    files = [b"\x89PNG first", b"\x89PNG second", b"\x89PNG third"]
    cells = pa.array([{"bytes": file, "path": "x"} for file in files], STRUCT)
    metadata = {"info": {"features": {"label": {"names": ["a", "b"], "_type": "ClassLabel"}}}}
    tables: list[tuple[pa.Table, dict[str, Any]]] = [
        (pa.table({"image": cells, "label": pa.array([0, 1, 0])}), {}),
        (pa.table({"image": cells, "label": pa.array(["a", "b", "a"])}), {"compression": "none"}),
        (pa.table({"image": pa.array(files), "label": pa.array([0, 1, None])}), {"row_group_size": 1}),
        (
            pa.table({"image": pa.array(files), "label": pa.array(["a", "b", "a"]).dictionary_encode()}),
            {"compression": "zstd", "version": "1.0"},
        ),
    ]
    first = tables[0][0].replace_schema_metadata({"huggingface": json.dumps(metadata)})
    contents = []
    for table, options in [(first, {"compression": "gzip"}), *tables]:
        file = io.BytesIO()
        pq.write_table(table, file, **options)
        contents.append(file.getvalue())
    return contents


def read(content: bytes) -> None:
    """Read the shard as training and as test split."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "train-0.parquet")
        path.write_bytes(content)
        encoded = read_splits(Path(folder), {"train": [path], "test": [path]})
        for split in (encoded.train, encoded.test):
            items = list(split.items(np.arange(len(split.labels))))
            assert all(isinstance(file, bytes) for _, file in items)
            assert len(items) == len(split.labels)


HARNESS = Harness(mutated(seeds()), read)
