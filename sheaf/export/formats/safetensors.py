"""safetensors: the weights, with the card in the metadata. The card describes network and normalisation.

Reading it builds the network with sheaf's own code. A user's own model is imported only with ``trust``.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from sheaf.core.errors import ModelFileError
from sheaf.export.model_file import LoadedModel
from sheaf.export.trained_model import WithNormalisation, build_trained, read_card
from sheaf.models.card import Card
from sheaf.models.checkpoints import save_weights


def write(path: Path, model: nn.Module, card: Card) -> None:
    """Write the network's weights with the card as metadata. See ``Format.write``."""
    save_weights(path, model.state_dict(), card.metadata())


def read(path: Path, trust: bool) -> LoadedModel:
    """Read an exported file, or the weights file of a site in a run's folder. See ``Format.read``.

    Raises:
        WeightsError: the tensors are damaged or do not fit the card's model.
        SheafError: the model cannot be built.
    """
    card = read_card(path)
    if card.model is not None and ":" in card.model.name and not trust:
        raise ModelFileError(
            f"{path} uses the model {card.model.name!r}, which is not part of sheaf; "
            "to import and run it, add --trust"
        )
    model, card = build_trained(card, path)
    network = WithNormalisation(model, card).eval()

    def logits(inputs: Tensor) -> Tensor:
        with torch.no_grad():
            return network(inputs)  # type: ignore[no-any-return]

    return LoadedModel(card, logits)
