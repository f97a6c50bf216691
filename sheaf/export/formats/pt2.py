"""The graph format of torch.export, an input of ExecuTorch.

The file contains one graph, which includes the normalisation of inputs. Reading it can run code from the
file: torch.export.load unpickles, and evaluates the file's size expressions as Python. ``read`` therefore
requires ``trust``.
"""

from __future__ import annotations

import json
from pathlib import Path

import torch
from torch import Tensor, nn

from sheaf.core.errors import ModelFileError, first_line
from sheaf.export.formats._exporter_internals import quiet_exporters
from sheaf.export.formats._graph import export_graph
from sheaf.export.model_file import LoadedModel
from sheaf.models.card import Card

CARD = "sheaf.json"
"""Name of the file with the card inside the ``.pt2``."""


def write(path: Path, model: nn.Module, card: Card) -> None:
    """Write a ``.pt2`` file with the card in an extra file. See ``Format.write``."""
    graph = export_graph(model, card)
    with path.open("wb") as file, quiet_exporters():
        torch.export.save(graph, file, extra_files={CARD: json.dumps(card.of_graph().metadata())})


def read(path: Path, trust: bool) -> LoadedModel:
    """Read a trusted ``.pt2`` file. See ``Format.read``."""
    if not trust:
        raise ModelFileError(
            f"{path}: loading a .pt2 can run code from the file; if you trust its author, add --trust"
        )
    extra_files = {CARD: ""}
    try:
        with path.open("rb") as file, quiet_exporters():
            model = torch.export.load(file, extra_files=extra_files).module()
    except Exception as error:  # a damaged file can raise any exception
        raise ModelFileError(f"{path} cannot be read as .pt2: {first_line(error)}") from error
    try:
        metadata = json.loads(extra_files[CARD])
    except ValueError as error:
        raise ModelFileError(f"{path} was not written by sheaf: it contains no {CARD}") from error
    card = Card.of(metadata, str(path))

    def logits(inputs: Tensor) -> Tensor:
        with torch.no_grad():
            return model(inputs)  # type: ignore[no-any-return]

    return LoadedModel(card, logits)
