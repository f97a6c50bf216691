"""Model cards: written and read without loss; invalid ones are errors of one line."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import one_line

from sheaf.core.cut import Cut
from sheaf.core.dataset import Sound
from sheaf.core.errors import ModelFileError
from sheaf.models.build import ModelSettings
from sheaf.models.card import Card

CARD = Card(
    classes=("cat", "dog", "owl"),
    in_shape=(3, 8, 9),
    mean=(0.5, 0.4, 0.3),
    std=(0.2, 0.2, 0.1),
    inputs="image",
    model=ModelSettings(name="mlp", options={"hidden": 16}),
)


@given(
    classes=st.lists(st.text(min_size=1), min_size=1, max_size=5, unique=True),
    numbers=st.lists(st.floats(-10, 10), min_size=3, max_size=3),
    rows=st.none() | st.just((0,)),
    other=st.booleans(),
    source=st.none() | st.dictionaries(st.text(), st.integers() | st.text() | st.none()),
)
def test_a_card_is_written_and_read_without_loss(
    classes: list[str],
    numbers: list[float],
    rows: tuple[int, ...] | None,
    other: bool,
    source: dict[str, object] | None,
) -> None:
    card = replace(
        CARD,
        classes=tuple(classes),
        mean=tuple(numbers),
        cut=Cut((("fc1", ((0, 3), (5, 6))),), rows, other).header(),
        other=other,
        source=source,
    )
    metadata = card.metadata()
    assert all(isinstance(text, str) for text in metadata.values())
    assert Card.of(metadata | {"made-by": "someone"}, "there") == card
    assert card.outputs == (tuple(classes) if rows is None else (classes[0],))
    assert card.of_graph().classes == card.outputs
    assert card.of_graph().cut is None


def test_the_conversion_of_sounds_is_written_and_read() -> None:
    card = replace(CARD, inputs="sound", sound=Sound(rate=8000, seconds=1.0))
    assert Card.of(card.metadata(), "there") == card


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"classes": None}, "classes"),
        ({"classes": "cat"}, "not JSON"),
        ({"in_shape": "[3, 0, 9]"}, "in_shape"),
        ({"in_shape": "[3, 8, 900000]"}, "in_shape"),
        ({"mean": "[0.5]"}, "mean and std must have 3 values"),
        ({"std": "[0.2, 0.2, 0]"}, "std"),
        ({"std": "[0.2, 0.2, NaN]"}, "std"),
        ({"inputs": '"film"'}, "inputs"),
        ({"inputs": '"sound"'}, "sound must be set if and only if"),
        ({"model": '{"nam": "mlp"}'}, "model"),
    ],
)
def test_an_invalid_card_is_an_error(change: dict[str, str | None], message: str) -> None:
    metadata = {key: text for key, text in (CARD.metadata() | change).items() if text is not None}
    with pytest.raises(ModelFileError) as error:
        Card.of(metadata, "there.onnx")
    assert message in one_line(error)
    assert "there.onnx" in one_line(error)


def test_the_options_of_the_model_are_written() -> None:
    assert json.loads(CARD.metadata()["model"]) == {"name": "mlp", "frozen": 0, "options": {"hidden": 16}}
