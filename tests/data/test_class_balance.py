"""Balanced selection: ranks within classes, and the first examples of each class."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sheaf.data.class_balance import draw_test_split, first_of_each_class, rank_in_class


@given(st.lists(st.integers(0, 5), max_size=60))
def test_the_rank_counts_the_earlier_examples_of_the_class(labels: list[int]) -> None:
    expected = [labels[:position].count(label) for position, label in enumerate(labels)]
    assert rank_in_class(np.array(labels, np.int64)).tolist() == expected


@pytest.mark.parametrize(
    ("limit", "positions"),
    [
        (None, [0, 1, 2, 3, 4, 5]),
        (2, [0, 3]),
        (3, [0, 1, 3]),
        (4, [0, 1, 3, 5]),
        (5, [0, 1, 2, 3, 5]),
        (9, range(6)),
    ],
)
def test_the_first_of_each_class_in_equal_numbers(limit: int | None, positions: list[int]) -> None:
    labels = np.array([0, 0, 0, 1, 0, 1])
    assert first_of_each_class(labels, limit).tolist() == list(positions)


def test_the_drawn_test_split_has_an_example_of_every_class_of_two() -> None:
    labels = np.array([0] * 50 + [1] * 2 + [2])
    is_test = draw_test_split(labels, 0.2)
    assert np.bincount(labels[is_test], minlength=3).tolist() == [10, 1, 0]
    assert np.array_equal(is_test, draw_test_split(labels, 0.2))
