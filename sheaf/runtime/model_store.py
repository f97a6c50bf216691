"""The models that a site holds between calls, on its own disk."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from sheaf.core.lazy_blob import LazyBlob, TensorBlob
from sheaf.core.tensor_file import Blob, with_hashes
from sheaf.runtime.call_files import call_path, stored_calls


class ModelStore:
    """The current model of one site, and copies that it set aside, by the numbers of their calls.

    The model before the current one is kept too: a site that lost power between storing a result and replying
    is asked again, and must then start from the model that it held before that call.

    Args:
        folder: other sites may use it too. It is listed once: only this object changes the site's files.
        site: the prefix of the files' names, and the site's name inside a file of several sites.
    """

    def __init__(self, folder: Path, site: str) -> None:
        self._folder = folder
        self._site = site
        folder.mkdir(parents=True, exist_ok=True)
        self._held = self._list("held")
        self._in_files = set(self._held)  # calls whose held model may have a file
        self._remembered = self._list("remembered")

    def before(self, call: int) -> Blob | None:
        """Return the model held when ``call`` began, or None."""
        earlier = self._earlier(call)
        return self._open(self._held, earlier[-1]) if earlier else None

    def keep(self, call: int, blob: Blob, named: bool = True) -> Blob:
        """Make ``blob`` the current model from ``call`` on, durably, and return it with its place on disk.

        Args:
            call: the number of the call that gave it.
            named: see ``Blob.write``.
        """
        last = self._earlier(call)[-1:]
        old = [number for number in self._held if number != call and number not in last]
        over = next((path for number in old if (path := self._path(number)).exists()), None)
        written = blob.write(self._path(call), named, over)
        self._in_files.add(call)
        self._set(call, written, old)
        if isinstance(blob, (TensorBlob, LazyBlob)) or isinstance(blob.source, Path):
            return written
        return with_hashes(replace(blob, lies_at=written.lies_at), blob)

    def hold(self, call: int, blob: Blob, replayed: bool = False) -> None:
        """Make ``blob`` the current model from ``call`` on, without a file of its own.

        For a site in the process of the cloud: when a run is resumed, the calls are replayed.

        Args:
            call: the number of the call that gave it.
            blob: the model.
            replayed: keep what is stored of this call and of later ones, from before a crash.
        """
        earlier = self._earlier(call)
        later = [] if replayed else [number for number in self._held if number > call]
        if replayed and call in self._held:
            self._set(call, self._held[call], earlier[:-1])
        else:
            self._set(call, blob, earlier[:-1] + later)

    def forget(self, call: int) -> None:
        """Drop the model and the copy of ``call``: the site answered too late, and the call went on without.

        The model before it is the current one again.
        """
        for kind, blobs in (("held", self._held), ("remembered", self._remembered)):
            if call in blobs:
                self._path(call, kind).unlink(missing_ok=True)
                del blobs[call]

    def held(self, call: int) -> Blob | None:
        """Return the model held when ``call`` began, if it is open; None otherwise."""
        earlier = self._earlier(call)
        return self._held[earlier[-1]] if earlier else None

    def _earlier(self, call: int) -> list[int]:
        """Return the calls before ``call`` whose models are held, in order."""
        return [number for number in self._held if number < call]

    def _set(self, call: int, blob: Blob | None, obsolete: Sequence[int]) -> None:
        for number in obsolete:
            if number in self._in_files:
                self._path(number).unlink(missing_ok=True)
                self._in_files.remove(number)
            del self._held[number]
        in_order = not self._held or call >= next(reversed(self._held))
        self._held[call] = blob
        if not in_order:
            self._held = dict(sorted(self._held.items()))

    def remember(self, call: int, blob: Blob | None = None) -> None:
        """Set aside ``blob``, or a copy of the model held when ``call`` began; keep the two newest copies.

        Raises:
            ValueError: no model was held.
        """
        blob = blob or self.before(call)
        if blob is None:
            raise ValueError("the site holds no model to remember")
        self._remembered[call] = blob.write(self._path(call, "remembered"))
        for number in sorted(self._remembered)[:-2]:
            self._path(number, "remembered").unlink()
            del self._remembered[number]

    def remembered(self, call: int) -> Blob | None:
        """Return the copy that was set aside in ``call``, or None."""
        return self._open(self._remembered, call) if call in self._remembered else None

    def _open(self, blobs: dict[int, Blob | None], call: int) -> Blob:
        blob = blobs[call]
        if blob is None:
            kind = "held" if blobs is self._held else "remembered"
            blobs[call] = blob = Blob.at(self._path(call, kind), self._site)
        return blob

    def _list(self, kind: str) -> dict[int, Blob | None]:
        """Return the calls that have a file, in order. Files are opened when they are needed."""
        return dict.fromkeys(stored_calls(self._folder, self._site, kind))

    def _path(self, call: int, kind: str = "held") -> Path:
        return call_path(self._folder, self._site, kind, call)
