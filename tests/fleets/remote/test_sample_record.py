"""A device's record of its samples: held-out samples never leave, and a sample that left counts once."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support import one_line

from sheaf.core.dataset import Samples
from sheaf.core.errors import DataError, FleetError
from sheaf.core.recipe import Share
from sheaf.core.seeds import generator
from sheaf.data.held_out import hold_out
from sheaf.data.sample_selection import choose_samples
from sheaf.fleets.remote.device_settings import ShareSettings
from sheaf.fleets.remote.sample_record import SampleRecord, content_hash

ALL = ShareSettings(max_fraction=1.0)


def samples(numbers: list[int] | range) -> Samples:
    """One sample of four bytes per number; equal numbers have equal contents."""
    inputs = torch.tensor(list(numbers), dtype=torch.int32).view(torch.uint8).reshape(-1, 1, 2, 2)
    return Samples.of(inputs, torch.arange(len(numbers)) % 3)


def contents(part: Samples) -> set[str]:
    return {content_hash(part.inputs[position]) for position in part.positions}


def run(
    folder: Path, own: Samples, share: Share, limits: ShareSettings, seed: int, by_owner: float | None = None
) -> tuple[Samples, Samples, Samples]:
    """Do what a device does in one run; return its training, held-out and sent samples."""
    record = SampleRecord(folder)
    held = 0.1 if by_owner is None else by_owner
    training, held_out = record.split(own, held, seed, by_owner=by_owner is not None)
    record.check(share, training, limits)
    chosen = choose_samples(training, share, seed, None, lambda order: record.may_leave(order, limits))
    sent = training.select(chosen)
    record.record_shared(sent, limits)
    return training, held_out, sent


def test_ten_runs_that_share_everything_are_never_refused_and_no_held_out_sample_leaves(
    tmp_path: Path,
) -> None:
    sent: set[str] = set()
    held_out: set[str] = set()
    for number in range(10):  # 30 new samples arrive between the runs, and the 20 oldest go
        own = samples(range(20 * number, 600 + 30 * number))
        training, held, shared = run(tmp_path, own, Share(), ALL, seed=number)
        assert len(shared) == len(training), "all training samples leave"
        assert held_out & contents(own) <= contents(held), "what was held out stays so"
        sent |= contents(shared)
        held_out |= contents(held)
    assert not sent & held_out
    assert 0.07 < len(held_out) / 870 < 0.13, "the fraction holds for new samples, too"
    allowance = SampleRecord(tmp_path).allowance(ALL)
    assert (allowance.samples, allowance.used, allowance.held_out) == (870, len(sent), len(held_out))


def test_a_limit_holds_over_all_runs_and_samples_that_left_may_leave_again(tmp_path: Path) -> None:
    own, limits = samples(range(1000)), ShareSettings(max_fraction=0.05)
    sent: set[str] = set()
    for seed in range(5):
        _, _, shared = run(tmp_path, own, Share(fraction=0.05), limits, seed)
        assert len(shared) == 45
        sent |= contents(shared)
    assert len(sent) == 50, "5 % of all 1,000"
    with pytest.raises(FleetError) as error:
        run(tmp_path, own, Share(fraction=0.5), limits, 9)
    one_line(error)
    assert str(error.value).startswith(
        "sharing 50 % of its samples (450) exceeds [share] max_fraction = 0.05 (5 %): "
        "50 of its 1,000 samples may leave it over all runs, 50 have left; "
    )
    assert SampleRecord(tmp_path).allowance(limits).left == 0


def test_the_first_split_is_that_of_one_process_and_a_resumed_run_repeats_it(tmp_path: Path) -> None:
    own = samples(range(100))
    expected = hold_out(own, 0.1, 7)
    for seed in (7, 7, 8):  # a run, its continuation in a new process, and another run
        parts = SampleRecord(tmp_path).split(own, 0.1, seed, by_owner=False)
        assert all(torch.equal(a.positions, b.positions) for a, b in zip(parts, expected, strict=True))


def test_copies_of_a_sample_are_in_one_part(tmp_path: Path) -> None:
    own = samples([*range(50), *range(50)])
    for seed in range(3):
        training, held_out = SampleRecord(tmp_path).split(own, 0.2, seed, by_owner=False)
        assert not contents(training) & contents(held_out)
        assert len(training) + len(held_out) == 100


def test_the_ledger_of_an_older_version_goes_on_counting(tmp_path: Path) -> None:
    own = samples(range(200))
    old = [content_hash(own.inputs[n]) for n in range(40)]
    (tmp_path / "shared.txt").write_text("\n".join(old))
    limits = ShareSettings(max_fraction=0.2)
    training, _, shared = run(tmp_path, own, Share(fraction=0.2), limits, 1)
    assert set(old) <= contents(training), "what has left is not held out"
    assert contents(shared) <= set(old), "the allowance was used up before"


def test_the_owner_can_change_the_fraction(tmp_path: Path) -> None:
    own = samples(range(100))
    held = [run(tmp_path, own, Share(count=1), ALL, 1, by_owner=f)[1] for f in (0.1, 0.3, 0.3, 0.2)]
    assert [len(each) for each in held] == [10, 30, 30, 20]
    assert contents(held[0]) < contents(held[1])
    assert contents(held[3]) < contents(held[2]) == contents(held[1])
    record = SampleRecord(tmp_path)
    _, last = record.split(own, 0.2, 1, by_owner=True)
    assert contents(record.fair(last, 1)) == contents(held[0]) & contents(last)
    with pytest.raises(DataError, match="leaves none to train on"):
        SampleRecord(tmp_path).split(samples(range(2)), 0.9, 1, by_owner=True)


@settings(max_examples=30)
@given(
    st.lists(st.lists(st.integers(0, 60), min_size=1), min_size=1, max_size=4),
    st.floats(0, 1),
    st.floats(0.01, 1),
)
def test_no_history_exceeds_the_limit(
    tmp_path_factory: pytest.TempPathFactory, histories: list[list[int]], most: float, asked: float
) -> None:
    folder, limits = tmp_path_factory.mktemp("device"), ShareSettings(max_fraction=most)
    had: set[int] = set()
    for seed, numbers in enumerate(histories):
        had |= set(numbers)
        try:
            run(folder, samples(numbers), Share(fraction=asked), limits, seed, by_owner=0.2)
        except DataError:
            return
        except FleetError:
            assert most < 1, "a fraction of 1 never refuses"
        allowance = SampleRecord(folder).allowance(limits)
        assert allowance.used <= round(most * len(had))
        assert allowance.samples == len(had)


@pytest.mark.parametrize(("file", "content"), [("samples.safetensors", b"x" * 9), ("shared.txt", b"no hash")])
def test_a_damaged_record_is_an_error_of_one_line(tmp_path: Path, file: str, content: bytes) -> None:
    (tmp_path / file).write_bytes(content)
    with pytest.raises(FleetError, match=f"{file} is damaged") as error:
        SampleRecord(tmp_path)
    one_line(error)


def test_hashes_differ_in_all_samples_of_a_set() -> None:
    draws = torch.randint(256, (100, 1, 4, 4), generator=generator(1), dtype=torch.uint8)
    own = Samples.of(draws, torch.zeros(100, dtype=torch.int64))
    assert len(np.unique([content_hash(sample) for sample in own.inputs])) == 100
