"""The progress of a run in a notebook, with IPython's own display machinery."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from support import QUICK

import sheaf
from sheaf.api.notebook import NotebookProgress, make_observer
from sheaf.report.live import Live
from sheaf.runtime.observer import NullObserver
from sheaf.runtime.timeline import TimedSite, Timeline


@pytest.fixture
def published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[dict[str, Any]]]:
    """The messages to a notebook's front end: new displays, and their updates."""
    pytest.importorskip("IPython")
    from IPython.core.displaypub import CapturingDisplayPublisher
    from IPython.core.interactiveshell import InteractiveShell
    from traitlets.config import Config

    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    shell = InteractiveShell.instance(
        user_module=ModuleType("a_notebook"),  # instead of __main__
        config=Config(HistoryManager={"enabled": False}),
    )
    shell.kernel = None  # as in a notebook, where it is the kernel
    shell.display_pub = CapturingDisplayPublisher()
    yield shell.display_pub.outputs
    shell.restore_sys_module_state()
    InteractiveShell.clear_instance()


def shown(output: dict[str, Any]) -> str:
    return str(output["data"]["text/html"])


def test_a_run_shows_one_line_that_ends_with_done(published: list[dict[str, Any]], tmp_path: Path) -> None:
    run = sheaf.run("ecavg-digits", changes=QUICK, out=tmp_path / "run")
    assert [output["update"] for output in published].count(False) == 1
    assert shown(published[0]) == "<div>ecavg on digits with mlp, seed 0: starting</div>"
    assert ": done, " in shown(published[-1])
    assert run.plot()
    sheaf.run("ecavg-digits", changes=QUICK, out=tmp_path / "quiet", progress=False)
    assert ": done, " in shown(published[-1])
    assert len([output for output in published if not output["update"]]) == 1


def test_the_bar_the_notes_and_the_hint_after_a_stop(
    published: list[dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sheaf.api.notebook.INTERVAL", -1)
    observer = make_observer(None, "a <run>", tmp_path / "r")
    assert isinstance(observer, NotebookProgress)
    observer.__enter__()
    observer.note("a <note>")
    observer.began("train", ["edge-1", "edge-2"])
    observer.step("edge-1", 5, 10, 0.5, 100)
    assert shown(published[-1]) == (
        "<div>note: a &lt;note&gt;</div><div>a &lt;run&gt;: training 2 sites "
        '<progress value="0.250" max="1"></progress> 25%</div>'
    )
    timeline = Timeline({"edge-1": TimedSite()}, lambda: 0)
    timeline.now = 90.0
    observer.timed(timeline)
    assert "training 2 sites, virtual time 90.0 s <progress" in shown(published[-1])
    observer.__exit__(KeyboardInterrupt, KeyboardInterrupt(), None)
    assert f"stopped; continue with sheaf.resume(&#x27;{tmp_path / 'r'}&#x27;)" in shown(published[-1])


def test_outside_of_a_notebook(tmp_path: Path) -> None:
    assert isinstance(make_observer(True, "a run", tmp_path), Live)
    assert isinstance(make_observer(None, "a run", tmp_path), NullObserver), "standard error is no terminal"
    assert isinstance(make_observer(False, "a run", tmp_path), NullObserver)
