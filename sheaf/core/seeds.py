"""Where every random draw comes from: a seed derived from names, never a global generator."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator

import torch


def seed_for(run: int, *names: str | int) -> int:
    """The seed of one purpose in one run, such as ``seed_for(seed, "call", 3, "edge-1")``.

    Returns a non-negative integer below 2**63. Different names give independent seeds, and the order
    in which sites happen to be served has no part in it.
    """
    text = "\x1f".join([str(run), *map(str, names)])
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1


def generator(seed: int) -> torch.Generator:
    """A CPU generator of its own, started from ``seed``."""
    return torch.Generator().manual_seed(seed)


@contextlib.contextmanager
def global_draws_from(seed: int, device: torch.device | None = None) -> Iterator[None]:
    """Lets code that only knows torch's global generator (layer initialisation, dropout) draw from ``seed``.

    The generators of the CPU and of a CUDA ``device`` are as they were afterwards.
    """
    cuda = device is not None and device.type == "cuda"
    with torch.random.fork_rng(devices=[device] if cuda else []):
        torch.default_generator.manual_seed(seed)
        if cuda:
            torch.cuda.manual_seed(seed)
        elif device is not None and device.type == "mps":
            torch.mps.manual_seed(seed)
        yield
