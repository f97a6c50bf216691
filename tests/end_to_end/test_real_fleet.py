"""A cloud and its devices in processes of their own, over TLS: the same results as in one process."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Thread

import pyarrow.parquet as pq
import pytest
from browser import chromium, set_width
from PIL import Image
from support import QUICK

from sheaf.core.types import CLOUD
from sheaf.data.load import load_dataset
from sheaf.data.settings import DataSettings
from sheaf.experiments import rehearse as rehearsal
from sheaf.experiments import run as runs
from sheaf.experiments import run_on_fleet as deployed
from sheaf.experiments.config import load_experiment
from sheaf.experiments.export_run import export
from sheaf.experiments.setup import prepare
from sheaf.export.model_file import load_model
from sheaf.fleets.remote import run_record
from sheaf.fleets.remote.device_models import read_kept
from sheaf.fleets.remote.sample_pool import Pool
from sheaf.runtime.result import Result

PICTURES = "data.name=pictures"
ONE_THREAD = (*QUICK, "fleet.threads=1", PICTURES)


@pytest.fixture(scope="module", autouse=True)
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A folder of digits as PNG files, in the working directory."""
    folder = tmp_path_factory.mktemp("digits")
    digits = load_dataset(DataSettings(name="digits"))
    for split, samples in (("train", digits.train), ("test", digits.test)):
        for number, position in enumerate(samples.positions[:500].tolist()):
            path = folder / "pictures" / split / str(int(samples.targets[position])) / f"{number:03}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            pixels = samples.inputs[position, 0].numpy().repeat(2, 0).repeat(2, 1)
            Image.fromarray(pixels).save(path)
    with contextlib.chdir(folder):
        yield


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder of a fleet of two that waits for work; each device has its part of 400 digits."""
    folder = tmp_path_factory.mktemp("stage")
    with rehearsal.stage(prepare(load_experiment("ecavg-digits", ONE_THREAD)), folder) as found:
        yield found


def weights(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted((folder / "weights").iterdir())}


def assert_same_run(here: Path, there: Path) -> None:
    """Compare a run on the fleet with the same run in one process."""
    assert weights(here) == weights(there)
    found, expected = Result.read(there), Result.read(here)
    assert found.rows == expected.rows
    assert found.split == expected.split
    assert found.refused == []
    sent = {site: (cost.bytes_sent, cost.bytes_received) for site, cost in found.cost.items()}
    for site, cost in expected.cost.items():  # but for seconds and memory in the headers
        assert sent[site] == pytest.approx((cost.bytes_sent, cost.bytes_received), rel=0.02)
    assert {path.name for path in there.iterdir()} == {path.name for path in here.iterdir()} | {"pool"}
    pooled = [*Pool(there / "pool").files()]
    assert [file.edge for file in pooled] == ["edge-1", "edge-2"]
    assert all(all(pq.read_table(file.path)["is_file"].to_pylist()) for file in pooled)


def assert_measured_time(result: Result) -> None:
    """Check that the record covers each task of each site, one after another, and nothing beyond the run."""
    record = result.time
    assert record is not None
    assert not record.virtual
    assert record.spent.joules is None
    assert record.spent.bytes == sum(
        cost.bytes_sent + cost.bytes_received for site, cost in result.cost.items() if site != CLOUD
    )
    assert [call.call for call in record.calls] == list(range(1, len(record.calls) + 1))
    trained = next(call for call in record.calls if call.kind == "train")
    assert (trained.sites, trained.absent, trained.last in ("edge-1", "edge-2")) == (2, 0, True)
    seconds = [spent.seconds for spent in record.measured]
    assert len(seconds) == len(result.rows)
    assert 0 < seconds[0] <= seconds[-1] <= record.spent.seconds
    for site in ("edge-1", "edge-2", CLOUD):
        own = [task for task in record.tasks if task.site == site]
        assert own
        ends = [task.start + task.download + task.work + task.upload for task in own]
        assert all(later.start >= end - 1e-3 for end, later in zip(ends, own[1:], strict=False))
        assert ends[-1] <= record.spent.seconds + 1e-3
        total = record.sites[site]
        assert total.computing == pytest.approx(sum(task.work for task in own), abs=1e-4)
        assert total.receiving + total.computing + total.sending + total.waiting == pytest.approx(
            record.spent.seconds, rel=0.01
        )
        at_a_device = site != CLOUD
        assert (total.sending > 0, total.computing > 0, total.away) == (at_a_device, True, 0.0)


def test_the_real_fleet_ends_with_the_weights_of_the_one_in_process(fleet: Path, tmp_path: Path) -> None:
    experiment = load_experiment("ecavg-digits", ONE_THREAD)
    runs.run(experiment, out=tmp_path / "here")
    deployed.run(experiment, fleet, out=tmp_path / "there")
    assert_same_run(tmp_path / "here", tmp_path / "there")
    exported = export(tmp_path / "there", "edge-1", "safetensors", tmp_path / "model.safetensors")
    assert exported.measured.startswith("compared with the run's own logits on 16 random examples: ")
    assert_measured_time(Result.read(tmp_path / "there"))
    replacements = Result.read(tmp_path / "there").replacements
    for edge in ("edge-1", "edge-2"):
        kept = read_kept(fleet.parent / edge / "state" / "model.safetensors")
        decision = replacements[edge]
        assert (kept.name, kept.replaced, kept.held_out) == ("there", True, decision.held_out)
        row = Result.read(tmp_path / "here").final(edge)
        assert row is not None
        assert decision.held_out == pytest.approx(row.held_out)
        assert load_model(fleet.parent / edge / "state" / "model.safetensors").card.outputs


def test_a_run_that_is_killed_goes_on_from_its_journal(
    fleet: Path, tmp_path: Path, fork_server: Path
) -> None:
    """Of sub-models, with pooled samples; long enough in its last step to be killed there."""
    changes = (
        *("data.limit=400", "data.limit_test=100", "fleet.threads=1", PICTURES),
        *("method=decoupled", "method.train.epochs=4", "method.share.fraction=0.5"),
        *("method.negatives=pooled", "method.retrain.epochs=100"),
    )
    runs.run(load_experiment("ecavg-digits", changes), out=tmp_path / "here")
    sets = [part for change in changes for part in ("--set", change)]
    there, command = tmp_path / "there", [fork_server / "sheaf", "cloud", "run", "--fleet", fleet]
    process = subprocess.Popen([*command, "ecavg-digits", *sets, "--out", there], stdout=subprocess.DEVNULL)
    journal = there / "journal" / "journal.jsonl"
    wait_until(lambda: journal.exists() and b'"kind":"adopt"' in journal.read_bytes())
    time.sleep(0.2)  # the edges train again, or are about to
    process.kill()
    assert process.wait() == -signal.SIGKILL
    before = journal.read_bytes()
    assert not (there / "result.json").exists()
    done = subprocess.run([*command, "--resume", there], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert journal.read_bytes().startswith(before), "what had arrived is not asked for again"
    assert_same_run(tmp_path / "here", there)
    exported = export(there, "edge-1", "safetensors", tmp_path / "model.safetensors")
    assert exported.measured.startswith("compared with the run's own logits on ")


@pytest.fixture
def page(fleet: Path, fork_server: Path) -> Iterator[str]:
    """The address of the fleet's page, which a process of its own serves."""
    command = [fork_server / "sheaf", "cloud", "page", "--fleet", fleet, "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield process.stdout.readline().strip()
        process.kill()


def test_the_page_follows_a_run(
    fleet: Path, page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_record, "INTERVAL", 0.1)
    experiment = load_experiment("ecavg-digits", (*ONE_THREAD, "method.pretrain.epochs=250"))
    run = Thread(target=deployed.run, args=(experiment, fleet), kwargs={"out": tmp_path / "run"})
    with chromium(tmp_path / "browser") as browser:
        browser.get(page)
        assert "token" not in browser.current_url

        def main() -> str:
            return str(browser.execute_script("return document.querySelector('main').innerText"))

        wait_until(lambda: "2 of 2 connected" in main())
        run.start()
        try:
            wait_until(lambda: "Training 2 sites: " in main())
            set_width(browser, 400)
            assert browser.execute_script("return document.documentElement.scrollWidth") <= 400
        finally:
            run.join()
        wait_until(lambda: "The latest run has ended." in main())
        wait_until(lambda: all(text in main() for text in ("took part", "run, ", "after retraining")))
        assert browser.execute_script("return document.querySelectorAll('#curves svg').length") == 2
        assert browser.execute_script("return document.querySelectorAll('#timeline svg').length") == 1
        assert browser.get_log("browser") == []


def wait_until(done: Callable[[], bool], seconds: float = 120.0) -> None:
    until = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < until
        time.sleep(0.02)
