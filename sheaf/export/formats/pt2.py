"""PyTorch's own graph, which ExecuTorch's toolchain takes. The normalisation is inside of it.

Loading one can run code: torch.export.load unpickles, and has Python evaluate the file's size expressions.
So a ``.pt2`` is opened only where the user says that it is trusted.
"""

from __future__ import annotations

import json
from pathlib import Path

import torch
from torch import Tensor, nn

from sheaf.core.errors import ModelFileError, first_line
from sheaf.export.formats._graph import graph, unheard
from sheaf.export.model_file import Opened
from sheaf.models.card import Card

CARD = "sheaf.json"
"""The extra file with the card."""


def write(path: Path, model: nn.Module, card: Card) -> None:
    """Writes ``model``, in evaluation mode, with ``card`` in an extra file.

    Raises:
        ModelFileError: the network cannot be made a graph.
    """
    traced = graph(model, card)
    with path.open("wb") as file, unheard():
        torch.export.save(traced, file, extra_files={CARD: json.dumps(card.of_graph().metadata())})


def read(path: Path, trust: bool) -> Opened:
    """The model in ``path``.

    Raises:
        ModelFileError: it is not trusted, damaged, or not written by sheaf.
    """
    if not trust:
        raise ModelFileError(
            f"{path}: loading a .pt2 can run code that the file brings; if you trust who made it, add --trust"
        )
    extra_files = {CARD: ""}
    try:
        with path.open("rb") as file, unheard():
            model = torch.export.load(file, extra_files=extra_files).module()
    except Exception as error:  # rubbish trips the loader anywhere
        raise ModelFileError(f"{path} cannot be read as .pt2: {first_line(error)}") from error
    try:
        metadata = json.loads(extra_files[CARD])
    except ValueError as error:
        raise ModelFileError(f"{path} was not written by sheaf: it holds no {CARD}") from error
    card = Card.of(metadata, str(path))

    def logits(inputs: Tensor) -> Tensor:
        with torch.no_grad():
            return model(inputs)  # type: ignore[no-any-return]

    return Opened(card, logits)
