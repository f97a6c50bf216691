"""ONNX, for onnxruntime and most vendors' compilers.

The file contains one graph, which includes the normalisation of inputs. Reading it runs no code from the
file: onnxruntime executes its built-in operators only.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from sheaf.core.errors import MissingExtraError, ModelFileError, first_line
from sheaf.core.optional_imports import extra
from sheaf.export.formats._exporter_internals import clean_onnx_model, quiet_exporters, reason
from sheaf.export.formats._graph import export_graph
from sheaf.export.model_file import LoadedModel
from sheaf.models.card import Card

MINIMUM_TORCH = "2.7.1"
"""Oldest torch release that exports models in the tests (2.6 fails); the extra ``export`` requires it."""

INPUT = {
    "image": "uint8 pixels 0..255, (batch, channels, rows, columns)",
    "sound": "float32 log-mel spectrograms, (batch, 1, bands, frames)",
    "features": "float32, (batch, channels, rows, columns)",
}
"""``card.inputs`` -> the file's description of its input."""


def write(path: Path, model: nn.Module, card: Card) -> None:
    """Write an ONNX file with the card in its ``metadata_props``. See ``Format.write``."""
    if torch.__version__ < MINIMUM_TORCH:
        raise MissingExtraError(
            f"ONNX export needs torch >= {MINIMUM_TORCH}, this is {torch.__version__}; "
            f"install it with: pip install 'torch>={MINIMUM_TORCH}'"
        )
    for library in ("onnx", "onnxscript"):
        extra("export", library)
    graph = export_graph(model, card)
    try:
        with quiet_exporters():
            program = torch.onnx.export(
                graph, dynamo=True, verbose=False, input_names=["inputs"], output_names=["logits"]
            )
    except Exception as error:  # such as an operator that ONNX lacks
        raise ModelFileError(
            f"the model cannot be written as ONNX: {reason(error)}; export to safetensors instead"
        ) from error
    assert program is not None
    description = {"input": f"{INPUT[card.inputs]}; the graph normalises them"}
    clean_onnx_model(program.model, card.of_graph().metadata() | description)
    program.save(path, external_data=False)


def read(path: Path, trust: bool) -> LoadedModel:
    """Read an ONNX file; onnxruntime executes it on the CPU. See ``Format.read``."""
    onnxruntime = extra("export", "onnxruntime")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors only
    try:
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime has an exception class for each status
        raise ModelFileError(f"{path} cannot be read as ONNX: {first_line(error)}") from error
    card = Card.of(session.get_modelmeta().custom_metadata_map, str(path))

    def logits(inputs: Tensor) -> Tensor:
        return torch.from_numpy(session.run(["logits"], {"inputs": inputs.numpy()})[0])

    return LoadedModel(card, logits)
