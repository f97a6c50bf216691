"""Parse TOML: with the standard library, or on Python 3.10 with tomli."""

from __future__ import annotations

import sys
from typing import Any

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

DecodeError = tomllib.TOMLDecodeError
"""Raised by ``loads`` for a text that is not TOML; a ``ValueError``."""


def loads(text: str) -> dict[str, Any]:
    """Return the table that ``text`` describes.

    Raises:
        DecodeError: ``text`` is not TOML.
    """
    table: dict[str, Any] = tomllib.loads(text)
    return table
