"""The assumptions about torch.export and the ONNX exporter in ``_exporter_internals``.

If one fails after an upgrade, the file ``sheaf/export/formats/_exporter_internals.py`` needs a change. The
consequences, one per test: exported files contain paths of this machine; ONNX files contain the exporter's
notes or have no dimension named ``batch``; ``sheaf export`` prints the exporter's messages.
"""

from __future__ import annotations

import logging
from pathlib import Path

import onnx_ir
import pytest
import torch
from torch import nn

from sheaf.export.formats._exporter_internals import (
    LOGGER,
    clean_onnx_model,
    quiet_exporters,
    remove_stack_traces,
)


class TwoLayers(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(3, 4), nn.Linear(4, 2)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.second(self.first(inputs).relu())


@pytest.fixture
def program() -> torch.export.ExportedProgram:
    dynamic_shapes = {"inputs": {0: torch.export.Dim("batch")}}
    with quiet_exporters():
        return torch.export.export(TwoLayers().eval(), (torch.zeros(2, 3),), dynamic_shapes=dynamic_shapes)


def test_nodes_keep_paths_in_stack_trace_only(program: torch.export.ExportedProgram) -> None:
    def metadata() -> str:
        return " ".join(str(node.meta) for node in program.graph.nodes)

    assert Path(__file__).name in metadata(), "nodes no longer keep source lines: remove_stack_traces can go"
    remove_stack_traces(program)
    assert Path(__file__).name not in metadata(), "nodes keep source lines under another key than stack_trace"


def test_an_onnx_program_has_a_model_that_can_be_cleaned(program: torch.export.ExportedProgram) -> None:
    with quiet_exporters():
        exported = torch.onnx.export(program, dynamo=True, verbose=False, input_names=["inputs"])
    assert exported is not None
    model = exported.model
    assert isinstance(model, onnx_ir.Model), "ONNXProgram.model is no onnx_ir.Model any more"
    noted = [thing for node in model.graph for thing in (node, *node.outputs)]
    assert any(thing.metadata_props for thing in noted), "the exporter leaves no notes: no need to clear them"
    clean_onnx_model(model, {"key": "value"})
    assert not any(thing.metadata_props for thing in noted)
    assert model.metadata_props["key"] == "value"
    for value in (*model.graph.inputs, *model.graph.outputs):
        assert str(value.shape[0]) == "batch", "assignment to shape no longer renames the variable dimension"


def test_the_exporter_logs_to_the_silenced_logger() -> None:
    import torch.onnx._internal.exporter._core as exporter

    assert exporter.logger.name.startswith(f"{LOGGER}."), "the ONNX exporter logs to another logger"
    level = logging.getLogger(LOGGER).level
    with quiet_exporters():
        assert not exporter.logger.isEnabledFor(logging.WARNING)
    assert logging.getLogger(LOGGER).level == level
