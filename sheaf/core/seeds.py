"""Seeds and generators. Every random draw has a seed derived from names; no draw uses a global generator."""

from __future__ import annotations

import contextlib
import hashlib
import random
from collections.abc import Iterator

import numpy as np
import torch


def seed_for(run: int, *names: str | int) -> int:
    """Return the seed for one purpose in one run, such as ``seed_for(seed, "call", 3, "edge-1")``.

    Different names give independent seeds, so the order in which sites run does not matter.

    Returns:
        An integer from 0 up to, but excluding, 2**63.
    """
    text = "\x1f".join([str(run), *map(str, names)])
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1


def generator(seed: int) -> torch.Generator:
    """Return a new CPU generator with this seed."""
    return torch.Generator().manual_seed(seed)


@contextlib.contextmanager
def global_draws_from(seed: int, device: torch.device | None = None) -> Iterator[None]:
    """Seed the global generators of torch, Python and numpy inside the block.

    For initialisation, dropout and the like. Afterwards the generators are in their former state, except
    that of MPS.
    """
    cuda = device is not None and device.type == "cuda"
    with torch.random.fork_rng(devices=[device] if cuda else []), _python_draws():
        seed_global_draws(seed)
        if cuda:
            torch.cuda.manual_seed(seed)
        elif device is not None and device.type == "mps":
            torch.mps.manual_seed(seed)
        yield


def seed_global_draws(seed: int) -> None:
    """Seed the global CPU generators of torch, Python and numpy; users' models may draw from each."""
    torch.default_generator.manual_seed(seed)
    random.seed(seed)
    np.random.seed(seed % 2**32)


@contextlib.contextmanager
def _python_draws() -> Iterator[None]:
    """Restore the global generators of Python and numpy after the block."""
    of_python, of_numpy = random.getstate(), np.random.get_state()
    try:
        yield
    finally:
        random.setstate(of_python)
        np.random.set_state(of_numpy)
