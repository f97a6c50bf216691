"""Durations, sizes and energies as options of commands take them."""

from __future__ import annotations

import pytest

from sheaf.cli.quantities import parse_bytes, parse_joules, parse_seconds
from sheaf.core.errors import SettingError


def test_a_quantity_is_a_number_with_a_unit() -> None:
    assert (parse_seconds("--every", "1h30m"), parse_bytes("--max-size", "1.5GB")) == (5400, 1_500_000_000)
    assert (parse_joules("--joules", "20kJ"), parse_joules("--joules", "0.5 Wh")) == (20_000, 1800)


def test_other_quantities_are_refused_with_an_example() -> None:
    for text in ("24", "0h", "h", "1h x"):
        with pytest.raises(SettingError, match=r"--every .*write a duration above 0"):
            parse_seconds("--every", text)
    for text in ("2", "0MB", "2 gb"):
        with pytest.raises(SettingError, match=r"--max-size .*write a size above 0"):
            parse_bytes("--max-size", text)
    for text in ("20", "0J", "3 kwh"):
        with pytest.raises(SettingError, match=r"--joules .*write an energy above 0"):
            parse_joules("--joules", text)
