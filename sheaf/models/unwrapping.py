"""Find a model's state_dict in a checkpoint: under a key, behind a prefix of its names, or in a wrapper."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from sheaf.core.errors import WeightsError

AVERAGES = {"ema", "averaged", "swa"}
"""Words in the keys of an average of the parameters, such as an exponential moving average (EMA)."""

WRAPPERS = {"module", "_orig_mod"}
"""Parts of names that DataParallel and torch.compile insert."""

USUAL = {"model", "state_dict", "model_state_dict", "net", "network", "weights", "params"} | WRAPPERS
"""Keys and prefixes of the trained model. They go before others, such as a teacher's."""

DEPTH = 3
"""The greatest number of keys above a state_dict."""


@dataclass(frozen=True)
class Reading:
    """One way to read a checkpoint as a state_dict.

    Attributes:
        keys: of the mappings above the state_dict, the outermost first.
        prefix: removed from the names, such as ``module.``.
        tensors: by name, without the prefix.
        ignored: names of values outside the prefix, and of values that are not tensors.
        tied: names that the file lacks because they share the memory of another name.
        metadata: the state_dict's ``_metadata``, without the prefix; None if it has none.
    """

    keys: tuple[str, ...]
    prefix: str
    tensors: dict[str, Tensor]
    ignored: list[str]
    tied: list[str]
    metadata: dict[str, Any] | None

    @property
    def label(self) -> str:
        """The keys and the prefix, joined by dots."""
        return ".".join((*self.keys, self.prefix.rstrip("."))).strip(".")

    @property
    def rank(self) -> tuple[bool, bool]:
        """Sort key: averages first, then usual names."""
        words = set(self.label.lower().replace("_", ".").split("."))
        is_usual = not self.label or not USUAL.isdisjoint({*self.keys, *self.prefix.split(".")})
        return words.isdisjoint(AVERAGES), not is_usual

    def misses(self, expected: Mapping[str, Tensor]) -> list[str]:
        """Return the names of ``expected`` that it lacks, but for the counters of batch normalisation.

        Files from before 2018 lack these counters, which sheaf does not use.
        """
        return [n for n in expected if n not in self.tensors and not n.endswith("num_batches_tracked")]

    def unknown(self, expected: Mapping[str, Tensor]) -> list[str]:
        """Return its names that are not in ``expected``."""
        return [name for name in self.tensors if name not in expected]

    def distance(self, expected: Mapping[str, Tensor]) -> int:
        """Return the number of names by which it differs from ``expected``."""
        return len(self.misses(expected)) + len(self.unknown(expected)) + len(self.ignored)


def find_state_dict(
    content: Any, expected: Mapping[str, Tensor], flexible: Collection[str], tied: Sequence[Collection[str]]
) -> tuple[Reading, list[str]]:
    """Return the reading of ``content`` that fits a model, or else the most similar one, and notes.

    An average of the parameters goes before the parameters themselves, as in timm.

    Args:
        content: of the file.
        expected: the model's state_dict.
        flexible: names of parameters that may have another shape.
        tied: groups of names of one tensor each; the file may lack all but one.

    Raises:
        WeightsError: there is no state_dict, or several fit and none has a usual name.
    """
    readings = []
    fitting = []
    for keys, mapping in _mappings(content, ()):
        for form in (mapping, _unwrapped(mapping)):
            new = list(_readings(keys, form, expected, tied))
            readings += new
            if fits := [reading for reading in new if _fits(reading, expected, flexible)]:
                fitting += fits
                break
    if not readings:
        raise WeightsError("contain no state_dict (tensors by name)")
    if not fitting:
        return min(readings, key=lambda reading: (reading.distance(expected), reading.rank)), []
    fitting.sort(key=lambda reading: reading.rank)
    best = fitting[0]
    others = sorted({reading.label for reading in fitting[1:]} - {best.label})
    if others and best.rank == (True, True):
        raise WeightsError(
            f"contain several models that fit ({', '.join(sorted([best.label, *others]))}): "
            "save the state_dict of one of them alone"
        )
    notes = []
    if best.keys or best.prefix:
        other = f", not {', '.join(map(repr, others))}" if others else ""
        notes.append(f"is a checkpoint: the parameters under {best.label!r} are loaded{other}")
    if best.ignored and (best.prefix or not best.keys):
        notes.append(f"has other values, not loaded: {len(best.ignored)} ({listed(best.ignored)})")
    if best.tied:
        notes.append(f"lacks {listed(best.tied)}, tied to other names that it has")
    return best, notes


def listed(names: list[str]) -> str:
    """Return at most five of the names, separated by commas."""
    return ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")


def _mappings(content: Any, keys: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Mapping[str, Any]]]:
    """Yield each mapping of names that contains a tensor, with the keys above it."""
    if not isinstance(content, Mapping) or not all(isinstance(key, str) for key in content):
        return
    if any(isinstance(value, Tensor) for value in content.values()):
        yield keys, content
    if len(keys) < DEPTH:
        for key, value in content.items():
            yield from _mappings(value, (*keys, key))


def _unwrapped(mapping: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return ``mapping`` without the wrappers' parts of the names; empty if two names would be equal."""
    renamed = {".".join(p for p in name.split(".") if p not in WRAPPERS): mapping[name] for name in mapping}
    return renamed if len(renamed) == len(mapping) else {}


def _readings(
    keys: tuple[str, ...],
    mapping: Mapping[str, Any],
    expected: Mapping[str, Tensor],
    tied: Sequence[Collection[str]],
) -> Iterator[Reading]:
    """Yield ``mapping`` as it is, and without each prefix that precedes names of the model."""
    prefixes: Counter[str] = Counter()
    for name in mapping:
        parts = name.split(".")
        for at in range(1, len(parts)):
            if ".".join(parts[at:]) in expected:
                prefixes[".".join(parts[:at]) + "."] += 1
    metadata = getattr(mapping, "_metadata", None)
    for prefix in ["", *(prefix for prefix, _ in prefixes.most_common(8))]:
        tensors = {
            name.removeprefix(prefix): value
            for name, value in mapping.items()
            if name.startswith(prefix) and isinstance(value, Tensor)
        }
        own = {
            name[len(prefix) :]: versions
            for name, versions in (metadata or {}).items()
            if f"{name}.".startswith(prefix)
        }
        ignored = [name for name in mapping if name.removeprefix(prefix) not in tensors]
        absent = []
        for group in tied:
            if present := [name for name in group if name in tensors]:
                absent += [name for name in group if name not in tensors]
                tensors |= {name: tensors[present[0]] for name in group if name not in tensors}
        yield Reading(keys, prefix, tensors, ignored, absent, own or None)


def _fits(reading: Reading, expected: Mapping[str, Tensor], flexible: Collection[str]) -> bool:
    """Return whether names and shapes are the model's, but for the shapes of ``flexible``."""
    return (
        not reading.misses(expected)
        and not reading.unknown(expected)
        and all(
            name in flexible or value.shape == expected[name].shape for name, value in reading.tensors.items()
        )
    )
