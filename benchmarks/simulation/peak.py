"""The physical limit: multiply-adds of a job's training against the measured peak of the machine."""

from __future__ import annotations

import time

import torch

from sheaf.experiments.setup import ExperimentSetup

SIZE = 512
"""Rows and columns of the two float32 matrices whose product measures the peak."""

PRODUCTS, TRIES = 20, 10


def peak_macs_per_second(threads: int, device: str) -> float:
    """Return the multiply-adds per second of the fastest series of products on this number of threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    a, b = torch.randn(2, SIZE, SIZE, device=device)
    product = a @ b
    seconds = []
    for _ in range(TRIES):
        _wait(device)
        began = time.perf_counter()
        for _ in range(PRODUCTS):
            torch.mm(a, b, out=product)
        _wait(device)
        seconds.append(time.perf_counter() - began)
    torch.set_num_threads(before)
    return PRODUCTS * SIZE**3 / min(seconds)


def training_macs(prepared: ExperimentSetup, rounds: int) -> int:
    """Return the multiply-adds of one epoch on all edges' examples in each round, without evaluation."""
    examples = sum(len(train) for train, _ in prepared.edge_samples.values())
    return rounds * examples * prepared.network.macs().train


def _wait(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()
