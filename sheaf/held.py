"""What a site holds between calls, on its own disk."""

from __future__ import annotations

import re
from pathlib import Path

from sheaf.blob import Blob


class Held:
    """The model that a site holds, with the number of the call that gave it.

    Beside the newest state lies the one before it: a site that lost power between holding a result and being
    heard is asked again, and must then start from what it held before that call.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def before(self, call: int) -> Path | None:
        """The file of the parameters held when ``call`` began; None where nothing was."""
        earlier = [number for number in self._calls() if number < call]
        return self._path(max(earlier)) if earlier else None

    def keep(self, call: int, blob: Blob) -> None:
        """Holds ``blob`` from ``call`` on, durably."""
        previous = self.before(call)
        blob.write(self._path(call))
        for number in self._calls():
            if number != call and self._path(number) != previous:
                self._path(number).unlink()

    def _calls(self) -> list[int]:
        names = (re.fullmatch(r"held-(\d+)\.safetensors", path.name) for path in self._folder.iterdir())
        return sorted(int(name[1]) for name in names if name)

    def _path(self, call: int) -> Path:
        return self._folder / f"held-{call:06d}.safetensors"
