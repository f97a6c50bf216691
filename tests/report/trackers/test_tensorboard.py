"""TensorBoard's reader finds every loss and accuracy once, also after a run was resumed."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from support import one_line
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from sheaf.core.errors import MissingExtraError
from sheaf.experiments import run as runs
from sheaf.experiments.config import Experiment
from sheaf.report.trackers.tensorboard import TensorBoard
from sheaf.runtime.observer import NullObserver, Observers


def read(folder: Path) -> EventAccumulator:
    found = EventAccumulator(str(folder / "tensorboard"))
    found.Reload()
    return found


def test_losses_and_accuracies_are_written(quick: Experiment, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    result = runs.run(quick, out=folder, observer=TensorBoard(folder))
    found = read(folder)
    sites = ("edge-1", "edge-2", "cloud")
    kinds = ("loss", "accuracy", "accuracy_all")
    assert set(found.Tags()["scalars"]) == {f"{kind}/{site}" for kind in kinds for site in sites}
    for site in sites:
        rows = [row for row in result.rows if row.site == site]
        points = found.Scalars(f"accuracy/{site}")
        assert [point.step for point in points] == list(range(1, len(rows) + 1))
        assert [point.value for point in points] == pytest.approx([row.accuracy for row in rows])
        losses = found.Scalars(f"loss/{site}")
        assert [point.step for point in losses] == sorted({point.step for point in losses})
        assert all(math.isfinite(point.value) for point in losses)
    steps = math.ceil(sum(result.split["edge-1"]) / quick.method.pretrain.batch_size) * 12
    assert found.Scalars("loss/edge-1")[-1].step == steps, "of 6 epochs before and 6 after the update"
    (text,) = found.Tensors("experiment/text_summary")
    assert b"pretrain" in text.tensor_proto.string_val[0]


class Unplugged(NullObserver):
    """Ends the run when its third training begins."""

    def __init__(self) -> None:
        self._calls = 0

    def began(self, kind: str, sites: Sequence[str]) -> None:
        self._calls += kind == "train"
        if self._calls == 3:
            raise ZeroDivisionError


def test_a_resumed_run_continues_its_curves(quick: Experiment, tmp_path: Path) -> None:
    folder, whole = tmp_path / "run", tmp_path / "whole"
    runs.run(quick, out=whole, observer=TensorBoard(whole))
    with pytest.raises(ZeroDivisionError):
        runs.run(quick, out=folder, observer=Observers([Unplugged(), TensorBoard(folder)]))
    runs.resume(folder, observer=TensorBoard(folder))
    one, other = read(folder), read(whole)
    for tag in other.Tags()["scalars"]:
        got, wanted = one.Scalars(tag), other.Scalars(tag)
        if tag.startswith("accuracy"):
            assert [(p.step, p.value) for p in got] == [(p.step, p.value) for p in wanted]
        else:
            assert (got[-1].step, got[-1].value) == (wanted[-1].step, wanted[-1].value)


def test_without_tensorboard_the_error_names_the_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'sheaf-edge\[tensorboard\]'") as error:
        TensorBoard(tmp_path)
    one_line(error)
