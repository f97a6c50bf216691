"""The encoding of messages between a method and its sites: a JSON header, and tensors as safetensors bytes.

The local and the real fleet use the same encoding. So a run in one process cannot rely on shared memory, and
the byte counts of a simulation are those of a real fleet.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import xxhash

from sheaf.core.dataset import Samples
from sheaf.core.task import Task, Update
from sheaf.core.tensor_file import Blob

LARGEST_HEADER = 512
"""Upper bound in bytes for the names and shapes of encoded samples."""


_ENCODER = json.JSONEncoder(sort_keys=True, separators=(",", ":"), allow_nan=True)


def encode_header(header: Mapping[str, Any]) -> bytes:
    """Encode a header as canonical JSON: sorted keys, no spaces."""
    return _ENCODER.encode(header).encode()


def encoded_header(message: Task | Update) -> bytes:
    """Return the encoded header of a task or update, encoded once for every object."""
    encoded: bytes | None = vars(message).get("_encoded_header")
    if encoded is None:
        encoded = vars(message)["_encoded_header"] = encode_header(message.header())
    return encoded


def message_bytes(message: Task | Update) -> int:
    """Return the size of an encoded task or update in bytes. Encodes no tensors."""
    return len(encoded_header(message)) + (message.blob.size if message.blob else 0)


def task_digest(task: Task) -> str:
    """Return a hash of a task, including its parameters."""
    digest = xxhash.xxh3_128(encoded_header(task))
    digest.update((task.blob.key if task.blob else "").encode())
    return digest.hexdigest()


def encode_samples(samples: Samples) -> Blob:
    """Encode the inputs, in the type that they have in memory, and the labels."""
    return Blob.of({"inputs": samples.inputs[samples.positions], "labels": samples.labels})


def samples_within(limit: int, samples: Samples) -> int:
    """Return how many of ``samples`` fit into ``limit`` bytes when encoded."""
    sample_bytes = samples.inputs[:1].nbytes + samples.targets[:1].nbytes
    return (limit - LARGEST_HEADER) // sample_bytes


def count_samples(blob: Blob | None) -> int:
    """Return the number of samples in a blob from ``encode_samples``; 0 for None."""
    return 0 if blob is None else len(blob.open(lambda name: name == "labels")["labels"])


def decode_samples(blob: Blob) -> Samples:
    """Decode the samples from ``encode_samples``."""
    tensors = blob.open()
    return Samples.of(tensors["inputs"], tensors["labels"])
