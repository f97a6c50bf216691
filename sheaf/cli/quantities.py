"""Durations, sizes and energies as options of commands take them."""

from __future__ import annotations

import re
from collections.abc import Mapping

from sheaf.core.errors import SettingError

SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
BYTES = {"kB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
JOULES = {"J": 1, "kJ": 10**3, "MJ": 10**6, "Wh": 3600, "kWh": 3_600_000}


def parse_seconds(option: str, text: str) -> float:
    """Return the seconds of a duration such as ``24h`` or ``1h30m``.

    Raises:
        SettingError: the text is not a duration above 0.
    """
    parts = re.findall(r"(\d+(?:\.\d+)?)([smhd])", text)
    seconds = sum(float(number) * SECONDS[unit] for number, unit in parts)
    if "".join(number + unit for number, unit in parts) != text.replace(" ", "") or not seconds:
        raise SettingError(f"{option} {text}: write a duration above 0 such as 90s, 30m, 24h or 7d")
    return seconds


def parse_bytes(option: str, text: str) -> int:
    """Return the bytes of a size such as ``2GB``.

    Raises:
        SettingError: the text is not a size above 0.
    """
    return int(_parse(option, text, BYTES, "a size above 0 such as 500MB or 2GB"))


def parse_joules(option: str, text: str) -> float:
    """Return the joules of an energy such as ``20kJ`` or ``5Wh``.

    Raises:
        SettingError: the text is not an energy above 0.
    """
    return _parse(option, text, JOULES, "an energy above 0 such as 500J, 20kJ or 5Wh")


def _parse(option: str, text: str, units: Mapping[str, int], allowed: str) -> float:
    """Return a number with one of the units, in the smallest one."""
    match = re.fullmatch(rf"(\d+(?:\.\d+)?)\s*({'|'.join(units)})", text)
    if match is None or not float(match[1]):
        raise SettingError(f"{option} {text}: write {allowed}")
    return float(match[1]) * units[match[2]]
