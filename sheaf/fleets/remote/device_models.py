"""The models that a device keeps: the current one at a stable path, and earlier ones, by number."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Annotated, Any

from filelock import FileLock
from pydantic import Field, TypeAdapter, ValidationError

from sheaf.core import atomic_io
from sheaf.core.atomic_io import sync, write_durably
from sheaf.core.errors import FleetError, ModelFileError, SheafError
from sheaf.core.settings import settings
from sheaf.core.types import Params
from sheaf.export.model_file import format_module
from sheaf.export.trained_model import build_trained, read_card
from sheaf.models.card import Card
from sheaf.models.checkpoints import save_weights

logger = logging.getLogger("sheaf")

CURRENT = "model.safetensors"
"""The name of the current model in the device's folder."""

Accuracy = Annotated[float, Field(ge=0, le=1)]


@settings
class KeptModel:
    """A model that a device received or trained; stored in the model card, under ``source.device``.

    Attributes:
        number: of the model on this device, from 1.
        saved: when it was stored, in UTC, as ISO 8601.
        run: identifier of the run, 32 hexadecimal digits.
        call: number of the call in the run.
        name: name of the run's folder in the cloud.
        draw: the draw of the held-out samples (``SampleRecord.draw``) with which it was trained.
        held_out: accuracy on the device's held-out samples, the mean over their classes; None: not measured.
        before: accuracy of the model that was current, on the same samples; None: not compared.
        samples: number of these samples.
        replaced: whether the model became the current one when it was stored.
        why: why it did not, or why it was not compared; empty otherwise.
    """

    number: Annotated[int, Field(ge=1)]
    saved: str
    run: str
    call: int
    name: str
    draw: int
    held_out: Accuracy | None
    before: Accuracy | None
    samples: int
    replaced: bool
    why: str = ""


@dataclass(frozen=True)
class Listed:
    """A model in the folder of a device.

    Attributes:
        file: its weights with the card.
        kept: its record.
        size: of the file, in bytes.
        current: whether it is the current model.
        abandoned: whether it was current until a rollback.
    """

    file: Path
    kept: KeptModel
    size: int
    current: bool
    abandoned: bool


