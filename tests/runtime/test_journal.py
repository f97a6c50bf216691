"""The journal: answers survive a crash at any moment, and damage is an error."""

from __future__ import annotations

import errno
import math
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support import one_line

from sheaf.core.errors import RunFolderError
from sheaf.core.recipe import Recipe
from sheaf.core.task import Cost, Task, Update
from sheaf.core.tensor_file import Blob, write_together
from sheaf.runtime.journal import Journal

IDENTITY = {"experiment": "e", "data": "d"}


def task(call: int, kind: str = "train") -> Task:
    return Task(kind, call, 10 + call, Blob.of({"w": torch.full((2,), float(call))}), Recipe())  # type: ignore[arg-type]


def update(site: str, call: int, value: float | None = 1.5) -> Update:
    blob = None if value is None else Blob.of({"w": torch.tensor([value, call])})
    return Update(site, "train", blob, (call, 2), {"losses": [0.1, value or 0.0]}, Cost(call, 0.125, 3))


def same(one: Update | None, other: Update) -> bool:
    assert one is not None
    bits = (one.blob and one.blob.sha256) == (other.blob and other.blob.sha256)
    return bits and replace(one, blob=None) == replace(other, blob=None)


def record(journal: Journal, task: Task, update: Update) -> Update:
    """Record an answer that something still needs when the journal is closed."""
    recorded = journal.record(task, update)
    journal.keep([recorded])
    return recorded


@pytest.fixture
def written(tmp_path: Path) -> Path:
    """A journal with the answers of two sites to calls 1 and 2."""
    with Journal(tmp_path / "journal", IDENTITY) as open_journal:
        for call in (1, 2):
            for site in ("a", "b"):
                record(open_journal, task(call), update(site, call))
    return tmp_path / "journal"


answers = st.lists(
    st.tuples(st.integers(1, 4), st.sampled_from("abc"), st.none() | st.floats(width=32, allow_nan=False)),
    max_size=8,
    unique_by=lambda answer: answer[:2],
)


@settings(max_examples=30)
@given(answers, st.integers(0, 8))
def test_a_reopened_journal_returns_every_answer(
    given_answers: list[tuple[int, str, float | None]], reopen_after: int
) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "journal"
        for part in (given_answers[:reopen_after], given_answers[reopen_after:]):
            with Journal(folder, IDENTITY) as open_journal:
                for call, site, value in part:
                    assert open_journal.result(site, task(call)) is None
                    recorded = record(open_journal, task(call), update(site, call, value))
                    assert same(recorded, update(site, call, value))
                    assert same(open_journal.result(site, task(call)), update(site, call, value))
        with Journal(folder, IDENTITY) as open_journal:
            for call, site, value in given_answers:
                assert same(open_journal.result(site, task(call)), update(site, call, value))
            assert open_journal.result("never asked", task(1)) is None


def test_answers_of_one_file_share_one_file_in_the_journal(tmp_path: Path) -> None:
    def recorded(journal: Journal, sites: str) -> None:
        answers = {site: update(site, 1, float(at)) for at, site in enumerate(sites)}
        blobs = {site: answer.blob for site, answer in answers.items() if answer.blob is not None}
        together = write_together(
            tmp_path / f"{sites}.together", {site: blob.open() for site, blob in blobs.items()}
        )
        for site, answer in answers.items():
            assert same(record(journal, task(1), replace(answer, blob=together[site])), answer)
        (tmp_path / f"{sites}.together").unlink()

    with Journal(tmp_path / "j", IDENTITY) as journal:
        recorded(journal, "abc")
        recorded(journal, "dc")  # the other sites of an interrupted call
        record(journal, task(1), update("e", 1))
    names = sorted(path.name for path in (tmp_path / "j").glob("*.safetensors"))
    assert names == ["000001-a.safetensors", "000001-d.safetensors", "000001-e.safetensors"]
    with Journal(tmp_path / "j", IDENTITY) as again:
        for site, value in {"a": 0.0, "b": 1.0, "c": 1.0, "d": 0.0, "e": 1.5}.items():
            assert same(again.result(site, task(1)), update(site, 1, value))


