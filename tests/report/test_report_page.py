"""The files of ``sheaf report``: complete, small and reproducible."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from dataclasses import replace
from html import unescape
from pathlib import Path

import pytest
from made_up import rewritten
from PIL import Image
from rich.console import Console
from support import one_line

from sheaf.core.errors import RunFolderError
from sheaf.core.types import CLOUD
from sheaf.report.history import edge_histories
from sheaf.report.page import write_report
from sheaf.report.terminal_tables import accuracy_table
from sheaf.runtime.result import CutsRecord, PartRecord, Replacement, Result

LIMIT = 3_000_000
"""Bytes of a page."""

ONE = ("verdict", "gain", "steps", "confusion", "split", "curves", "cost", "settings")
"""The sections of one run's page; of parts, also ``cuts``."""


def test_one_run(runs: Path, tmp_path: Path) -> None:
    place = write_report([runs / "ecavg"], tmp_path / "page.html")
    text = unescape(place.read_text())
    assert [f'id="{name}"' in text for name in ONE] == [True] * len(ONE)
    assert 'id="cuts"' not in text, "every edge holds the whole model"
    result = Result.read(runs / "ecavg")
    for row in result.rows:
        if row.site != CLOUD:
            assert f"{row.accuracy:.4f}" in text
            assert f"{row.accuracy_all:.4f}" in text
    assert str(result.provenance["commit"])[:12] in text
    assert "method.pretrain.epochs" in text
    places = [text.index(f'id="{name}"') for name in ONE]
    assert places == sorted(places), "the verdict first, then the gain"


def test_devices_that_keep_their_model_are_listed_first(runs: Path, tmp_path: Path) -> None:
    worse = Replacement(replaced=False, held_out=0.5, before=0.9, samples=40, why="held-out accuracy 0.5000")
    better = Replacement(replaced=True, held_out=0.95, before=0.9, samples=40)
    decisions = {"shop-1": better, "shop-2": worse}
    run = rewritten(runs / "ecavg", tmp_path / "run", lambda result: replace(result, replacements=decisions))
    text = unescape(write_report([run], tmp_path / "page.html").read_text())
    section = text[text.index('id="replacements"') :]
    assert "The run's model is current on 1 of 2 devices." in section
    assert section.index("shop-2") < section.index("shop-1")
    assert "held-out accuracy 0.5000" in section
    assert 'id="replacements"' not in unescape(
        write_report([runs / "ecavg"], tmp_path / "other.html").read_text()
    )


def test_a_fleets_run_shows_no_accuracy_on_all_classes(runs: Path, tmp_path: Path) -> None:
    def own_only(result: Result) -> Result:
        rows = [row if row.site == CLOUD else replace(row, accuracy_all=None) for row in result.rows]
        return replace(result, rows=rows)

    run = rewritten(runs / "rounds", tmp_path / "fleet", own_only)
    text = unescape(write_report([run], tmp_path / "page.html").read_text())
    assert "On all classes, the mean change" not in text
    assert "accuracy on its own classes" in text
    assert "accuracy on all classes" not in text
    table = io.StringIO()
    Console(file=table, width=100).print(accuracy_table(Result.read(run)))
    (line,) = [line for line in table.getvalue().splitlines() if line.startswith("edge-1  before update")]
    assert line.split()[-2:] == ["-", "50"]


def test_pictures_are_written_next_to_the_page(runs: Path, tmp_path: Path) -> None:
    def unequal(result: Result) -> Result:  # measured seconds may be equal, and equal costs are not drawn
        seconds = {
            site: replace(cost, seconds=float(n)) for n, (site, cost) in enumerate(result.cost.items())
        }
        return replace(result, cost=seconds)

    place = write_report([rewritten(runs / "decoupled", tmp_path / "run", unequal)], tmp_path / "page.html")
    folder = tmp_path / "page-figures"
    names = {path.stem for path in folder.iterdir()}
    assert names == {"gain", "steps", "confusion", "split", "cuts", "curves", "cost"}
    assert {path.suffix for path in folder.iterdir()} == {".png", ".svg"}
    for name in names:
        with Image.open(folder / f"{name}.png") as image:
            assert image.width == round(7.4 * 160)
            assert len(set(image.convert("L").resize((60, 60)).tobytes())) > 5, f"{name} shows nothing"
        assert (folder / f"{name}.svg").read_text().startswith("<?xml")
    assert {path.name for path in tmp_path.iterdir()} == {"run", place.name, folder.name}


