"""The condition, the interval and the size limit of a fleet in service, as users write them."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from sheaf.core.errors import SettingError

QUANTITIES = ("new samples", "samples", "devices")
"""Quantities of a condition: training samples that the devices have gained since the last finished round,
all training samples, and devices that can take part."""

OPERATORS: dict[str, Callable[[int, int], bool]] = {
    ">=": operator.ge,
    "<=": operator.le,
    ">": operator.gt,
    "<": operator.lt,
    "==": operator.eq,
}
SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
BYTES = {"kB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
JOULES = {"J": 1, "kJ": 10**3, "MJ": 10**6, "Wh": 3600, "kWh": 3_600_000}

_TERM = re.compile(rf"\s*({'|'.join(QUANTITIES)})\s*(>=|<=|==|>|<)\s*(\d+)\s*")


@dataclass(frozen=True)
class Condition:
    """A condition for a round, such as ``new samples >= 500 and devices >= 3``.

    Attributes:
        terms: (quantity, operator, number); all must hold. Empty: always true.
    """

    terms: tuple[tuple[str, str, int], ...] = ()

    @classmethod
    def of(cls, text: str) -> Condition:
        """Parse a condition.

        Raises:
            SettingError: the text is not a condition.
        """
        terms = []
        for part in re.split(r"\band\b", text):
            if (match := _TERM.fullmatch(part)) is None:
                raise SettingError(
                    f"--when {text!r}: write 'QUANTITY >= NUMBER', joined by 'and'; quantities: "
                    f"{', '.join(QUANTITIES)}; operators: {', '.join(OPERATORS)}"
                )
            terms.append((match[1], match[2], int(match[3])))
        return cls(tuple(terms))

    def unmet(self, values: Mapping[str, int]) -> str | None:
        """Return the first term that does not hold, with its value; None if all hold."""
        for name, sign, number in self.terms:
            if not OPERATORS[sign](values[name], number):
                return f"{name} = {values[name]}, not {sign} {number}"
        return None


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
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([kMGT]B)", text)
    if match is None or not float(match[1]):
        raise SettingError(f"{option} {text}: write a size above 0 such as 500MB or 2GB")
    return int(float(match[1]) * BYTES[match[2]])


def parse_joules(option: str, text: str) -> float:
    """Return the joules of an energy such as ``20kJ`` or ``5Wh``.

    Raises:
        SettingError: the text is not an energy above 0.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(J|kJ|MJ|Wh|kWh)", text)
    if match is None or not float(match[1]):
        raise SettingError(f"{option} {text}: write an energy above 0 such as 500J, 20kJ or 5Wh")
    return float(match[1]) * JOULES[match[2]]
