"""What crosses the seam between a method and its sites: a JSON header, and tensors as safetensors bytes.

Both engines send exactly this, so that a run in one process cannot lean on shared memory, and the byte
counts of a simulation are those of the real thing.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from sheaf.core.dataset import Samples
from sheaf.core.task import Task, Update
from sheaf.core.tensor_file import Blob

LARGEST_HEADER = 512
"""Bytes that the names and shapes of encoded samples stay below."""


def encode_header(header: Mapping[str, Any]) -> bytes:
    """The one JSON form of a header: sorted keys, no spaces."""
    return json.dumps(header, sort_keys=True, separators=(",", ":"), allow_nan=True).encode()


def message_bytes(message: Task | Update) -> int:
    """How many bytes a task or an update is on the wire."""
    return len(encode_header(message.header())) + (message.blob.size if message.blob else 0)


def task_digest(task: Task) -> str:
    """SHA-256 of everything that a task says, parameters included."""
    digest = hashlib.sha256(encode_header(task.header()))
    digest.update((task.blob.sha256 if task.blob else "").encode())
    return digest.hexdigest()


def encode_samples(samples: Samples) -> Blob:
    """Samples for the way up: the inputs as they lie in memory, and their labels."""
    return Blob.of({"inputs": samples.inputs[samples.positions], "labels": samples.labels})


def samples_within(limit: int, samples: Samples) -> int:
    """How many of ``samples`` are surely no more than ``limit`` bytes when encoded."""
    each = samples.inputs[:1].nbytes + samples.targets[:1].nbytes
    return (limit - LARGEST_HEADER) // each


def decode_samples(blob: Blob) -> Samples:
    """The samples that ``encode_samples`` was given."""
    tensors = blob.open()
    return Samples.of(tensors["inputs"], tensors["labels"])
