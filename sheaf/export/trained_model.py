"""Rebuild a trained model from its weights file: a network in evaluation mode and its card."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from sheaf.core.cut import Cut
from sheaf.core.errors import ModelFileError, WeightsError
from sheaf.models.build import build_model
from sheaf.models.card import Card
from sheaf.models.checkpoints import load_state, load_weights
from sheaf.training.network import Network


def read_card(path: Path) -> Card:
    """Return the card in the metadata of a weights file.

    Raises:
        ModelFileError: the file cannot be read, or sheaf did not write it.
    """
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise ModelFileError(f"{path} cannot be read: {error}") from error
    card = Card.of(metadata, str(path))
    if card.model is None:
        raise ModelFileError(f"{path} was not written by sheaf: its metadata names no model")
    return card


def build_trained(card: Card, weights: Path) -> tuple[nn.Module, Card]:
    """Build the network of a card with its weights; for a cut, the sub-model.

    An "other" output is subtracted from the other logits and removed. This preserves the differences between
    the classes and the probability of "none of these", whose logit becomes 0.

    Args:
        card: the card of ``weights``.
        weights: the weights file.

    Returns:
        The network in evaluation mode with one output per class, and its card.

    Raises:
        WeightsError: the weights are damaged or do not fit the card's model.
    """
    assert card.model is not None
    settings = replace(card.model, weights=None)  # the initial weights of the training are not needed
    card = replace(card, model=settings)
    model = build_model(settings, len(card.classes), card.in_shape, seed=0)
    if card.cut is not None:
        network, cut = Network(model, card.in_shape), Cut.of(card.cut)
        submodel = network.submodel(cut)
        trained = submodel.module()
        _load(trained, weights)
        without_other = replace(cut, other=False)
        model = network.submodel(without_other).module()
        state = trained.state_dict()
        load_state(model, submodel.fold_other(state) if cut.other else state)
        card = replace(card, cut=without_other.header(), other=card.other or cut.other)
    else:
        _load(model, weights)
    return model.eval(), card


class WithNormalisation(nn.Module):
    """A network that normalises its inputs as in training.

    Inputs are (N, C, H, W): bytes 0..255 for images; spectrograms and features unscaled.
    """

    def __init__(self, model: nn.Module, card: Card) -> None:
        super().__init__()
        self.model = model
        scale = 255 if card.inputs == "image" else 1
        self.mean = nn.Buffer(scale * torch.tensor(card.mean)[:, None, None])
        self.std = nn.Buffer(scale * torch.tensor(card.std)[:, None, None])

    def forward(self, inputs: Tensor) -> Tensor:
        """Return (N, classes) logits."""
        logits: Tensor = self.model((inputs.to(torch.float32) - self.mean) / self.std)
        return logits


def _load(model: nn.Module, weights: Path) -> None:
    # load_weights accepts a classifier with other classes and returns a note; here that is an error
    if notes := load_weights(model, str(weights)):
        raise WeightsError(f"weights {str(weights)!r} are of another model: {notes[0]}")
