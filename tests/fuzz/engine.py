"""A fuzzer: mutated inputs, of which each must be read or refused by one line, in bounded time and memory.

Hypothesis draws the mutations and shrinks an input that fails. A harness is a list of valid inputs (seeds),
written by this package, and a function that reads one input.
"""

from __future__ import annotations

import copy
import faulthandler
import json
import resource
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hypothesis
from hypothesis import strategies as st

from sheaf.core.errors import SheafError

MEMORY = 1 << 30
"""Bytes by which one input may raise the peak memory of the process."""
ADDRESSES = 6 << 30
"""Bytes by which one input may raise the size of the address space: a limit that the system enforces."""
SECONDS = 10.0
"""Time of the processor that one input may take."""
HUNG = 120.0
"""Time after which the process is ended with a traceback of all threads."""
LONGEST = 4000
"""Characters of a message."""
BATCH = 100
"""Examples that Hypothesis draws at a time."""


@dataclass(frozen=True)
class Harness:
    """One kind of input.

    Attributes:
        inputs: mutated inputs.
        read: reads one; raises a SheafError to refuse it.
    """

    inputs: st.SearchStrategy[Any]
    read: Callable[[Any], object]


def fuzz(harness: Harness, seconds: float, last: Path) -> int:
    """Read inputs for some seconds; return their number. Each is written to the file ``last`` before."""
    end = time.monotonic() + seconds
    batch = count = 0
    while time.monotonic() < end:
        count += try_inputs(harness, BATCH, batch, last)
        batch += 1
    return count


def try_inputs(harness: Harness, number: int, seed: int = 0, last: Path | None = None) -> int:
    """Read ``number`` inputs drawn from a seed; return how many different ones there were.

    Raises:
        AssertionError: an input takes too long or too much memory, or the refusal is not one line.
        Exception: one that is no SheafError.
    """
    count = 0

    @hypothesis.seed(seed)
    @hypothesis.settings(
        max_examples=number,
        database=None,
        deadline=None,
        suppress_health_check=list(hypothesis.HealthCheck),
        phases=(hypothesis.Phase.generate, hypothesis.Phase.shrink),
    )
    @hypothesis.given(harness.inputs)
    def check(content: Any) -> None:
        nonlocal count
        count += 1
        if last is not None:
            last.write_bytes(content if isinstance(content, bytes) else repr(content).encode())
        check_one(harness.read, content)

    with limited_memory():
        check()
    return count


def check_one(read: Callable[[Any], object], content: Any) -> None:
    """Read one input within the limits."""
    faulthandler.dump_traceback_later(HUNG, exit=True)
    before, started = reset_peak(), time.process_time()
    unraisable: list[Any] = []
    own_hook, sys.unraisablehook = sys.unraisablehook, unraisable.append
    try:
        read(content)
    except SheafError as error:
        check_refusal(error)
    finally:
        faulthandler.cancel_dump_traceback_later()
        sys.unraisablehook = own_hook
    assert not unraisable, f"an exception that is only printed: {unraisable[0].exc_value!r}"
    seconds, memory = time.process_time() - started, peak() - before
    assert seconds < SECONDS, f"took {seconds:.1f} s"
    assert memory < MEMORY, f"took {memory:,} bytes"


def check_refusal(error: BaseException) -> None:
    """Check the message of an error, and that a lack of memory did not cause it."""
    check_message(str(error))
    cause: BaseException | None = error
    while cause is not None:
        assert not isinstance(cause, MemoryError), f"more than {ADDRESSES:,} bytes of addresses: {error}"
        cause = cause.__cause__ or cause.__context__


def check_message(message: str) -> None:
    """Check that a message is one line that every terminal and file can hold."""
    assert message.strip(), "an empty message"
    assert len(message) <= LONGEST, f"a message of {len(message)} characters: {message[:200]}"
    assert len(message.splitlines()) == 1, f"several lines: {message!r}"
    message.encode()


@contextmanager
def limited_memory() -> Iterator[None]:
    """Limit the address space of the process inside the block."""
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + ADDRESSES, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def reset_peak() -> int:
    """Set the process's peak memory to the present use, and return that in bytes."""
    Path("/proc/self/clear_refs").write_text("5")
    return peak()


