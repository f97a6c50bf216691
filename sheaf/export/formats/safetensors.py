"""safetensors: the weights alone, with all in the metadata that it takes to build their network again.

Of what the file names, reading one runs nothing but sheaf's own builders of models; a user's own is imported
only where the user says that the file is trusted. The normalisation is in the metadata.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from sheaf.core.cut import Cut
from sheaf.core.errors import ModelFileError, WeightsError
from sheaf.export.formats._graph import FromRaw
from sheaf.export.model_file import Opened
from sheaf.models.build import build_model
from sheaf.models.card import Card
from sheaf.models.checkpoints import load_weights, save_weights
from sheaf.training.network import Network


def write(path: Path, model: nn.Module, card: Card) -> None:
    """Writes the weights of ``model`` with ``card`` as metadata."""
    save_weights(path, model.state_dict(), card.metadata())


def read(path: Path, trust: bool) -> Opened:
    """The model in ``path``: an exported file, or what a run left of a site.

    Raises:
        ModelFileError: it names a model that is not sheaf's own, untrusted, or is not written by sheaf.
        WeightsError: its tensors are damaged or do not fit the model that it names.
        SheafError: the model cannot be built.
    """
    card = card_of(path)
    if card.model is not None and ":" in card.model.name and not trust:
        raise ModelFileError(
            f"{path} is for the model {card.model.name!r}, which is none of sheaf's own; "
            "if it may be imported and run, add --trust"
        )
    model, card = build(card, path)
    ready = FromRaw(model, card).eval()

    def logits(inputs: Tensor) -> Tensor:
        with torch.no_grad():
            return ready(inputs)  # type: ignore[no-any-return]

    return Opened(card, logits)


def card_of(path: Path) -> Card:
    """The card of a weights file.

    Raises:
        ModelFileError: it cannot be read, or was not written by sheaf.
    """
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise ModelFileError(f"{path} cannot be read: {error}") from error
    card = Card.of(metadata, str(path))
    if card.model is None:
        raise ModelFileError(f"{path} was not written by sheaf: it names no model")
    return card


def build(card: Card, weights: Path) -> tuple[nn.Module, Card]:
    """The network that ``card`` says, small if it is cut, with its weights; and the card of its outputs.

    An "other" output is folded into the rest: its logit is taken off theirs. That changes neither how the
    classes compare nor what can be told of "none of these", whose logit is then 0.

    Returns:
        The network in evaluation mode, one output a class; a card that names these.
    """
    assert card.model is not None
    settings = replace(card.model, weights=None)  # where training started is no matter of the file's
    card = replace(card, model=settings)
    model = build_model(settings, len(card.classes), card.in_shape, seed=0)
    if card.cut is not None:
        network, cut = Network(model, card.in_shape), Cut.of(card.cut)
        part = network.submodel(cut)
        held = part.module()
        _fill(held, weights)
        folded = replace(cut, other=False)
        model = network.submodel(folded).module()
        model.load_state_dict(part.fold_other(held.state_dict()) if cut.other else held.state_dict())
        card = replace(card, cut=folded.header(), other=card.other or cut.other)
    else:
        _fill(model, weights)
    return model.eval(), card


def _fill(model: nn.Module, weights: Path) -> None:
    if notes := load_weights(model, str(weights)):  # elsewhere a classifier of other classes is welcome
        raise WeightsError(f"weights {str(weights)!r} are of another model: {notes[0]}")
