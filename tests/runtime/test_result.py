"""``result.json``: reading inverts writing, and another schema is an error."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from made_up import evaluated
from support import one_line

from sheaf.core.errors import RunFolderError
from sheaf.core.types import CLOUD
from sheaf.runtime.costs import SiteCost
from sheaf.runtime.log import Log
from sheaf.runtime.result import Refusal, Result, WholeModel


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


def test_final_is_the_last_row_without_references(result: Result) -> None:
    assert result.final("edge-1") == result.rows[2]
    assert result.final("nobody") is None
    reference = replace(result.rows[2], stage="compared with", reference=True)
    assert replace(result, rows=[*result.rows, reference]).final("edge-1") == result.rows[2]


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
