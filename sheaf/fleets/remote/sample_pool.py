"""The pool of samples that devices share in a run: one parquet file per device and call.

Each row contains one sample, its label and its device. A sample is a JPEG or PNG file, or the values of a
tensor, whose shape and dtype are in the metadata of the parquet file.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from sheaf.core.dataset import Samples
from sheaf.core.errors import FleetError
from sheaf.core.optional_imports import needs
from sheaf.core.task import Task, Update
from sheaf.data.shared_samples import shared_files

with needs("cloud"):
    import pyarrow as pa
    import pyarrow.parquet as pq


@dataclass(frozen=True)
class PoolFile:
    """One file of the pool.

    Attributes:
        path: the file.
        edge: name of the device that shared the samples.
        call: number of the call.
        samples: number of samples.
    """

    path: Path
    edge: str
    call: int
    samples: int


class Pool:
    """The sample pool of one run.

    Args:
        folder: created with the first file.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def add(self, task: Task, update: Update, samples: Samples) -> None:
        """Write the samples of an update to a file; the same call overwrites the same file."""
        assert update.blob is not None
        files = shared_files(update.blob)
        pairs = zip(files, samples.inputs, strict=True)
        rows = [content or row.contiguous().numpy().tobytes() for content, row in pairs]
        table = pa.table(
            {
                "sample": pa.array(rows, pa.binary()),
                "is_file": pa.array(list(map(bool, files)), pa.bool_()),
                "label": pa.array(samples.labels.tolist(), pa.int64()),
                "origin": pa.array([update.site] * len(rows)).dictionary_encode(),
            }
        )
        metadata = {
            "edge": update.site,
            "call": task.call,
            "shape": list(samples.inputs.shape[1:]),
            "dtype": str(samples.inputs.dtype).removeprefix("torch."),
        }
        self._folder.mkdir(parents=True, exist_ok=True)
        path = self._folder / f"{task.call:06d}-{update.site}.parquet"
        partial = path.with_suffix(".part")
        pq.write_table(table.replace_schema_metadata({"sheaf": json.dumps(metadata)}), partial)
        partial.replace(path)

    def files(self) -> Iterator[PoolFile]:
        """Yield the files in the order of calls.

        Raises:
            FleetError: a file is damaged.
        """
        for path in sorted(self._folder.glob("*.parquet")):
            try:
                footer = pq.read_metadata(path)
                metadata = json.loads(footer.metadata[b"sheaf"])
                yield PoolFile(path, metadata["edge"], metadata["call"], footer.num_rows)
            except (pa.ArrowException, OSError, ValueError, KeyError, TypeError) as error:
                raise FleetError(f"{path} is damaged: {error}; delete it") from error

    def remove(self, edge: str) -> int:
        """Delete the samples of a device and return their number."""
        files = [file for file in self.files() if file.edge == edge]
        for file in files:
            file.path.unlink()
        return sum(file.samples for file in files)


def remove_from_run(run: Path, edge: str) -> int:
    """Delete the samples of a device from a run's pool and journal; return their number.

    An unfinished run cannot be resumed afterwards: its journal lacks an update.

    Raises:
        FleetError: the run has no samples of this device.
    """
    pool = Pool(run / "pool")
    files = [file for file in pool.files() if file.edge == edge]
    if not files:
        raise FleetError(f"{run} holds no samples of {edge!r}; list them with: sheaf cloud pool ls {run}")
    for file in files:
        (run / "journal" / f"{file.call:06d}-{edge}.safetensors").unlink(missing_ok=True)
    return pool.remove(edge)
