"""Scores against scikit-learn's."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, precision_recall_fscore_support
from sklearn.metrics import confusion_matrix as sklearn_confusion

from sheaf.training.metrics import confusion_matrix, scores

K = 5
labelled = st.lists(st.tuples(st.integers(0, K - 1), st.integers(0, K - 1)), min_size=1, max_size=60)


def sklearn_scores(pairs: list[tuple[int, int]], average: str) -> list[float]:
    truth, predicted = zip(*pairs, strict=True)
    seen = sorted(set(truth))
    found = precision_recall_fscore_support(truth, predicted, labels=seen, average=average, zero_division=0)
    return list(found[:3])


@given(labelled, st.sets(st.integers(0, K - 1), min_size=1))
def test_they_are_those_of_scikit_learn(pairs: list[tuple[int, int]], own: set[int]) -> None:
    confusion = confusion_matrix(*torch.tensor(pairs).T, K)
    mask = torch.tensor([number in own for number in range(K)])
    for found, kept in (
        (lambda: scores(confusion), pairs),
        (lambda: scores(confusion, mask), [pair for pair in pairs if pair[0] in own]),
    ):
        if not kept:
            with pytest.raises(ValueError, match="no example of these classes"):
                found()
            continue
        got = found()
        precision, recall, f1 = sklearn_scores(kept, "weighted")
        assert got.precision == pytest.approx(precision)
        assert got.recall == pytest.approx(recall)
        assert got.f1 == pytest.approx(f1)
        assert got.macro_f1 == pytest.approx(sklearn_scores(kept, "macro")[2])
        assert got.accuracy == pytest.approx(accuracy_score(*zip(*kept, strict=True)))
        assert got.recall == pytest.approx(got.accuracy)
        assert got.examples == len(kept)


@given(labelled)
def test_rows_are_the_truth(pairs: list[tuple[int, int]]) -> None:
    confusion = confusion_matrix(*torch.tensor(pairs).T, K)
    assert confusion.dtype == torch.int64
    assert confusion.tolist() == sklearn_confusion(*zip(*pairs, strict=True), labels=range(K)).tolist()


def test_a_class_of_others_is_a_wrong_answer_too() -> None:
    confusion = torch.tensor([[3, 1], [5, 5]])
    own = scores(confusion, torch.tensor([True, False]))
    assert own.accuracy == 0.75
    assert own.precision == 1.0, "nobody else's example was taken for its own"
    assert own.examples == 4


def test_no_example_at_all() -> None:
    with pytest.raises(ValueError, match="no example"):
        scores(torch.zeros(3, 3, dtype=torch.int64))
