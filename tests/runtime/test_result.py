"""``result.json``: reading inverts writing, and another schema is an error."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support import one_line

from sheaf.core.errors import RunFolderError
from sheaf.core.task import Cost, Update
from sheaf.core.types import CLOUD
from sheaf.runtime.costs import SiteCost
from sheaf.runtime.result import Log, Refusal, Result, Row, WholeModel

CONFUSION = [[3, 1, 0], [0, 2, 2], [1, 1, 6]]


def evaluated(site: str, counts: tuple[int, ...] = (5, 0, 7), **metrics: Any) -> Update:
    return Update(site, "evaluate", None, counts, {"confusion": CONFUSION, "loss": 0.5, **metrics}, Cost())


def test_a_device_without_test_examples_of_other_classes_has_no_accuracy_on_all() -> None:
    """A device of a real fleet has test examples of its own; in one process, sites share the test set."""
    log = Log()
    update = evaluated("edge-1")
    of_own = [line if k != 1 else [0, 0, 0] for k, line in enumerate(CONFUSION)]
    log("before", [update, replace(update, metrics=update.metrics | {"confusion": of_own})])
    log("before", [evaluated("edge-3", (1, 1, 1))])
    assert [row.accuracy_all is None for row in log.rows] == [False, True, False]


@pytest.fixture
def result() -> Result:
    log = Log()
    log("before", [evaluated("edge-1", held_out=0.25), evaluated("edge-2", (0, 3, 0))])
    log("after", [evaluated("edge-1", loss=math.nan)], round=2)
    log("cloud", [evaluated(CLOUD)])
    return Result(
        method="ecavg",
        classes=["a", "b", "ç"],
        split={"edge-1": [5, 0, 7], "edge-2": [0, 3, 0]},
        rows=log.rows,
        whole=WholeModel(macs_per_example=2, train_macs_per_example=5, parameters=9),
        cost={
            "edge-1": SiteCost(
                macs_per_example=1,
                parameters=7,
                train_macs=2**60,
                bytes_sent=3,
                bytes_received=4,
                seconds=0.1 + 0.2,
                peak_memory_bytes=5,
            )
        },
        refused=[Refusal(call=3, site="edge-2", why="w has values that are not finite")],
        weights={"edge-1": "weights/edge-1.safetensors"},
        provenance={"seed": 3, "commit": None, "versions": {"torch": "2"}},
    )


def test_reading_inverts_writing(result: Result, tmp_path: Path) -> None:
    result.write(tmp_path)
    assert Result.read(tmp_path) == result
    assert [path.name for path in tmp_path.iterdir()] == ["result.json"]
    assert json.loads((tmp_path / "result.json").read_text())["schema_version"] == 1


def test_rows(result: Result) -> None:
    first, second, later, cloud = result.rows
    assert (first.site, first.stage, first.round, first.examples) == ("edge-1", "before", 1, 12)
    assert first.accuracy == first.recall == 9 / 12, "of its own classes"
    assert first.accuracy_all == second.accuracy_all == cloud.accuracy == cloud.accuracy_all == 11 / 16
    assert (second.accuracy, second.examples) == (2 / 4, 4)
    assert cloud.examples == 16, "all classes are the cloud's own"
    assert (first.held_out, second.held_out) == (0.25, None)
    assert (first.loss, later.loss, later.round) == (0.5, None, 2)


def test_final_is_the_last_row_without_references(result: Result) -> None:
    assert result.final("edge-1") == result.rows[2]
    assert result.final("nobody") is None
    reference = replace(result.rows[2], stage="compared with", reference=True)
    assert replace(result, rows=[*result.rows, reference]).final("edge-1") == result.rows[2]


def test_a_log_reports_each_row() -> None:
    told: list[Row] = []
    log = Log(told.append)
    log("before", [evaluated("edge-1"), evaluated("edge-2")])
    assert told == log.rows
    assert [row.site for row in told] == ["edge-1", "edge-2"]


def trained(site: str, losses: list[float]) -> Update:
    return Update(site, "train", None, (1,), {"losses": losses}, Cost())


def test_a_curve_has_the_stage_of_the_next_measurement() -> None:
    log = Log()
    log.trained(2, [trained("edge-1", [1.23456, 0.5]), trained("edge-2", [math.nan, math.inf])])
    assert log.curves[0].stage == ""
    log("before", [evaluated("edge-1")])
    log("and again", [evaluated("edge-1")])
    log.trained(5, [trained(CLOUD, [0.25])])
    log.trained(6, [trained(CLOUD, [0.125])])
    log("start weights", [evaluated(CLOUD)], round=3, reference=True)
    log.trained(9, [trained("edge-1", [0.1])])
    named = [(curve.call, curve.stage, curve.round, curve.reference) for curve in log.curves]
    assert named == [
        (2, "before", 1, False),
        (5, "start weights", 3, True),
        (6, "start weights", 3, True),
        (9, "", 0, False),
    ]
    assert log.curves[0].losses == {"edge-1": [1.235, 0.5], "edge-2": [None, None]}, "four digits"
    assert log.curves[0].spread == []


def test_a_curve_of_many_sites_has_their_spread() -> None:
    log = Log()
    log.trained(1, [trained(f"edge-{n}", [float(n), math.nan] + [9.0] * (n == 3)) for n in range(21)])
    (curve,) = log.curves
    assert (curve.sites, curve.losses) == (21, {})
    assert curve.spread == [(0, 10, 20), (None, None, None), (9, 9, 9)]


def test_an_older_result_without_curves_can_be_read(result: Result, tmp_path: Path) -> None:
    result.write(tmp_path)
    path = tmp_path / "result.json"
    content = json.loads(path.read_text())
    path.write_text(json.dumps({key: content[key] for key in content if key not in ("curves", "cuts")}))
    assert Result.read(tmp_path) == result


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"more": 1}, "more: Unexpected keyword argument"),
        ({"schema_version": 2}, "schema_version: Input should be 1"),
        ({"rows": 3}, "rows: Input should be a valid array"),
        ({"rows": [{"site": "x"}]}, "rows.0."),
        ({"cost": {"edge-1": {"joules": 1}}}, "cost.edge-1."),
        ({"method": None}, "method: Input should be a valid string"),
    ],
)
def test_another_schema_is_an_error_of_one_line(
    result: Result, tmp_path: Path, change: dict[str, Any], said: str
) -> None:
    result.write(tmp_path)
    path = tmp_path / "result.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(RunFolderError) as error:
        Result.read(tmp_path)
    assert one_line(error).startswith(f"{path} is not a result of this version of sheaf: {said}")


@pytest.mark.parametrize("content", [b"", b"{", b"\xff", b"[]", b"null"])
def test_a_file_that_is_no_result_is_an_error(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "result.json").write_bytes(content)
    with pytest.raises(RunFolderError, match="is not a result of this version of sheaf: the file: ") as error:
        Result.read(tmp_path)
    one_line(error)


def test_a_missing_result_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(RunFolderError) as error:
        Result.read(tmp_path)
    assert one_line(error) == f"{tmp_path} holds no finished run (no result.json)"
    (tmp_path / "journal").mkdir()
    with pytest.raises(RunFolderError) as error:
        Result.read(tmp_path)
    assert one_line(error).endswith(f"; resume it with: sheaf run --resume {tmp_path}")


def test_a_folder_in_place_of_the_file_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "result.json").mkdir()
    with pytest.raises(RunFolderError, match="cannot be read: "):
        Result.read(tmp_path)
