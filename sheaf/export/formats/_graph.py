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
    _make_clamps_functional(program)
    return program


NEW_TENSORS = {
    torch.ops.aten.batch_norm.default,
    torch.ops.aten.conv2d.default,
    torch.ops.aten.linear.default,
}
"""Operators that return a new tensor, never a view of another."""


def _make_clamps_functional(program: ExportedProgram) -> None:
    """Replace in-place clamps (ReLU6) whose input has no other reader by clamps that return a new tensor.

    The values are the same. The ONNX exporter decomposes in-place clamps much more slowly.
    """
    for node in program.graph.nodes:
        if node.target is torch.ops.aten.hardtanh_.default:
            source = node.args[0]
            if list(source.users) == [node] and source.target in NEW_TENSORS:
                node.target = torch.ops.aten.hardtanh.default
    program.graph_module.recompile()
