"""Internals of torch.export and of the ONNX exporter that their documentation does not guarantee.

Other modules use only documented functions. ``tests/export/formats/test_exporter_internals.py`` fails if one
of these assumptions breaks:

- The nodes of an ``ExportedProgram`` keep the source lines of the traced code in ``meta["stack_trace"]``.
- ``ONNXProgram.model`` is an ``onnx_ir.Model``; its graph's nodes and values keep the exporter's notes in
  ``metadata_props``, and a variable dimension can be renamed by assignment to ``shape``.
- The ONNX exporter logs to the logger ``torch.onnx``.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch.export import ExportedProgram

LOGGER = "torch.onnx"
"""The ONNX exporter's logger."""


@contextmanager
def quiet_exporters() -> Iterator[None]:
    """Suppress the exporters' warnings and log messages, which concern their own code."""
    logger = logging.getLogger(LOGGER)
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def remove_stack_traces(program: ExportedProgram) -> None:
    """Remove the traced code's source lines, which contain paths of this machine."""
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)


def clean_onnx_model(model: Any, properties: dict[str, str]) -> None:
    """Prepare an ONNX model for saving.

    Removes the exporter's notes from nodes and values, names the variable dimension ``batch``, and sets the
    model's metadata.

    Args:
        model: the ``onnx_ir.Model`` of an ``ONNXProgram``.
        properties: the metadata.
    """
    graph = model.graph
    variable = graph.inputs[0].shape[0]
    values = [*graph.inputs, *(value for node in graph for value in node.outputs)]
    for noted in [*graph, *values]:
        noted.metadata_props.clear()
    for value in values:
        if value.shape is not None and value.shape[0] == variable:
            value.shape[0] = "batch"
    model.metadata_props.update(properties)