def test_the_default_page_is_in_the_runs_folder(
    runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert write_report([runs / "several" / "ecavg-0", runs / "several" / "fedavg-0"]) == Path("report.html")
    assert write_report([runs / "several"]) == runs / "several" / "report.html"
    assert write_report([runs / "several"]) == runs / "several" / "report.html", "once more, over the old one"


def test_the_same_run_gives_the_same_pictures(runs: Path, tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_report([runs / "decoupled"], tmp_path / name / "page.html")
    for path in (tmp_path / "a" / "page-figures").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / "page-figures" / path.name).read_bytes()


@pytest.mark.parametrize("edges", [2, 1000])
def test_the_page_summarises_many_edges(edges: int, of_many: Callable[[int], Path], tmp_path: Path) -> None:
    folder = of_many(edges)
    place = write_report([folder], tmp_path / "page.html")
    assert place.stat().st_size < LIMIT
    text = place.read_text()
    assert f"{edges:,} edges" in text
    assert text.count("<tr>") < 150, "tables summarise many edges"
    largest_loss = min(edge_histories(Result.read(folder)), key=lambda edge: edge.gain)
    assert f'<th scope="row">{largest_loss.site}</th>' in text, "the summary contains the extremes"
    result = json.loads((folder / "result.json").read_text())
    assert len(json.dumps(result["curves"])) < 20_000, "a curve does not grow with the edges"


def test_the_page_stays_small_with_many_classes_and_sub_models(
    of_many: Callable[[int], Path], tmp_path: Path
) -> None:
    """The largest case: 1,000 edges, 100 classes, a sub-model for each edge (a modified real result)."""

    def widen(result: Result) -> Result:
        sites = list(result.split)
        parts = [
            PartRecord(
                sites=[site], kept={f"layer{n}": [(n, 64 + n)] for n in range(30)}, classes=[1], other=True
            )
            for site in sites
        ]
        return replace(
            result,
            classes=[f"class number {k}" for k in range(100)],
            split={site: [(7 * n + k * k) % 40 for k in range(100)] for n, site in enumerate(sites)},
            rows=[
                replace(row, confusion=[[3 + k] * 100 for k in range(100)])
                if row.site in (CLOUD, *sites[:3])
                else replace(row, confusion=[[]] * 100)
                for row in result.rows
                if row.site in (CLOUD, *sites[:3])
            ],
            cuts=CutsRecord(groups={f"layer{n}": 128 for n in range(30)}, parts=parts),
        )

    place = write_report([rewritten(of_many(1000), tmp_path / "wide", widen)], tmp_path / "page.html")
    assert place.stat().st_size < LIMIT


def test_several_runs(runs: Path, tmp_path: Path) -> None:
    text = unescape(write_report([runs / "several"], tmp_path / "page.html").read_text())
    for name in ("methods", "frontier", "runs"):
        assert f'id="{name}"' in text
    for method in ("ecavg", "fedavg", "decoupled"):
        assert f'<th scope="row">{method}</th>' in text
    assert "± is the standard deviation over the seeds" in text
    results = [Result.read(runs / "several" / f"fedavg-{seed}") for seed in (0, 1)]
    edges = [row.accuracy for result in results for site in result.split if (row := result.final(site))]
    assert f"{sum(edges) / len(edges):.4f} ±" in text, "the mean over the edges and the seeds"


def test_an_unfinished_run_among_several_is_mentioned_only(runs: Path, tmp_path: Path) -> None:
    for name in ("ecavg-0", "ecavg-1"):
        rewritten(runs / "several" / name, tmp_path / name, lambda result: result)
        (tmp_path / name / "experiment.toml").touch()
    (tmp_path / "fedavg-0").mkdir()
    (tmp_path / "fedavg-0" / "experiment.toml").touch()
    text = write_report([tmp_path]).read_text()
    assert "Unfinished runs, not included" in text
    assert "fedavg-0" in text


def test_invalid_folders_give_one_line_errors(runs: Path, tmp_path: Path) -> None:
    ecavg, other = runs / "several" / "ecavg-0", tmp_path / "other"
    rewritten(ecavg, other, lambda result: replace(result, classes=[f"c{k}" for k in range(10)]))
    damaged = rewritten(ecavg, tmp_path / "damaged", lambda result: replace(result, classes=["a", "b"]))
    twice = rewritten(ecavg, tmp_path / "twice", lambda result: result)
    (tmp_path / "stopped").mkdir()
    (tmp_path / "stopped" / "experiment.toml").touch()
    (tmp_path / "stopped" / "journal").mkdir()
    for folders, said in (
        ([tmp_path / "nowhere"], "holds no finished run"),
        ([tmp_path / "stopped"], "sheaf run --resume"),
        ([ecavg, ecavg], "is given twice"),
        ([ecavg, other], "has other classes than"),
        ([damaged], "is damaged: split does not fit the other fields"),
        ([ecavg, twice], "are the same experiment with the same seed (0)"),
    ):
        with pytest.raises(RunFolderError, match=_literally(said)) as error:
            write_report(folders, tmp_path / "page.html")
        one_line(error)
        assert not (tmp_path / "page.html").exists()


def test_an_unwritable_page_gives_a_one_line_error(runs: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(RunFolderError, match="Not a directory") as error:
        write_report([runs / "ecavg"], tmp_path / "file" / "page.html")
    one_line(error)


def _literally(said: str) -> str:
    return said.replace("(", r"\(").replace(")", r"\)")
