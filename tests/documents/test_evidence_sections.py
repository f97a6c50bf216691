"""The sections of ECAvg's experiments and of taking part, from rows of which some are missing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from sheaf.experiments.compare import run_or_resume
from sheaf.experiments.config import load_experiment


@pytest.fixture(autouse=True)
def benchmarks_on_the_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(Path(__file__).parents[2])


def test_published_rows_stay_until_their_run_is_finished_again(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from benchmarks import ecavg, results

    old = [{"experiment": "ecavg-digits", "method": "local", "seed": seed, "accuracy": -1} for seed in (0, 1)]
    before = {"rows": old, "provenance": {"commit": "c0", "settings": {"old": 1}, "data": {}}}
    (tmp_path / "ecavg.json").write_text(json.dumps(before))
    monkeypatch.setattr(results, "FOLDER", tmp_path)
    short = ("data.limit=60", "method.pretrain.epochs=1", "method.retrain.epochs=1", "seed=1")
    alone = load_experiment("ecavg-digits", short).with_method("local")
    run_or_resume(alone, tmp_path / "ecavg-digits/local-1")

    ecavg.publish_finished("ecavg-digits", tmp_path)

    published = json.loads((tmp_path / "ecavg.json").read_text())
    assert [row for row in published["rows"] if row["seed"] == 0] == [{"commit": "c0"} | old[0]]
    new = [row for row in published["rows"] if row["seed"] == 1]
    assert {row["site"] for row in new} == {"edge-1", "edge-2"}
    assert all(row["accuracy"] >= 0 for row in new)
    assert published["provenance"]["settings"].keys() == {"old", "ecavg-digits/local"}


def test_the_table_names_the_methods_with_fewer_seeds() -> None:
    from benchmarks.results import FOLDER
    from benchmarks.sections.ecavg import ecavg

    rows = json.loads((FOLDER / "ecavg.json").read_text())["rows"]
    of = [row for row in rows if row["experiment"] == "ecavg-digits"]
    text = ecavg([row for row in of if row["method"] != "local" or row["seed"] == 2])
    assert "| local (1 seed) |" in text
    assert "| ecavg |" in text
    assert "3 seeds" in text


def row(method: str, own: float, everything: float, seed: int = 0) -> dict[str, Any]:
    cell = {"edges": 2, "images": 25, "split": "iid", "weights": "random"}
    return cell | {"method": method, "seed": seed, "own": [own, own], "all": [everything, everything]}


def test_a_gain_needs_the_edge_alone_with_the_same_seed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from benchmarks import pictures
    from benchmarks.sections.taking_part import gains, taking_part

    rows = [row("local", 0.5, 0.25), row("ecavg", 0.6, 0.2), row("ecavg", 0.9, 0.9, seed=1)]
    cell = ("random", 2, 25, "iid")
    assert gains(rows, "ecavg", "own") == {cell: [pytest.approx(10)]}
    assert gains(rows, "ecavg", "all") == {cell: [pytest.approx(-5)]}
    assert "| random | 2 | 25 | iid | +10.0 | - | -5.0 | - | 1 |" in taking_part(rows)
    monkeypatch.setattr(pictures, "FOLDER", tmp_path)
    pictures.taking_part(rows)
    assert (tmp_path / "taking-part.svg").stat().st_size > 1000
