"""Exported model files, and the protocol of their formats.

Each module in ``formats/`` whose name does not start with an underscore is a format: ``formats/NAME.py``
writes and reads files that end in ``.NAME``, by the functions of ``Format``. Adding a module adds a format.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, cast

from torch import Tensor, nn

from sheaf.core.errors import ModelFileError, UnknownNameError
from sheaf.models.card import Card

FORMATS = tuple(sorted(file.stem for file in Path(__file__).with_name("formats").glob("[!_]*.py")))
"""The formats' names, which are also the files' suffixes."""


@dataclass(frozen=True)
class LoadedModel:
    """A model read from a file.

    Attributes:
        card: the model's metadata.
        logits: maps inputs as decoded from files, (N, C, H, W) of ``card.dtype``, to logits, (N, classes)
            float32.
    """

    card: Card
    logits: Callable[[Tensor], Tensor]


class Format(Protocol):
    """The functions of a format's module."""

    def write(self, path: Path, model: nn.Module, card: Card) -> None:
        """Write one file that contains the model, its normalisation of inputs and its card.

        Args:
            path: the file.
            model: a network in evaluation mode with one output per class of ``card.outputs``.
            card: the model's card.

        Raises:
            MissingExtraError: a required library is not installed.
            ModelFileError: the format cannot represent the network.
        """

    def read(self, path: Path, trust: bool) -> LoadedModel:
        """Read a file that ``write`` wrote.

        Args:
            path: the file.
            trust: whether code from the file, or code that it names, may run.

        Raises:
            MissingExtraError: a required library is not installed.
            ModelFileError: the file is damaged, was not written by sheaf, or needs ``trust``.
        """


def format_module(name: str) -> Format:
    """Return the module of a format.

    Raises:
        UnknownNameError: there is no such format.
        MissingExtraError: the format needs a library that is not installed.
    """
    if name not in FORMATS:
        raise UnknownNameError("format", name, FORMATS)
    return cast(Format, importlib.import_module(f"sheaf.export.formats.{name}"))


def load_model(path: Path, trust: bool = False) -> LoadedModel:
    """Read an exported file; its suffix names the format.

    Args:
        path: the file.
        trust: whether code from the file, or code that it names, may run.

    Raises:
        ModelFileError: the file does not exist, is damaged, was not written by sheaf, or needs ``trust``.
    """
    if not path.is_file():
        raise ModelFileError(f"there is no model {str(path)!r}: give a run's folder or an exported file")
    if path.suffix[1:] not in FORMATS:
        raise ModelFileError(f"a model must end in .{', .'.join(FORMATS)}, not {str(path)!r}")
    return format_module(path.suffix[1:]).read(path, trust)
