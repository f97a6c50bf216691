"""Internals of torch.export and of the ONNX exporter that their documentation does not guarantee.

Other modules use only documented functions. ``tests/export/formats/test_exporter_internals.py`` fails if one
of these assumptions breaks:

- The nodes of an ``ExportedProgram`` keep the source lines of the traced code in ``meta["stack_trace"]``.
- ``ONNXProgram.model`` is an ``onnx_ir.Model``; its graph's nodes and values keep the exporter's notes in
  ``metadata_props``, and a variable dimension can be renamed by assignment to ``shape``.
- The exporters log below the logger ``torch``, and print graphs to ``sys.stderr``.
- The ONNX exporter's errors have the reason as their innermost ``__cause__``, and may contain escape codes.
- ``torch.export`` reports a batch size that became a constant as violated constraints.
"""

from __future__ import annotations

import contextlib
import io
import logging
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch.export import ExportedProgram

LOGGER = "torch"
"""The exporters' logger."""


@contextmanager
def quiet_exporters() -> Iterator[None]:
    """Suppress the exporters' warnings and log messages, which concern their own code."""
    logger = logging.getLogger(LOGGER)
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def reason(error: BaseException) -> str:
    """Return the innermost cause of an exporter's error on one line."""
    while error.__cause__ is not None:
        error = error.__cause__
    line = re.sub(r"\x1b\[[0-9;]*m", "", str(error)).strip().partition("\n")[0] or type(error).__name__
    if "Constraints violated" in line or "specialized it to be a constant" in str(error):
        return (
            "its forward pass takes the batch size as a fixed number; write x.shape[0] instead of len(x) or "
            "int(x.shape[0])"
        )
    return line


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
        if value.shape and value.shape[0] == variable:  # a shape is None if unknown, () for a single number
            value.shape[0] = "batch"
    model.metadata_props.update(properties)
