"""Messages: their digest, their size, and encoded samples."""

from __future__ import annotations

import json
from dataclasses import fields, replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sheaf.core.coding import Coding
from sheaf.core.cut import Cut
from sheaf.core.dataset import Samples
from sheaf.core.recipe import Recipe, Ridge, Share, Statistic
from sheaf.core.task import Cost, Task, Update
from sheaf.core.tensor_file import Blob
from sheaf.core.wire_format import decode_samples, encode_header, encode_samples, message_bytes, task_digest

CUT = Cut((("conv", ((0, 3),)),), (1, 4))
TASK = Task(
    "train",
    3,
    17,
    Blob.of({"w": torch.ones(3)}),
    Recipe(augment=("flip",)),
    CUT,
    share=Share(fraction=0.5),
    outliers=0.1,
)
UPDATE = Update(
    "edge-1", "train", TASK.blob, (3, 0, 5), {"losses": [0.1, float("inf")]}, Cost(7, 0.25, 9, 11, 13)
)

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.text(), json_values, max_size=5), st.randoms(use_true_random=False))
def test_a_header_has_one_encoding(header: dict[str, object], random) -> None:
    keys = list(header)
    random.shuffle(keys)
    encoded = encode_header(header)
    assert encoded == encode_header({key: header[key] for key in keys})
    assert json.loads(encoded) == header
    assert b"\n" not in encoded  # a header is one line of the journal


def test_the_size_of_a_message_is_its_header_and_its_tensors() -> None:
    assert TASK.blob is not None
    assert message_bytes(TASK) == len(encode_header(TASK.header())) + TASK.blob.size
    assert message_bytes(replace(TASK, blob=None)) == len(encode_header(TASK.header()))
    assert message_bytes(UPDATE) == len(encode_header(UPDATE.header())) + TASK.blob.size


CHANGES: list[dict[str, object]] = [
    {"kind": "evaluate"},
    {"call": 4},
    {"seed": 18},
    {"blob": None},
    {"blob": Blob.of({"w": torch.zeros(3)})},
    {"recipe": None},
    {"recipe": Recipe(lr=0.002, augment=("flip",))},
    {"recipe": Recipe()},
    {"cut": None},
    {"cut": replace(CUT, kept=(("conv", ((0, 2), (3, 4))),))},
    {"cut": replace(CUT, classes=None)},
    {"cut": replace(CUT, other=True)},
    {"reply": False},
    {"outliers": 0.2},
    {"share": Share(fraction=0.25)},
    {"share": None},
    {"refit": Ridge()},
    {"since": 2},
    {"baseline": 2},
    {"statistic": Statistic("gram")},
    {"mixtures": (0.5, 1.0)},
    {"continues": True},
    {"coding": Coding(base=3)},
    {"blocks": (CUT,)},
]
"""Tasks that differ from ``TASK`` in one field."""


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: next(iter(change)))
def test_every_field_of_a_task_is_in_its_digest(change: dict[str, object]) -> None:
    assert task_digest(replace(TASK, **change)) != task_digest(TASK)  # type: ignore[arg-type]
    assert task_digest(replace(TASK)) == task_digest(TASK)


def test_the_changes_cover_every_field() -> None:
    assert {name for change in CHANGES for name in change} == {field.name for field in fields(Task)}


def test_the_place_of_the_tensors_is_not_in_the_digest(tmp_path) -> None:
    assert TASK.blob is not None
    assert task_digest(replace(TASK, blob=TASK.blob.write(tmp_path / "w"))) == task_digest(TASK)


def test_an_update_is_restored_from_its_header_and_tensors() -> None:
    header = json.loads(encode_header(UPDATE.header()))
    assert Update.of(header, UPDATE.blob) == UPDATE
    assert UPDATE.examples == 8
    with pytest.raises(ValueError, match="edge-1's answer to train carries no parameters"):
        _ = replace(UPDATE, blob=None).params


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
@pytest.mark.parametrize("chosen", [[], [4], [5, 0, 2]])
def test_decoding_samples_inverts_encoding(dtype: torch.dtype, chosen: list[int]) -> None:
    inputs = torch.arange(6 * 2 * 3 * 3).view(6, 2, 3, 3).to(dtype)
    samples = Samples.of(inputs, torch.arange(6)).select(torch.tensor(chosen, dtype=torch.int64))
    back = decode_samples(encode_samples(samples))
    assert back.inputs.dtype == dtype
    assert torch.equal(back.inputs, inputs[chosen])
    assert back.labels.tolist() == chosen
    assert len(back) == len(chosen)