def test_a_line_is_written_after_its_tensors_are_durable(tmp_path: Path) -> None:
    blob = write_together(tmp_path / "whole", {"a": {"w": torch.ones(2)}})["a"]
    syncing: Future[None] = Future()
    with Journal(tmp_path / "j", IDENTITY) as journal:
        record(journal, task(1), replace(update("a", 1), blob=replace(blob, syncing=syncing)))
        content = (tmp_path / "j" / "journal.jsonl").read_bytes()
        settling = threading.Thread(target=journal.settle)
        settling.start()
        settling.join(0.3)
        assert settling.is_alive()
        assert (tmp_path / "j" / "journal.jsonl").read_bytes() == content
        syncing.set_result(None)
        settling.join()
        assert (tmp_path / "j" / "journal.jsonl").read_bytes().count(b"\n") == 1 + content.count(b"\n")


def test_a_failed_fsync_stops_the_run(tmp_path: Path) -> None:
    blob = write_together(tmp_path / "whole", {"a": {"w": torch.ones(2)}})["a"]
    syncing: Future[None] = Future()
    syncing.set_exception(OSError(errno.EIO, "the disk failed"))
    journal = Journal(tmp_path / "j", IDENTITY)
    record(journal, task(1), replace(update("a", 1), blob=replace(blob, syncing=syncing)))
    with pytest.raises(OSError, match="the disk failed"):
        journal.settle()
    with pytest.raises(OSError, match="the disk failed"):
        record(journal, task(1), update("b", 1))
    with pytest.raises(OSError, match="the disk failed"):
        journal.__exit__()
    with Journal(tmp_path / "j", IDENTITY) as again:
        assert again.result("a", task(1)) is None


def test_a_loss_that_is_not_finite_is_restored(tmp_path: Path) -> None:
    with Journal(tmp_path / "j", IDENTITY) as open_journal:
        record(open_journal, task(1), replace(update("a", 1), metrics={"loss": math.nan, "most": math.inf}))
    with Journal(tmp_path / "j", IDENTITY) as open_journal:
        found = open_journal.result("a", task(1))
        assert found is not None
        assert math.isnan(found.metrics["loss"])
        assert found.metrics["most"] == math.inf


def test_an_incomplete_last_line_is_dropped_wherever_it_ends(written: Path, tmp_path: Path) -> None:
    content = (written / "journal.jsonl").read_bytes()
    whole = content[: content.rindex(b"\n", 0, -1) + 1]
    assert len(content) - len(whole) > 100
    for end in range(len(whole), len(content)):
        (written / "journal.jsonl").write_bytes(content[:end])
        with Journal(written, IDENTITY) as open_journal:
            assert open_journal.result("b", task(2)) is None
            found = open_journal.result("a", task(2))
            assert isinstance(found, Update)
            assert same(found, update("a", 2))
            open_journal.keep([found])
        assert (written / "journal.jsonl").read_bytes() == whole


def test_a_journal_with_an_incomplete_first_line_starts_again(tmp_path: Path) -> None:
    with Journal(tmp_path / "j", IDENTITY):
        pass
    content = (tmp_path / "j" / "journal.jsonl").read_bytes()
    for end in range(len(content)):
        (tmp_path / "j" / "journal.jsonl").write_bytes(content[:end])
        with Journal(tmp_path / "j", IDENTITY) as open_journal:
            assert open_journal.result("a", task(1)) is None
        assert (tmp_path / "j" / "journal.jsonl").read_bytes() == content


def test_an_answer_whose_line_was_incomplete_can_be_recorded_again(written: Path) -> None:
    content = (written / "journal.jsonl").read_bytes()
    (written / "journal.jsonl").write_bytes(content[:-20])
    with Journal(written, IDENTITY) as open_journal:
        record(open_journal, task(2), update("b", 2))
    assert (written / "journal.jsonl").read_bytes() == content


def test_a_flipped_byte_is_damage_wherever_it_is(tmp_path: Path) -> None:
    with Journal(tmp_path, IDENTITY) as open_journal:
        for site in ("a", "b"):
            record(open_journal, task(1), update(site, 1, None))
    content = (tmp_path / "journal.jsonl").read_bytes()
    for place in range(len(content) - 1):  # the very last newline aside: without it the line is half-written
        damaged = bytearray(content)
        damaged[place] ^= (0x01, 0x20, 0x80)[place % 3]
        (tmp_path / "journal.jsonl").write_bytes(damaged)
        with pytest.raises(RunFolderError, match=r"journal\.jsonl: line \d is damaged") as error:
            Journal(tmp_path, IDENTITY)
        one_line(error)
        assert (tmp_path / "journal.jsonl").read_bytes() == damaged, "the damaged file is not modified"