def peak() -> int:
    """Return the process's peak memory in bytes."""
    status = Path("/proc/self/status").read_text()
    return 1024 * int(status.partition("VmHWM:")[2].split()[0])


NUMBERS = (0, 1, 2, 7, 8, 16, 32, 127, 128, 255, 256, 32767, 32768, 65535, 2**31 - 1, 2**31, 2**32 - 1, 2**63)

_chunks = st.one_of(
    st.binary(max_size=9),
    st.builds(
        lambda number, size, order: (number % 256**size).to_bytes(size, order),
        st.sampled_from(NUMBERS),
        st.sampled_from((1, 2, 4, 8)),
        st.sampled_from(("little", "big")),
    ),
)
ByteEdits = list[tuple[str, float | int, bytes, int]]
"""(kind, place as a fraction of the length or as an offset, bytes, length) of each edit."""
ValueEdits = list[tuple[str, int, Any]]

byte_edits: st.SearchStrategy[ByteEdits] = st.lists(
    st.tuples(
        st.sampled_from(("overwrite", "overwrite", "insert", "delete", "repeat", "cut")),
        st.floats(0, 1) | st.integers(0, 127),  # most headers are at the start
        _chunks,
        st.integers(1, 64),
    ),
    max_size=6,
)
"""Edits for ``edit_bytes``."""


def edit_bytes(content: bytes, edits: ByteEdits) -> bytes:
    """Return ``content`` after the edits."""
    edited = bytearray(content)
    for kind, place, chunk, length in edits:
        start = place if isinstance(place, int) else int(place * len(edited))
        if kind == "overwrite":
            edited[start : start + len(chunk)] = chunk
        elif kind == "insert":
            edited[start:start] = chunk
        elif kind == "delete":
            del edited[start : start + length]
        elif kind == "repeat":
            edited[start:start] = edited[start : start + length] * len(chunk)
        elif length > 56:
            del edited[start:]
    return bytes(edited)


def mutated(
    seeds: Sequence[bytes], repair: Callable[[bytes], bytes] = lambda content: content
) -> st.SearchStrategy[bytes]:
    """Return seeds with up to six edits. Half of them are repaired, such as by new checksums."""

    def mutate(seed: bytes, edits: ByteEdits, repaired: bool) -> bytes:
        content = edit_bytes(seed, edits)
        return repair(content) if repaired else content

    return st.builds(mutate, st.sampled_from(list(seeds)), byte_edits, st.booleans())


_leaves: st.SearchStrategy[Any] = st.one_of(
    st.none(),
    st.booleans(),
    st.sampled_from([0, 1, -1, 2**31, 2**63, 2**64, 10**30, 0.5, -0.5, 1e308, float("inf"), float("nan")]),
    st.sampled_from(["", "\n", "\0", "\ud800", "../x", "x" * 3000, "mean", "sgd", "1", "[/bold]", "a:b"]),
    st.sampled_from([[], {}, [[]], [0], {"name": 5}, {"": None}, [1.5] * 40]),
)

value_edits: st.SearchStrategy[ValueEdits] = st.lists(
    st.tuples(
        st.sampled_from(("replace", "replace", "replace", "remove", "add")), st.integers(0, 10_000), _leaves
    ),
    min_size=1,
    max_size=3,
)
"""Edits for ``edit_value``."""


def edit_value(value: Any, edits: ValueEdits) -> Any:
    """Return a JSON value in which values or keys are replaced, removed or added."""
    content = json.loads(json.dumps(value))
    for kind, number, new in edits:
        places = list(_places(content))
        if not places:
            return copy.deepcopy(new)
        container, key = places[number % len(places)]
        if kind == "replace":
            container[key] = copy.deepcopy(new)
        elif kind == "remove":
            del container[key]
        elif isinstance(container, dict):
            container[new if isinstance(new, str) else "extra"] = container[key]
        else:
            container.append(copy.deepcopy(new))
    return content


def mutated_values(seeds: Sequence[Any]) -> st.SearchStrategy[Any]:
    """Return JSON values with up to three edits."""
    return st.builds(edit_value, st.sampled_from(list(seeds)), value_edits)


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Yield (container, key) of all values inside ``value``."""
    if isinstance(value, dict | list):
        for key in list(value) if isinstance(value, dict) else range(len(value)):
            yield value, key
            yield from _places(value[key])
