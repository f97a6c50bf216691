"""The progress of a run: plain lines without a terminal, and a table that fits any number of sites."""

from __future__ import annotations

import io
import re
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_up import timeline_of
from rich.console import Console

from sheaf.report import live
from sheaf.report.live import Live
from sheaf.report.live_timeline import LiveTimeline
from sheaf.runtime import timeline as timelines
from sheaf.runtime.result import Row


def row(site: str, stage: str, accuracy: float) -> Row:
    return Row(
        site=site,
        stage=stage,
        round=1,
        reference=False,
        accuracy=accuracy,
        precision=0.5,
        recall=0.5,
        f1=0.5,
        macro_f1=0.5,
        accuracy_all=accuracy / 2,
        held_out=None,
        loss=1.0,
        examples=10,
        confusion=[[10]],
    )


def plain(**options: object) -> tuple[Live, io.StringIO]:
    out = io.StringIO()
    return Live(Console(file=out, width=100), "a run", **options), out  # type: ignore[arg-type]


def test_plain_lines_without_a_terminal() -> None:
    shown, out = plain()
    with shown:
        shown.note("its head was drawn anew")
        shown.began("train", ["a", "b"])
        shown.step("a", 16, 32, 0.5, 256)
        shown.answered("a")
        shown.answered("b")
        shown.refused("b", "1.weight has values that are not finite")
        shown.began("evaluate", ["a"])
        shown.row(row("a", "before update", 0.75))
    assert out.getvalue().splitlines() == [
        "a run",
        "note: its head was drawn anew",
        "training 2 sites",
        "refused: b: 1.weight has values that are not finite",
        "a            before update      accuracy 0.7500  all classes 0.3750",
    ]


def test_long_training_prints_progress_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr(live.time, "monotonic", lambda: now)
    shown, out = plain()
    with shown:
        shown.began("train", ["a", "b"])
        for done in range(10, 510, 10):
            now += 1.0
            shown.step("a", done, 1000, 0.25, 64 * done)
    (line,) = [line for line in out.getvalue().splitlines() if "step" in line]
    assert re.fullmatch(r"a +step +310/1,000, loss 0\.250, 640 images/s, 1:09 left; 0 of 2 done", line)


def test_a_comparison_shows_no_measurements() -> None:
    shown, out = plain(rows=False)
    with shown:
        shown.began("train", ["a"])
        shown.row(row("a", "before update", 0.75))
    assert out.getvalue() == "a run\n"


def test_many_measurements_are_one_line() -> None:
    shown, out = plain()
    with shown:
        for at in range(1000):
            shown.row(row(f"edge-{at}", "before update", at / 1000))
        shown.row(row("cloud", "average", 0.5))
    assert out.getvalue().splitlines()[1:] == [
        "1,000 edges  before update      accuracy 0.4995 mean, 0.0000 worst (edge-0)",
        "cloud        average            accuracy 0.5000  all classes 0.2500",
    ]


SITES = [f"edge-{at}" for at in range(60)]
EVENT = st.one_of(
    st.tuples(st.just("began"), st.lists(st.sampled_from(SITES), min_size=1, unique=True)),
    st.tuples(st.just("step"), st.sampled_from(SITES), st.integers(1, 100)),
    st.tuples(st.just("refused"), st.sampled_from(SITES)),
    st.tuples(st.just("answered"), st.integers(0, 59)),
    st.tuples(st.just("timed"), st.integers(1, 3)),
)


@given(events=st.lists(EVENT, max_size=40), height=st.integers(5, 60))
def test_the_table_fits_after_any_sequence_of_events(events: list[tuple], height: int) -> None:
    """Sites may train together, finish in any order, and report events outside of a call."""
    console = Console(file=io.StringIO(), width=80, height=height, force_terminal=True, color_system=None)
    shown = Live(console, "a run")
    asked = SITES
    shown.began("train", asked)
    for event, *told in events:
        if event == "began":
            asked = told[0]
            shown.began("train", asked)
        elif event == "step":
            shown.step(told[0], told[1], 100, 1.0, told[1] * 64)
        elif event == "refused":
            shown.refused(told[0], "not finite")
        elif event == "timed":
            shown.timed(timeline_of(dict.fromkeys(SITES, 2000.0 * told[0]), calls=told[0]))
        else:
            shown.answered(asked[told[0] % len(asked)])
        console.file = io.StringIO()
        console.print(shown._table())
        lines = console.file.getvalue().rstrip().splitlines()
        assert len(lines) <= max(height, 8)
        assert max(map(len, lines)) <= 80
        named = sum(line.startswith(" edge-") for line in lines)
        more = re.search(r"and (\d+) more", console.file.getvalue())
        assert named + (int(more[1]) if more else 0) == 60, "every site is shown or counted"


