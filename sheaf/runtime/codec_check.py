"""Check a codec, which may be a user's, before anything is trained."""

from __future__ import annotations

from typing import Any

import torch

from sheaf.core import registry
from sheaf.core.errors import SettingError, first_line
from sheaf.core.seeds import generator

ROWS, COLUMNS = 3, 4


def check_codec(key: str, codec: Any) -> None:
    """Encode and decode a small matrix.

    Args:
        key: the setting that names the codec, for messages.
        codec: see ``core.coding.Codec``.

    Raises:
        SettingError: a method fails, or their results do not fit together.
    """
    where = f"{key} = {registry.name_of(codec)!r}"
    values = torch.linspace(-1.0, 1.0, ROWS * COLUMNS).view(ROWS, COLUMNS)
    try:
        bool(codec.feedback)
        expected = dict(codec.layout(ROWS, COLUMNS))
        parts = codec.encode(values, generator(0))
        layout = {name: (part.dtype, tuple(part.shape)) for name, part in parts.items()}
        decoded = codec.decode(parts, ROWS, COLUMNS)
        result = decoded.dtype, tuple(decoded.shape)
    except Exception as error:  # a user's codec raises errors of any type
        raise SettingError(
            f"{where}: the codec fails for a {ROWS} x {COLUMNS} matrix: {type(error).__name__}: "
            f"{first_line(error)}; see sheaf/core/coding.py for what a codec has"
        ) from error
    if layout != expected:
        raise SettingError(
            f"{where}: encode() returns {layout}, but layout() is {expected}; correct one of them"
        )
    if result != (torch.float32, (ROWS, COLUMNS)):
        raise SettingError(
            f"{where}: decode() returns {result[0]} {result[1]}, not torch.float32 {(ROWS, COLUMNS)}; "
            "correct it"
        )
