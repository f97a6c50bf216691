"""Fixtures of the tests of workers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tiny_site import MakeWorker, dataset, network

from sheaf.runtime.worker import Worker
from sheaf.training.network import Network


@pytest.fixture
def make_worker(tmp_path: Path) -> MakeWorker:
    """A site on 25 examples with 5 held out; made again, it finds what it held."""

    def make(name: str = "edge", shared: Network | None = None, held_out: int = 5) -> Worker:
        data = dataset()
        own = replace(data, train=data.train.select(torch.arange(held_out, 30)))
        kept = data.train.select(torch.arange(held_out))
        return Worker(name, shared or Network(network(), (1, 8, 8)), own, kept, tmp_path / name)

    return make
