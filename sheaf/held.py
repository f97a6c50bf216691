"""What a site holds between calls, on its own disk."""

from __future__ import annotations

import re
from dataclasses import replace
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

    def keep(self, call: int, blob: Blob) -> Blob:
        """Holds ``blob`` from ``call`` on, durably. Returns the same blob, knowing where it lies now."""
        previous = self.before(call)
        old = [self._path(n) for n in self._calls() if n != call and self._path(n) != previous]
        blob.write(self._path(call), over=old[0] if old else None)
        for path in old:
            path.unlink(missing_ok=True)
        return replace(blob, lies_at=self._path(call))

    def remember(self, call: int, blob: Blob | None = None) -> None:
        """Sets aside ``blob``, or a copy of what was held when ``call`` began; the two newest copies stay.

        Raises:
            ValueError: nothing was held.
        """
        held = self.before(call)
        if blob is None:
            if held is None:
                raise ValueError("there is nothing to remember")
            blob = Blob.at(held)
        blob.write(self.remembered(call))
        for number in self._calls("remembered")[:-2]:
            self.remembered(number).unlink()

    def remembered(self, call: int) -> Path:
        """The file of the copy that was set aside in ``call``."""
        return self._path(call, "remembered")

    def _calls(self, what: str = "held") -> list[int]:
        names = (re.fullmatch(rf"{what}-(\d+)\.safetensors", path.name) for path in self._folder.iterdir())
        return sorted(int(name[1]) for name in names if name)

    def _path(self, call: int, what: str = "held") -> Path:
        return self._folder / f"{what}-{call:06d}.safetensors"
