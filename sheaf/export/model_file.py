"""Models as files that are used far from where they were trained: written, and read again."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from sheaf.core.errors import ModelFileError, UnknownNameError
from sheaf.models.card import Card

FORMATS = tuple(sorted(file.stem for file in Path(__file__).with_name("formats").glob("[!_]*.py")))
"""How such files' names end; ``formats/NAME.py`` has ``write`` and ``read``."""


@dataclass(frozen=True)
class Opened:
    """A model ready to be used.

    Attributes:
        card: what it is for.
        logits: (N, C, H, W) of ``card.dtype``, as files are decoded -> (N, classes) float32.
    """

    card: Card
    logits: Callable[[Tensor], Tensor]


def format_of(name: str) -> Any:
    """The module that writes and reads files which end in ``.NAME``.

    Raises:
        UnknownNameError: there is none.
        MissingExtraError: it needs a library that is not installed.
    """
    if name not in FORMATS:
        raise UnknownNameError("format", name, FORMATS)
    return importlib.import_module(f"sheaf.export.formats.{name}")


def open_file(path: Path, trust: bool = False) -> Opened:
    """The model in an exported file.

    Args:
        path: ends in .onnx, .pt2 or .safetensors.
        trust: whether code may run that the file names or brings.

    Raises:
        ModelFileError: there is no such file, it is damaged or not of sheaf's writing, or it asks for trust.
    """
    if not path.is_file():
        raise ModelFileError(f"there is no model {str(path)!r}: give a run's folder or an exported file")
    if path.suffix[1:] not in FORMATS:
        raise ModelFileError(f"a model must end in .{', .'.join(FORMATS)}, not {str(path)!r}")
    opened: Opened = format_of(path.suffix[1:]).read(path, trust)
    return opened