class DeviceModels:
    """The models of one device.

    ``model.safetensors``, and for further formats ``model.onnx`` and ``model.pt2``, are the current model.
    They are replaced atomically, each by itself. ``models/000007.safetensors`` is the model with number 7.

    Args:
        folder: the device's folder.
        keep: the number of models to keep, the current one included.
        formats: formats to write beside safetensors.
    """

    def __init__(self, folder: Path, keep: int = 5, formats: Sequence[str] = ()) -> None:
        self._folder = folder
        self._models = folder / "models"
        self._draft = self._models / "draft.safetensors"
        self._keep = keep
        self._formats = tuple(formats)

    @property
    def current_file(self) -> Path:
        """The path of the current model, whether it exists or not."""
        return self._folder / CURRENT

    def listed(self) -> list[Listed]:
        """Return the models, the newest first. A damaged file is left out, with a warning in the log."""
        current = self._number(self.current_file) if self.current_file.exists() else 0
        listed = []
        for file in sorted(self._models.glob("??????.safetensors"), reverse=True):
            try:
                kept = read_kept(file)
            except SheafError as error:
                logger.warning("%s", error)
                continue
            abandoned = self._mark(kept.number).exists()
            listed.append(Listed(file, kept, file.stat().st_size, kept.number == current, abandoned))
        return listed

    def current(self) -> Listed | None:
        """Return the current model, or None before the first."""
        return next((each for each in self.listed() if each.current), None)

    def stored(self, run: str, call: int) -> KeptModel | None:
        """Return the record of a call's model; None if it is not stored."""
        kept = (each.kept for each in self.listed())
        return next((each for each in kept if (each.run, each.call) == (run, call)), None)

    def recover(self) -> None:
        """Complete a replacement that a crash has interrupted: the newest model then is not current."""
        with self.lock():
            newest = next(iter(self.listed()), None)
            if newest is not None and newest.kept.replaced and not newest.current and not newest.abandoned:
                self._make_current(newest.kept.number)

    def next_number(self) -> int:
        """Return the number of the next model."""
        return max((int(file.stem) for file in self._models.glob("??????.safetensors")), default=0) + 1

    def draft(self, params: Params, card: Card) -> Path:
        """Write a model under a temporary name, to measure it before ``add``."""
        save_weights(self._draft, params, card.metadata())
        return self._draft

    def add(self, params: Params, card: Card, kept: KeptModel) -> None:
        """Store the drafted model durably, and make it current if ``kept.replaced``; remove the oldest ones.

        Raises:
            OSError: the disk is full or cannot be written; the current model stays.
        """
        with self.lock():
            card = replace(card, source=(card.source or {}) | {"device": asdict(kept)})
            for name in self._formats:
                self._export(kept.number, card, name)
            save_weights(self._path(kept.number), params, card.metadata())
            self._draft.unlink(missing_ok=True)
            if kept.replaced:
                self._make_current(kept.number)
            self._prune()

    def roll_back(self, number: int | None = None) -> tuple[Listed, Listed]:
        """Make an earlier model current again; return (the model that was current, the new current one).

        Args:
            number: of the model; None: the newest one before the current one that was current once.

        Raises:
            FleetError: there is no such model.
        """
        with self.lock():
            listed = self.listed()
            present = next((each for each in listed if each.current), None)
            if present is None:
                raise FleetError(f"{self._folder} holds no current model yet; the first run stores one")
            numbers = ", ".join(str(each.kept.number) for each in listed)
            if number is None:
                earlier = [
                    each
                    for each in listed
                    if each.kept.number < present.kept.number and each.kept.replaced and not each.abandoned
                ]
                if not earlier:
                    raise FleetError(
                        f"no model before the current one, number {present.kept.number}, is kept; "
                        f"there are: {numbers}"
                    )
                chosen = earlier[0]
            else:
                matching = [each for each in listed if each.kept.number == number]
                if not matching:
                    raise FleetError(f"no model has the number {number}; there are: {numbers}")
                chosen = matching[0]
            if chosen.kept.number != present.kept.number:
                self._mark(chosen.kept.number).unlink(missing_ok=True)
                write_durably(self._mark(present.kept.number), b"")
                self._make_current(chosen.kept.number)
            return present, chosen

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Exclude other processes, such as ``sheaf edge rollback`` in the last moment of a run."""
        self._models.mkdir(parents=True, exist_ok=True)
        with FileLock(self._models / "lock", timeout=60):
            yield

    def _export(self, number: int, card: Card, name: str) -> None:
        """Write the draft in another format. A failure is logged: the safetensors file does not need it."""
        path = self._path(number).with_suffix(f".{name}")
        partial = path.with_name(f"draft.{name}")
        try:
            model, built = build_trained(card, self._draft)
            format_module(name).write(partial, model, built)
            sync(partial)
            partial.replace(path)
        except (SheafError, OSError, RuntimeError) as error:
            logger.warning("the model is not written as %s: %s", name, error)
        finally:
            partial.unlink(missing_ok=True)

    def _make_current(self, number: int) -> None:
        """Replace the current model, safetensors last; a format that the model lacks is removed."""
        for suffix in (".onnx", ".pt2", ".safetensors"):
            source, path = self._path(number).with_suffix(suffix), self.current_file.with_suffix(suffix)
            if not source.exists():
                path.unlink(missing_ok=True)
            elif not atomic_io.link(source, path):  # a disk without hard links
                write_durably(path, source.read_bytes())
        sync(self._folder)

    def _prune(self) -> None:
        listed = self.listed()
        kept = [each for each in listed if each.current] + [each for each in listed if not each.current]
        for each in kept[self._keep :]:
            for suffix in (".onnx", ".pt2", ".abandoned", ".safetensors"):
                each.file.with_suffix(suffix).unlink(missing_ok=True)

    def _number(self, file: Path) -> int:
        try:
            return read_kept(file).number
        except SheafError as error:
            logger.warning("%s", error)
            return 0

    def _path(self, number: int) -> Path:
        return self._models / f"{number:06d}.safetensors"

    def _mark(self, number: int) -> Path:
        return self._path(number).with_suffix(".abandoned")


def read_kept(file: Path) -> KeptModel:
    """Return the record in the card of a device's model.

    Raises:
        ModelFileError: the file is damaged, or is no model that a device kept.
    """
    source: Mapping[str, Any] = read_card(file).source or {}
    try:
        return TypeAdapter(KeptModel).validate_python(source.get("device"))
    except ValidationError as error:
        raise ModelFileError(f"{file} is no model that a device kept: {error.errors()[0]['msg']}") from error


def now() -> str:
    """Return the time in UTC as ISO 8601, to the second."""
    return datetime.now(timezone.utc).isoformat(timespec="seconds")