def test_an_absent_site_is_shown_as_absent_until_it_answers() -> None:
    out = io.StringIO()
    shown = Live(Console(file=out, width=100, height=30), "a run")

    def states() -> dict[str, str]:
        screen = Console(file=io.StringIO(), width=100, record=True)
        screen.print(shown._table())
        lines = [line.split() for line in screen.export_text().splitlines()]
        return {words[0]: words[1] for words in lines if words and words[0].startswith("edge-")}

    with shown:
        shown.absent("edge-3", "not there at the start: it is not connected")
        shown.began("train", ["edge-1", "edge-2"])
        shown.step("edge-1", 3, 10, 0.5, 96)
        shown.absent("edge-2", "it gave no sign of life for 12 s")
        assert states() == {"edge-1": "training", "edge-2": "absent", "edge-3": "absent"}
        assert shown._progress() == "1 of 2 done"
        shown.answered("edge-1")
        shown.began("adopt", ["edge-1"])
        assert states() == {"edge-1": "waiting", "edge-2": "absent", "edge-3": "absent"}
        shown.began("evaluate", ["edge-1", "edge-2", "edge-3"])
        shown.absent("edge-3", "it is not connected")
        shown.answered("edge-2")
        assert states() == {"edge-1": "waiting", "edge-2": "done", "edge-3": "absent"}
    assert out.getvalue().splitlines()[1:] == [
        "absent: edge-3: not there at the start: it is not connected",
        "training 2 sites",
        "absent: edge-2: it gave no sign of life for 12 s",
    ]


@pytest.mark.parametrize("terminal", [False, True])
def test_names_are_printed_as_they_are(terminal: bool) -> None:
    out = io.StringIO()
    console = Console(file=out, width=100, height=30, force_terminal=terminal, color_system=None)
    name = "[/INST] :dog:"
    with Live(console, f"run {name}") as shown:
        shown.note(f"note {name}")
        shown.began("train", [name])
        shown.step(name, 16, 32, 0.5, 256)
        shown.absent(name, f"absence {name}")
        shown.refused(name, f"refusal {name}")
        console.print(shown._table())
        shown.row(row(name, f"stage {name}", 0.5))
    printed = out.getvalue()
    for kind in ("run", "note", "training", "absence", "refusal", "stage"):
        assert f"{kind} {name}" in printed
    assert f" {name} refused" in re.sub(" +", " ", printed)


def test_a_measurement_that_repeats_the_last_one_is_printed_once() -> None:
    shown, out = plain()
    with shown:
        for number, stage in enumerate(("before update", "after retraining") * 2):
            shown.row(replace(row("a", stage, 0.5), round=number // 2 + 1))
    stages = re.findall(r"before update|after retraining", out.getvalue())
    assert stages == ["before update", "after retraining", "after retraining"]


@pytest.mark.parametrize("width", [80, 110])
def test_a_clocked_run_shows_its_time_and_the_line_of_each_device(width: int) -> None:
    out = io.StringIO()
    console = Console(file=out, width=width, height=30, force_terminal=True, color_system=None)
    shown = Live(console, "a run")
    shown.began("train", ["slow", "fast", "late"])
    shown.step("slow", 3, 10, 0.5, 96)
    shown.timed(timeline_of({"slow": 9.0, "fast": 4.0}))
    console.print(shown._table())
    lines = [line.rstrip() for line in out.getvalue().splitlines()]
    assert max(map(len, lines)) <= width
    (title,) = [line for line in lines if "virtual time" in line]
    assert title.endswith("0 of 3 done, 0:00, virtual time 10.0 s")
    slow, fast, late = (
        next(line for line in lines if line.startswith(f" {name}")) for name in ("slow", "fast", "late")
    )
    assert re.search("  ▼▼+█+$", slow)
    assert re.search("  ▼▼+█+·+$", fast)
    assert fast.count("·") == (11 if width == 80 else 16)
    assert late.split() == ["late", "waiting"]
    assert "0 s to 10.0 s" in out.getvalue()
    assert "█ computing, ▼ receiving" in out.getvalue()
    assert ("images/s" in out.getvalue()) == (width > 100)


def test_measurements_are_followed_by_the_time_and_its_cost() -> None:
    shown, out = plain()
    with shown:
        shown.timed(timeline_of({"a": 9.0}, measured=True))
        shown.row(row("a", "before update", 0.75))
    assert out.getvalue().splitlines()[-1] == "time         10.0 s, 3.0 MB of messages, 9 joules"


def test_the_line_of_a_long_run_covers_its_latest_tasks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timelines, "LATEST", 6)
    record = timeline_of({"slow": 9.0, "fast": 4.0}, calls=10).latest()
    assert [call.call for call in record.calls] == [8, 9, 10]
    assert {task.start for task in record.tasks} == {70.0, 80.0, 90.0}
    shown = LiveTimeline(drawn=True)
    shown.update(timeline_of({"slow": 9.0, "fast": 4.0}, calls=10))
    assert shown.heading == "70.0 s to 1.7 min"
    assert shown.lines["fast"].count("·") == pytest.approx(16, abs=1)
