"""Mini-batches: every example once an epoch, none alone."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from sheaf.core.dataset import Samples
from sheaf.core.recipe import Recipe
from sheaf.core.seeds import generator
from sheaf.training.batches import Job, batch_sizes, batches
from sheaf.training.preparation import Preparation


@given(st.integers(0, 500), st.integers(1, 70))
def test_batches_hold_every_example_and_never_one_alone(n: int, batch_size: int) -> None:
    sizes = batch_sizes(n, batch_size)
    assert sum(sizes) == n
    assert all(size == batch_size for size in sizes[:-1])
    assert all(0 < size <= batch_size + 1 for size in sizes)
    assert 1 not in sizes or n == 1 or batch_size == 1


@given(st.integers(1, 60), st.integers(1, 20), st.integers(0, 9))
def test_an_epoch_contains_each_example_once(n: int, batch_size: int, seed: int) -> None:
    pool = Samples.of(torch.arange(100).view(100, 1, 1, 1), torch.arange(100))
    part = pool.select(torch.randperm(100, generator=generator(seed))[:n])
    recipe, unchanged = Recipe(batch_size=batch_size), Preparation((0.0,), (1.0,), torch.device("cpu"))
    steps = list(batches([Job({}, part, seed)], recipe, unchanged, lambda longest: longest))
    assert [labels.shape for _, labels in steps] == [(1, size) for size in batch_sizes(n, batch_size)]
    for inputs, labels in steps:
        torch.testing.assert_close(inputs.flatten(), labels.flatten() / 1.0)
    assert sorted(label for _, labels in steps for label in labels.flatten().tolist()) == sorted(
        part.labels.tolist()
    )
