"""Each fuzzing harness on a few inputs, so that it does not rot; ``make fuzz`` runs each for a minute."""

import sys

import pytest
from fuzz.engine import Harness, check_message, check_one, try_inputs
from fuzz.harnesses import NAMES, load

from sheaf.core.errors import DataError

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="memory is measured in /proc")

EXAMPLES = {"to_device": 5, "from_device": 4}


@pytest.mark.parametrize("name", NAMES)
def test_a_few_inputs_are_read_or_refused_in_one_line(name: str) -> None:
    assert try_inputs(load(name), EXAMPLES.get(name, 8)) > 0


def refuse(message: str) -> None:
    raise DataError(message)


def too_large(content: bytes) -> None:
    raise DataError("too large") from MemoryError()


def test_an_answer_that_breaks_the_rules_is_found() -> None:
    check_one(refuse, "row 3 is wrong; correct it")
    with pytest.raises(AssertionError, match="several lines"):
        check_message("one\ntwo")
    with pytest.raises(AssertionError, match=r"more than .* bytes of addresses: too large"):
        check_one(too_large, b"")
    with pytest.raises(KeyError):
        check_one({}.__getitem__, "key")
    with pytest.raises(AssertionError, match="bytes"):
        check_one(lambda size: bytearray(size), 1_200_000_000)
    inputs = load("kits").inputs
    assert try_inputs(Harness(inputs, lambda content: None), 30) >= 30
