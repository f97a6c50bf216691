"""Mini-batches: every example once an epoch, none alone."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import accumulate, pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from sheaf.core.dataset import Samples
from sheaf.core.recipe import Recipe
from sheaf.core.seeds import generator
from sheaf.training.batches import Job, batch_sizes, batches, examples_of, steps_of
from sheaf.training.preparation import Preparation
from sheaf.training.step import PADDING


@given(st.integers(0, 500), st.integers(1, 70))
def test_batches_hold_every_example_and_never_one_alone(n: int, batch_size: int) -> None:
    sizes = batch_sizes(n, batch_size)
    assert sum(sizes) == n
    assert all(size == batch_size for size in sizes[:-1])
    assert all(0 < size <= batch_size + 1 for size in sizes)
    assert 1 not in sizes or n == 1 or batch_size == 1


def one_by_one(chunks: Iterator[tuple[Tensor, Tensor]]) -> list[tuple[Tensor, Tensor]]:
    return [step for x, labels in chunks for step in zip(x, labels, strict=True)]


@given(st.integers(1, 60), st.integers(1, 20), st.integers(0, 9))
def test_an_epoch_contains_each_example_once(n: int, batch_size: int, seed: int) -> None:
    pool = Samples.of(torch.arange(100).view(100, 1, 1, 1), torch.arange(100))
    part = pool.select(torch.randperm(100, generator=generator(seed))[:n])
    recipe, unchanged = Recipe(batch_size=batch_size), Preparation((0.0,), (1.0,), torch.device("cpu"))
    steps = one_by_one(batches([Job({}, part, seed)], recipe, unchanged, lambda longest: longest))
    assert [labels.shape for _, labels in steps] == [(1, size) for size in batch_sizes(n, batch_size)]
    for inputs, labels in steps:
        torch.testing.assert_close(inputs.flatten(), labels.flatten() / 1.0)
    assert sorted(label for _, labels in steps for label in labels.flatten().tolist()) == sorted(
        part.labels.tolist()
    )


@pytest.mark.parametrize("augmented", [False, True])
def test_a_job_has_the_same_batches_alone_and_beside_another(augmented: bool) -> None:
    pool = Samples.of(torch.rand(30, 2, 4, 4), torch.arange(30))
    recipe = Recipe(epochs=2, batch_size=4, augment=("flip", "crop") if augmented else ())
    unchanged = Preparation((0.0, 0.0), (1.0, 1.0), torch.device("cpu"))
    job, other = Job({}, pool.select(torch.arange(11)), 1), Job({}, pool.select(torch.arange(11, 21)), 2)
    alone = one_by_one(batches([job], recipe, unchanged, lambda longest: max(6, longest)))
    beside = one_by_one(batches([job, other], recipe, unchanged, lambda longest: max(6, longest)))
    for (x, labels), (x_of_two, labels_of_two) in zip(alone, beside, strict=True):
        real = labels[0] != PADDING
        assert torch.equal(labels[0], labels_of_two[0])
        assert torch.equal(x[0, real], x_of_two[0, real])


@given(st.integers(0, 60), st.integers(1, 20), st.integers(0, 3), st.floats(0.01, 1))
def test_work_ends_training_after_a_fraction_of_the_mini_batches(
    n: int, batch_size: int, epochs: int, work: float
) -> None:
    pool = Samples.of(torch.arange(60).view(60, 1, 1, 1), torch.arange(60))
    unchanged = Preparation((0.0,), (1.0,), torch.device("cpu"))
    job, recipe = Job({}, pool.select(torch.arange(n)), 0), Recipe(epochs=epochs, batch_size=batch_size)
    whole = list(batches([job], recipe, unchanged, lambda longest: longest))
    less = Recipe(epochs=epochs, batch_size=batch_size, work=work)
    part = list(batches([job], less, unchanged, lambda longest: longest))
    assert len(part) == steps_of(less, n)
    assert len(part) - 1 < work * len(whole) <= len(part) + 1e-6
    assert sum(labels.numel() for _, labels in part) == examples_of(less, n)
    assert all(torch.equal(one[1], other[1]) for one, other in zip(part, whole, strict=False))


def test_several_batches_at_once_are_those_one_by_one() -> None:
    pool = Samples.of(torch.rand(90, 2, 4, 4), torch.arange(90))
    recipe, unchanged = Recipe(epochs=3, batch_size=4), Preparation((0.0,), (1.0,), torch.device("cpu"))
    jobs = [Job({}, pool.select(torch.arange(start, stop)), start) for start, stop in ((0, 49), (49, 90))]
    for sites in (jobs, jobs[:1]):
        apart = one_by_one(batches(sites, recipe, unchanged, lambda longest: longest, 1))
        chunks = list(batches(sites, recipe, unchanged, lambda longest: longest, 16))
        assert [len(x) for x, _ in chunks] != [1] * len(apart)
        ends = list(accumulate(len(x) for x, _ in chunks))
        assert all(start // 16 == (stop - 1) // 16 for start, stop in pairwise([0, *ends]))
        for together, step in zip(one_by_one(iter(chunks)), apart, strict=True):
            assert all(map(torch.equal, together, step))
