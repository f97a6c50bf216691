"""The time of a run in the report and on the terminal."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

import sheaf
from sheaf.report.formatting import format_duration
from sheaf.report.load_runs import load_runs
from sheaf.report.pictures import timelines
from sheaf.report.pictures.spending import measured_of
from sheaf.report.pictures.timelines import MAX_RUNS, draw_timelines
from sheaf.report.run_page import run_page
from sheaf.report.terminal_timeline import WIDTH, time_table, timeline_characters
from sheaf.report.time_section import comparison_section, spending_curves, time_section
from sheaf.runtime.result import Result

CHANGES = (
    "data.limit=400",
    "data.limit_test=100",
    "partition=iid",
    "partition.edges=3",
    "method=fedavg",
    "method.rounds=3",
    "fleet.devices.edges={edge-1 = 'raspberry-pi-4+lora'}",
    "fleet.devices.mix={'raspberry-pi-5+wifi' = 1}",
    "fleet.deadline=1e6",
)


@pytest.fixture(scope="module")
def timed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with a clock, in which one device keeps the others waiting."""
    folder = tmp_path_factory.mktemp("timed") / "run"
    sheaf.run("ecavg-digits", changes=CHANGES, out=folder)
    return folder


def test_the_section_names_the_device_that_the_others_wait_for(timed: Path) -> None:
    result = Result.read(timed)
    section = time_section(result)
    assert section is not None
    assert "until the answers of edge-1." in section.finding
    assert "of virtual time" in section.finding
    assert [picture.name for picture in section.pictures] == ["timeline", "spending"]
    assert "edge-1: computing" in section.pictures[0].alt
    (axes,) = section.pictures[0].figure.axes
    assert [label.get_text().partition(":")[0] for label in axes.get_yticklabels()] == [
        "edge-1", "edge-2", "edge-3", "cloud",
    ]  # fmt: skip
    assert len(section.pictures[1].figure.axes) == 3  # seconds, bytes, joules
    rows = {row[0]: row for row in section.tables[0].rows}
    assert rows["edge-1"][1] == "raspberry-pi-4+lora"
    assert rows["cloud"][1] == "cloud-gpu"


def test_the_curve_of_the_cloud_is_that_of_the_rounds(timed: Path) -> None:
    result = Result.read(timed)
    points = measured_of(result, "cloud")
    assert [point.accuracy for point in points] == [
        row.accuracy for row in result.rows if row.site == "cloud"
    ]
    seconds = [point.spent.seconds for point in points]
    assert seconds == sorted(set(seconds))
    what, curves = spending_curves({"fedavg": result})
    assert what == "accuracy of the cloud's model"
    assert curves == {"fedavg": points}
    assert time_section(Result.read(timed)) is not None


def test_a_comparison_names_the_time_to_the_accuracy_that_every_method_reaches(timed: Path) -> None:
    result = Result.read(timed)
    points = measured_of(result, "cloud")
    first = replace(result, rows=[row for row in result.rows if row.round == 1])  # its best accuracy is lower
    section = comparison_section({"whole": result, "short": first})
    assert section is not None
    common = points[0].accuracy
    assert section.finding.startswith(
        f"Time to {100 * common:.1f}\u00a0% accuracy of the cloud's model, which"
    )
    (table,) = section.tables
    whole, short = table.rows
    assert (whole[0], short[0]) == ("whole", "short")
    assert whole[1:4] == short[1:4]
    assert whole[1] == format_duration(points[0].spent.seconds)
    assert result.time is not None
    assert whole[4] == format_duration(result.time.spent.seconds)


def test_a_comparison_draws_the_timelines_until_that_accuracy_on_one_axis(timed: Path) -> None:
    result = Result.read(timed)
    first = replace(result, rows=[row for row in result.rows if row.round == 1])
    section = comparison_section({"whole": result, "short": first})
    assert section is not None
    assert [picture.name for picture in section.pictures] == ["spending", "timelines"]
    whole, short = section.pictures[1].figure.axes
    reached = measured_of(result, "cloud")[0]
    after = f"{100 * reached.accuracy:.1f}\u00a0% after {format_duration(reached.spent.seconds)}"
    assert [axes.get_title() for axes in (whole, short)] == [f"whole: {after}", f"short: {after}"]
    assert whole.get_xlim() == short.get_xlim()
    assert [label.get_text().partition(":")[0] for label in whole.get_yticklabels()] == [
        "edge-1", "edge-2", "edge-3", "cloud",
    ]  # fmt: skip


def test_the_axis_of_timelines_ends_after_the_second_slowest_run(timed: Path) -> None:
    record = Result.read(timed).time
    assert record is not None
    away = replace(record, away={"edge-2": [(1.0, 3.0), (8.0, 9.0)]})
    picture = draw_timelines({"fast": (record, 2.0), "slow": (away, 6.0)}, 0.9)
    fast, slow = picture.figure.axes
    assert fast.get_xlim() == slow.get_xlim() == (0.0, pytest.approx(2.24))
    assert "The slowest run is cut off" in picture.caption
    (absence,) = [bars for bars in slow.collections if bars.get_hatch()]
    (path,) = absence.get_paths()
    assert path.get_extents().intervalx == pytest.approx([1.0, 2.24])
    assert "away" in [text.get_text() for text in picture.figure.legends[0].get_texts()]
    picture = draw_timelines({"fast": (record, 2.0), "slow": (record, 3.0)}, 0.9)
    assert picture.figure.axes[0].get_xlim() == (0.0, pytest.approx(3.09))
    assert "cut off" not in picture.caption


def test_the_first_timelines_and_tasks_are_drawn(timed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    record = Result.read(timed).time
    assert record is not None
    monkeypatch.setattr(timelines, "MAX_TASKS", 6)
    runs = {f"method {n}": (record, record.spent.seconds) for n in range(MAX_RUNS + 2)}
    picture = draw_timelines(runs, 0.9)
    assert len(picture.figure.axes) == MAX_RUNS
    assert f"Of {MAX_RUNS + 2} methods, the first {MAX_RUNS} are drawn." in picture.caption
    assert "only the first 1 tasks are drawn." in picture.caption
    (alone,) = draw_timelines({"alone": (record, record.spent.seconds)}, 0.9).figure.axes
    assert alone.get_title().startswith("alone: 90.0")


def test_the_terminal_has_a_timeline_of_each_device(timed: Path) -> None:
    result = Result.read(timed)
    assert result.time is not None
    line = timeline_characters(result.time)["edge-1"]
    assert len(line) == WIDTH
    assert line.count("▼") + line.count("▲") > WIDTH / 2  # the thin link
    assert timeline_characters(result.time)["cloud"] == "·" * WIDTH
    console = Console(width=120, record=True, file=io.StringIO())
    console.print(time_table(result.time))
    text = console.export_text()
    assert "Time of each device" in text
    assert line in text


def test_a_run_without_a_clock_has_no_section(runs: Path) -> None:
    assert time_section(Result.read(runs / "fedavg")) is None
    assert spending_curves({"fedavg": Result.read(runs / "fedavg")})[1] == {}


def test_the_page_has_the_section(timed: Path) -> None:
    page = run_page(load_runs([timed])[0][0])
    assert "time" in [section.id for section in page.sections]
