"""The pool of samples that devices shared in a run: one parquet file for each device and call.

Each row is one sample with its origin; shape and type of the samples are in the file's metadata.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from sheaf.core.errors import FleetError
from sheaf.core.task import Task, Update
from sheaf.core.wire_format import decode_samples


@dataclass(frozen=True)
class Pooled:
    """One file of the pool: what one device shared in one call."""

    path: Path
    edge: str
    call: int
    samples: int


class Pool:
    """The pool in one run's folder.

    Args:
        folder: made when the first samples arrive.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def take(self, task: Task, update: Update) -> None:
        """Keeps what a device shared; the same call again writes the same file."""
        assert update.blob is not None
        samples = decode_samples(update.blob)
        rows = [row.contiguous().numpy().tobytes() for row in samples.inputs]
        table = pa.table(
            {
                "sample": pa.array(rows, pa.binary()),
                "label": pa.array(samples.labels.tolist(), pa.int64()),
                "origin": pa.array([update.site] * len(rows)).dictionary_encode(),
            }
        )
        about = {
            "edge": update.site,
            "call": task.call,
            "shape": list(samples.inputs.shape[1:]),
            "dtype": str(samples.inputs.dtype).removeprefix("torch."),
        }
        self._folder.mkdir(parents=True, exist_ok=True)
        path = self._folder / f"{task.call:06d}-{update.site}.parquet"
        half = path.with_suffix(".part")
        pq.write_table(table.replace_schema_metadata({"sheaf": json.dumps(about)}), half)
        half.replace(path)

    def files(self) -> Iterator[Pooled]:
        """What there is, in the order of calls.

        Raises:
            FleetError: a file is damaged.
        """
        for path in sorted(self._folder.glob("*.parquet")):
            try:
                footer = pq.read_metadata(path)
                about = json.loads(footer.metadata[b"sheaf"])
                yield Pooled(path, about["edge"], about["call"], footer.num_rows)
            except (pa.ArrowException, OSError, ValueError, KeyError, TypeError) as error:
                raise FleetError(f"{path} is damaged: {error}") from error

    def remove(self, edge: str) -> int:
        """Deletes what came from a device; returns how many samples that were."""
        found = [pooled for pooled in self.files() if pooled.edge == edge]
        for pooled in found:
            pooled.path.unlink()
        return sum(pooled.samples for pooled in found)


def remove_from_run(run: Path, edge: str) -> int:
    """Deletes what came from a device, from a run's pool and from the journal of one that is unfinished.

    An unfinished run cannot be resumed then: its journal misses what it went on from.

    Raises:
        FleetError: nothing came from such a device.
    """
    pool = Pool(run / "pool")
    found = [pooled for pooled in pool.files() if pooled.edge == edge]
    if not found:
        raise FleetError(f"{run} holds no samples of {edge!r}")
    for pooled in found:
        (run / "journal" / f"{pooled.call:06d}-{edge}.safetensors").unlink(missing_ok=True)
    return pool.remove(edge)
