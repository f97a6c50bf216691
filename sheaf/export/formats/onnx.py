"""ONNX: one graph for onnxruntime and most vendors' compilers. The normalisation is inside of it.

Reading one runs no code of the file's: onnxruntime knows its own operators and no others.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sheaf.core.errors import ModelFileError, first_line
from sheaf.core.optional_imports import extra
from sheaf.export.formats._graph import graph, unheard
from sheaf.export.model_file import Opened
from sheaf.models.card import Card

INPUT = {
    "image": "uint8 pixels 0..255, (batch, channels, rows, columns)",
    "sound": "float32 log-mel spectrograms, (batch, 1, bands, frames)",
    "features": "float32, (batch, channels, rows, columns)",
}


def write(path: Path, model: nn.Module, card: Card) -> None:
    """Writes ``model``, in evaluation mode, and ``card`` as the file's ``metadata_props``.

    Raises:
        MissingExtraError: onnx or onnxscript is not installed.
        ModelFileError: the network cannot be written so.
    """
    for library in ("onnx", "onnxscript"):
        extra("export", library)
    traced = graph(model, card)
    try:
        with unheard():
            program = torch.onnx.export(
                traced, dynamo=True, verbose=False, input_names=["inputs"], output_names=["logits"]
            )
    except Exception as error:  # an operator that ONNX has not
        raise ModelFileError(f"the model cannot be written as ONNX: {first_line(error)}") from error
    assert program is not None
    _tidy(program.model.graph)
    says = card.of_graph().metadata() | {"input": f"{INPUT[card.inputs]}; the graph normalises them"}
    program.model.metadata_props.update(says)
    program.save(path, external_data=False)


def _tidy(graph: Any) -> None:
    """Names the open dimension ``batch``, and drops what the exporter notes of itself in each node."""
    symbol = graph.inputs[0].shape[0]
    values = [*graph.inputs, *(value for node in graph for value in node.outputs)]
    for thing in [*graph, *values]:
        thing.metadata_props.clear()
    for value in values:
        if value.shape is not None and value.shape[0] == symbol:
            value.shape[0] = "batch"


def read(path: Path, trust: bool) -> Opened:
    """The model in ``path``, run by onnxruntime on the CPU.

    Raises:
        MissingExtraError: onnxruntime is not installed.
        ModelFileError: it is damaged, or not written by sheaf.
    """
    onnxruntime = extra("export", "onnxruntime")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors alone
    try:
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's own, one for each status
        raise ModelFileError(f"{path} cannot be read as ONNX: {first_line(error)}") from error
    card = Card.of(session.get_modelmeta().custom_metadata_map, str(path))

    def logits(inputs: Tensor) -> Tensor:
        return torch.from_numpy(session.run(["logits"], {"inputs": inputs.numpy()})[0])

    return Opened(card, logits)
