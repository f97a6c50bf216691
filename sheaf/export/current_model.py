"""A model in a file that another process replaces: a server uses the newest one without a restart."""

from __future__ import annotations

import logging
import threading
from pathlib import Path

from sheaf.core.errors import SheafError
from sheaf.export.model_file import LoadedModel, load_model
from sheaf.export.predict import Prediction, decode_input, predict_inputs

logger = logging.getLogger("sheaf")

Version = tuple[int, int, int]
"""Inode, time of the last change and size of a file."""

MOST_ATTEMPTS = 10
"""Maximum number of attempts at loading a file that is replaced meanwhile."""


class CurrentModel:
    """The model in a file, loaded again after the file was replaced. Threads may share it.

    While one thread loads the new model, the others use the previous one; so do all if the new file cannot be
    used.

    Args:
        path: an exported file, or ``model.safetensors`` of a device.
        trust: whether code from the file, or code that it names, may run.

    Raises:
        SheafError: the model cannot be loaded.
    """

    def __init__(self, path: str | Path, trust: bool = False) -> None:
        self._path, self._trust = Path(path), trust
        self._loading = threading.Lock()
        self._loaded = self._load()

    def predict(self, content: bytes) -> Prediction:
        """Return the prediction for the content of an image or sound file.

        Raises:
            SheafError: the content cannot be decoded.
        """
        model = self.model()
        inputs = decode_input(model.card, "request", content)[None]
        return next(predict_inputs(model, inputs, ["request"]))

    def model(self) -> LoadedModel:
        """Return the model, after loading it again if the file was replaced."""
        model, loaded = self._loaded
        version = self._version()
        if version is None or version == loaded or not self._loading.acquire(blocking=False):
            return model
        try:
            self._loaded = self._load()
            logger.info("%s was replaced and is loaded again", self._path)
        except (SheafError, OSError, RuntimeError) as error:
            self._loaded = model, version
            logger.warning("%s cannot be used, the previous model stays: %s", self._path, error)
        finally:
            self._loading.release()
        return self._loaded[0]

    def _load(self) -> tuple[LoadedModel, Version | None]:
        """Return the model and the version of its file, which did not change while it was read."""
        for _ in range(MOST_ATTEMPTS):
            version, error = self._version(), None
            try:
                model = load_model(self._path, self._trust)
            except SheafError as failure:
                error = failure
            if version == self._version():
                break
        if error is not None:
            raise error
        return model, version

    def _version(self) -> Version | None:
        """Return numbers that change when the file is replaced; None if it does not exist."""
        try:
            status = self._path.stat()
        except OSError:
            return None
        return status.st_ino, status.st_mtime_ns, status.st_size
