"""Codecs of users: mistakes are one line, before anything is trained."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from support import one_line
from torch import Tensor

from sheaf.core import registry
from sheaf.core.errors import SettingError
from sheaf.core.settings import settings
from sheaf.runtime.codec_check import check_codec


@settings
class Halves:
    """Half-precision values, as in docs/extend.md."""

    feedback = False

    def layout(self, rows: int, columns: int) -> Any:
        return {"v": (torch.float16, (rows, columns))}

    def encode(self, values: Tensor, draws: torch.Generator) -> dict[str, Tensor]:
        return {"v": values.half()}

    def decode(self, parts: dict[str, Tensor], rows: int, columns: int) -> Tensor:
        return parts["v"].float()


class WithoutFeedback:
    encode = layout = decode = None


class OtherLayout(Halves):
    def layout(self, rows: int, columns: int) -> Any:
        return {"v": (torch.float16, (rows,))}


class OtherType(Halves):
    def decode(self, parts: dict[str, Tensor], rows: int, columns: int) -> Tensor:
        return parts["v"]


class Failing(Halves):
    def encode(self, values: Tensor, draws: torch.Generator) -> dict[str, Tensor]:
        raise ZeroDivisionError("two\nlines")


@pytest.mark.parametrize("name", registry.describe("codecs"))
def test_every_shipped_codec_passes(name: str) -> None:
    check_codec("fleet.upload", registry.load("codecs", name)())


def test_a_users_codec_passes() -> None:
    check_codec("fleet.upload", Halves())


@pytest.mark.parametrize(
    ("codec", "why"),
    [
        (WithoutFeedback(), "no attribute 'feedback'"),
        (OtherLayout(), "but layout() is {'v': (torch.float16, (3,))}"),
        (OtherType(), "decode() returns torch.float16 (3, 4), not torch.float32 (3, 4)"),
        (Failing(), "fails for a 3 x 4 matrix: ZeroDivisionError: two; see"),
    ],
)
def test_a_mistake_is_one_line(codec: Any, why: str) -> None:
    with pytest.raises(SettingError) as error:
        check_codec("fleet.upload", codec)
    assert one_line(error).startswith("fleet.upload = ")
    assert why in one_line(error)
