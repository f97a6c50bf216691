"""The condition for a round of a fleet in service, as users write it."""

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