@pytest.mark.parametrize("harm", ["missing", "flipped", "shorter", "empty"])
def test_damaged_tensors_are_an_error(written: Path, harm: str) -> None:
    path = written / "000001-a.safetensors"
    content = bytearray(path.read_bytes())
    if harm == "missing":
        path.unlink()
    else:
        content[-1] ^= 1
        path.write_bytes({"flipped": bytes(content), "shorter": bytes(content[:-1]), "empty": b""}[harm])
    with Journal(written, IDENTITY) as open_journal:
        assert same(open_journal.result("b", task(1)), update("b", 1))
        found = open_journal.result("a", task(1))
        assert isinstance(found, Update)
        with pytest.raises(RunFolderError, match=r"000001-a\.safetensors: missing or damaged") as error:
            _ = found.params
        one_line(error)


def test_tensors_without_a_line_are_overwritten(tmp_path: Path) -> None:
    with Journal(tmp_path / "j", IDENTITY) as open_journal:
        (tmp_path / "j" / "000001-a.safetensors").write_bytes(b"the plug was pulled before the line")
        record(open_journal, task(1), update("a", 1))
        assert same(open_journal.result("a", task(1)), update("a", 1))


@pytest.mark.parametrize("key", list(IDENTITY))
def test_the_journal_of_another_run_is_an_error_that_names_the_difference(written: Path, key: str) -> None:
    before = (written / "journal.jsonl").read_bytes()
    with pytest.raises(
        RunFolderError, match=f"started with another {key} \\({key[0]}, now other\\)"
    ) as error:
        Journal(written, IDENTITY | {key: "other"})
    one_line(error)
    assert (written / "journal.jsonl").read_bytes() == before


def test_another_task_in_the_same_call_is_an_error(written: Path) -> None:
    with Journal(written, IDENTITY) as open_journal:
        with pytest.raises(RunFolderError, match="call 1 gave a another task") as error:
            open_journal.result("a", replace(task(1), seed=99))
        one_line(error)


def test_a_copied_folder_is_the_same_journal(written: Path, tmp_path: Path) -> None:
    shutil.copytree(written, tmp_path / "copy")
    with Journal(tmp_path / "copy", IDENTITY) as open_journal:
        found = open_journal.result("a", task(1))
    assert same(found, update("a", 1))
    assert found is not None
    assert found.params["w"].tolist() == [1.5, 1]


def test_an_answer_becomes_durable_within_a_second_by_itself(tmp_path: Path) -> None:
    with Journal(tmp_path / "journal", IDENTITY) as writing:
        record(writing, task(1), update("a", 1))
        copy = tmp_path / "copy"
        for _ in range(50):  # the state after a crash
            time.sleep(0.1)
            shutil.copytree(tmp_path / "journal", copy)
            with Journal(copy, IDENTITY) as found:
                if found.result("a", task(1)) is not None:
                    break
            shutil.rmtree(copy)
        else:
            pytest.fail("five seconds, and nothing is on disk")


FOLDERS = [str(Path(__file__).parent), str(Path(__file__).parents[1])]
"""Of this module and of the helpers that it imports."""

FULL = """
import resource, sys, time
from pathlib import Path
sys.path[:0] = sys.argv[2:]
from test_journal import IDENTITY, record, task, update
from sheaf.runtime.journal import TOGETHER, Journal

with Journal(Path(sys.argv[1]), IDENTITY) as journal:
    record(journal, task(1), update("a", 1))
    journal.settle()
    size = Path(sys.argv[1], "journal.jsonl").stat().st_size
    resource.setrlimit(resource.RLIMIT_FSIZE, (size + 40, resource.RLIM_INFINITY))  # a disk that is full
    try:
        record(journal, task(2), update("a", 2, None))
        time.sleep(2 * TOGETHER)
        record(journal, task(3), update("a", 3, None))
    except OSError as error:
        print("refused:", error)
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
"""


def test_on_a_full_disk_the_next_answer_fails_and_earlier_ones_survive(tmp_path: Path) -> None:
    command = [sys.executable, "-c", FULL, str(tmp_path / "journal"), *FOLDERS]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert "refused:" in done.stdout, done.stderr
    with Journal(tmp_path / "journal", IDENTITY) as again:
        assert same(again.result("a", task(1)), update("a", 1))  # type: ignore[arg-type]
        assert again.result("a", task(3)) is None
