"""Where the models of a call are kept."""

from __future__ import annotations

import pytest

from sheaf.runtime import worker_group

MIB = 2**20


@pytest.mark.parametrize(
    ("size", "available", "fits"),
    [
        (128 * MIB, 0, True),
        (129 * MIB, 8 * 128 * MIB, False),
        (129 * MIB, 8 * 129 * MIB, True),
        (512 * MIB, 2**40, True),
        (513 * MIB, 2**40, False),
    ],
)
def test_models_are_kept_in_memory_within_an_eighth_of_it(
    size: int, available: int, fits: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_group, "available_memory", lambda: available)
    assert worker_group._fits_in_memory(size) is fits
