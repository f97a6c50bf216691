"""What a site holds between calls, on its own disk."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

from sheaf.core.tensor_file import Blob


class Held:
    """The model that a site holds, with the number of the call that gave it.

    Beside the newest state lies the one before it: a site that lost power between holding a result and being
    heard is asked again, and must then start from what it held before that call.

    Args:
        folder: may be that of other sites too. Read once: nobody else changes what is this site's there.
        site: whose files these are, and what is its in a file of several sites.
    """

    def __init__(self, folder: Path, site: str) -> None:
        self._folder = folder
        self._site = site
        folder.mkdir(parents=True, exist_ok=True)
        self._held = self._found("held")
        self._remembered = self._found("remembered")

    def before(self, call: int) -> Blob | None:
        """The parameters held when ``call`` began; None where nothing was."""
        earlier = [number for number in self._held if number < call]
        return self._of(self._held, max(earlier)) if earlier else None

    def keep(self, call: int, blob: Blob, named: bool = True) -> Blob:
        """Holds ``blob`` from ``call`` on, durably. Returns the same blob, knowing where it lies now.

        Args:
            named: see ``Blob.write``.
        """
        earlier = [number for number in self._held if number < call]
        old = [number for number in self._held if number != call and number not in earlier[-1:]]
        over = self._path(old[0]) if old else None
        written = blob.write(self._path(call), named, over)
        for number in old:
            self._path(number).unlink(missing_ok=True)
            del self._held[number]
        self._held[call] = written
        self._held = dict(sorted(self._held.items()))
        if isinstance(blob.source, Path):
            return written
        return replace(blob, lies_at=written.lies_at)

    def remember(self, call: int, blob: Blob | None = None) -> None:
        """Sets aside ``blob``, or a copy of what was held when ``call`` began; the two newest copies stay.

        Raises:
            ValueError: nothing was held.
        """
        blob = blob or self.before(call)
        if blob is None:
            raise ValueError("there is nothing to remember")
        self._remembered[call] = blob.write(self._path(call, "remembered"))
        for number in sorted(self._remembered)[:-2]:
            self._path(number, "remembered").unlink()
            del self._remembered[number]

    def remembered(self, call: int) -> Blob | None:
        """The copy that was set aside in ``call``; None where there is none."""
        return self._of(self._remembered, call) if call in self._remembered else None

    def _of(self, blobs: dict[int, Blob | None], call: int) -> Blob:
        blob = blobs[call]
        if blob is None:
            what = "held" if blobs is self._held else "remembered"
            blobs[call] = blob = Blob.at(self._path(call, what), self._site)
        return blob

    def _found(self, what: str) -> dict[int, Blob | None]:
        """Which calls' files are there, in order; each is opened when it is asked for."""
        name = re.compile(rf"{re.escape(self._site)}\.{what}-(\d+)\.safetensors")
        found = (name.fullmatch(path.name) for path in self._folder.iterdir())
        return dict.fromkeys(sorted(int(each[1]) for each in found if each))

    def _path(self, call: int, what: str = "held") -> Path:
        return self._folder / f"{self._site}.{what}-{call:06d}.safetensors"
