"""Tensor files of a site, by the numbers of their calls."""

from __future__ import annotations

import re
from pathlib import Path

from sheaf.core.tensor_file import Blob


def stored_calls(folder: Path, site: str, kind: str) -> list[int]:
    """Return the calls of which a site has a file of this kind, in order."""
    name = re.compile(rf"{re.escape(site)}\.{kind}-(\d+)\.safetensors")
    matches = (name.fullmatch(path.name) for path in folder.iterdir())
    return sorted(int(match[1]) for match in matches if match)


def call_path(folder: Path, site: str, kind: str, call: int) -> Path:
    """Return the path of a site's file of this kind and call."""
    return folder / f"{site}.{kind}-{call:06d}.safetensors"


class CallFiles:
    """Tensor files of one kind, of which a site keeps those of two calls.

    Args:
        folder: other sites may use it too. It is listed once: only this object changes the site's files.
        site: the prefix of the files' names.
        kind: the second part of the names.
    """

    def __init__(self, folder: Path, site: str, kind: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._name = folder, site, kind
        self._blobs: dict[int, Blob | None] = dict.fromkeys(stored_calls(folder, site, kind))

    def at(self, call: int) -> Blob | None:
        """Return the tensors of a call, or None."""
        if call not in self._blobs:
            return None
        return self._blobs[call] or Blob.at(call_path(*self._name, call))

    def keep(self, call: int, blob: Blob, other: int) -> Blob:
        """Write a call's tensors durably and return them; delete those of all calls but ``other``."""
        written = blob.write(call_path(*self._name, call))
        self.hold(call, None, other)
        return written

    def hold(self, call: int, blob: Blob | None, other: int) -> None:
        """Hold a call's tensors without a file; delete those of all calls but ``other``."""
        for old in self._blobs.keys() - {call, other}:
            call_path(*self._name, old).unlink(missing_ok=True)
            del self._blobs[old]
        self._blobs[call] = blob
