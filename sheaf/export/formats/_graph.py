"""A network as one graph, from what a decoder gives to logits: what ``.onnx`` and ``.pt2`` hold."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from sheaf.core.errors import ModelFileError, first_line
from sheaf.models.card import Card


class FromRaw(nn.Module):
    """Normalises inputs as training did, then asks the network.

    Takes (N, C, H, W): bytes 0..255 of images, spectrograms or features as they are.
    """

    def __init__(self, model: nn.Module, card: Card) -> None:
        super().__init__()
        self.model = model
        scale = 255 if card.inputs == "image" else 1
        self.mean = nn.Buffer(scale * torch.tensor(card.mean)[:, None, None])
        self.std = nn.Buffer(scale * torch.tensor(card.std)[:, None, None])

    def forward(self, inputs: Tensor) -> Tensor:
        """(N, classes) logits."""
        logits: Tensor = self.model((inputs.to(torch.float32) - self.mean) / self.std)
        return logits


def graph(model: nn.Module, card: Card) -> Any:
    """The ``torch.export.ExportedProgram`` of a network in evaluation mode, for any number of examples.

    Raises:
        ModelFileError: the network cannot be made a graph.
    """
    example = torch.zeros(2, *card.in_shape, dtype=card.dtype)
    batch = {"inputs": {0: torch.export.Dim("batch")}}
    try:
        with unheard():
            program = torch.export.export(FromRaw(model, card).eval(), (example,), dynamic_shapes=batch)
    except Exception as error:  # whatever torch trips over in a user's code
        raise ModelFileError(f"torch.export cannot make a graph of the model: {first_line(error)}") from error
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)  # names folders of this machine, which are nobody's business
    return program


@contextmanager
def unheard() -> Iterator[None]:
    """Keeps to themselves what PyTorch's exporters say of their own insides and of libraries not there."""
    log = logging.getLogger("torch.onnx")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        log.setLevel(level)
