"""What a run does to the process that it is in, and undoes."""

from __future__ import annotations

import gc
from pathlib import Path

import pytest

from sheaf import runs
from sheaf.config import Experiment
from sheaf.watch import Quiet


@pytest.mark.parametrize("already", [False, True])
def test_the_collector_passes_over_what_was_there_and_only_meanwhile(
    already: bool, quick: Experiment, tmp_path: Path
) -> None:
    """And what somebody else has frozen before stays frozen."""
    meanwhile: list[int] = []

    class Watching(Quiet):
        def began(self, kind: str, sites: tuple[str, ...]) -> None:
            meanwhile.append(gc.get_freeze_count())

    assert gc.get_freeze_count() == 0
    try:
        if already:
            gc.freeze()
        runs.run(quick, out=tmp_path / "run", watch=Watching())
        assert min(meanwhile) > 1000
        assert (gc.get_freeze_count() > 0) == already
    finally:
        gc.unfreeze()
