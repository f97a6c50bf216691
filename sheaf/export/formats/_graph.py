"""Convert a network to a graph from decoded inputs to logits, the content of ``.onnx`` and ``.pt2``."""

from __future__ import annotations

import torch
from torch import nn
from torch.export import ExportedProgram

from sheaf.core.errors import ModelFileError
from sheaf.export.formats._exporter_internals import quiet_exporters, reason, remove_stack_traces
from sheaf.export.trained_model import WithNormalisation
from sheaf.models.card import Card


def export_graph(model: nn.Module, card: Card) -> ExportedProgram:
    """Return the graph of a network in evaluation mode, with a variable batch size.

    Raises:
        ModelFileError: torch.export cannot trace the network.
    """
    example = torch.zeros(2, *card.in_shape, dtype=card.dtype)
    dynamic_shapes = {"inputs": {0: torch.export.Dim("batch")}}
    try:
        with quiet_exporters():
            program = torch.export.export(
                WithNormalisation(model, card).eval(), (example,), dynamic_shapes=dynamic_shapes
            )
    except Exception as error:  # any exception, from torch or from the user's code
        raise ModelFileError(
            f"torch.export cannot trace the model: {reason(error)}; export to safetensors instead"
        ) from error
    remove_stack_traces(program)
    return program
