"""Messages between the processes of a run: a JSON object and named tensors, over torch.distributed.

A message is three transfers: the sizes of the next two, the JSON text, and the bytes of the tensors. Nothing
is unpickled.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from math import prod
from typing import Any

import torch
from torch import Tensor
from torch import distributed as dist


@dataclass(frozen=True)
class Message:
    """A message.

    Attributes:
        kind: what the receiver does with it.
        header: the rest of the JSON object.
        tensors: named CPU tensors.
    """

    kind: str
    header: dict[str, Any] = field(default_factory=dict)
    tensors: Mapping[str, Tensor] = field(default_factory=dict)


def send(rank: int, message: Message) -> None:
    """Send a message to a process.

    Raises:
        RuntimeError: the connection is closed.
    """
    # Tensors of larger numbers come first, so that each starts at a multiple of its number's size.
    names = sorted(message.tensors, key=lambda name: -message.tensors[name].element_size())
    listed = [(name, _dtype_name(message.tensors[name]), list(message.tensors[name].shape)) for name in names]
    text = json.dumps({"kind": message.kind, "tensors": listed, **message.header}).encode()
    flat = [message.tensors[name].detach().contiguous().reshape(-1).view(torch.uint8) for name in names]
    content = torch.cat(flat) if flat else torch.empty(0, dtype=torch.uint8)
    dist.send(torch.tensor([len(text), len(content)]), rank)
    dist.send(torch.frombuffer(bytearray(text), dtype=torch.uint8), rank)
    if len(content):
        dist.send(content, rank)


def receive(rank: int) -> Message:
    """Return the next message of a process; block until it arrives. The tensors share one memory.

    Raises:
        RuntimeError: the connection is closed.
    """
    sizes = torch.empty(2, dtype=torch.int64)
    dist.recv(sizes, rank)
    text, content = (torch.empty(size, dtype=torch.uint8) for size in sizes.tolist())
    dist.recv(text, rank)
    if len(content):
        dist.recv(content, rank)
    header = json.loads(text.numpy().tobytes())
    tensors, at = {}, 0
    for name, dtype_name, shape in header.pop("tensors"):
        dtype = getattr(torch, dtype_name)
        size = dtype.itemsize * prod(shape)
        tensors[name] = content[at : at + size].view(dtype).view(shape)
        at += size
    return Message(header.pop("kind"), header, tensors)


def prefixed(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors with a prefix and a space before their names, for a message of several groups."""
    return {f"{prefix} {name}": value for name, value in tensors.items()}


def with_prefix(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors that ``prefixed`` named by this prefix, under their own names."""
    start = f"{prefix} "
    return {name.removeprefix(start): value for name, value in tensors.items() if name.startswith(start)}


def _dtype_name(value: Tensor) -> str:
    return str(value.dtype).removeprefix("torch.")
