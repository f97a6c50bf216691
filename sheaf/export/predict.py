"""Classifies image and sound files with a model, from its file alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from sheaf.core.errors import DataError, ModelFileError
from sheaf.core.types import CLOUD
from sheaf.data.readers.images import decode_image
from sheaf.data.readers.logmel import decode_sound, fit, log_mel
from sheaf.data.settings import DataSettings
from sheaf.export.export import weights_of
from sheaf.export.model_file import Opened, open_file
from sheaf.models.card import Card

BATCH = 64


@dataclass(frozen=True)
class Prediction:
    """What a model says of one file.

    Attributes:
        label: the likeliest of the model's classes.
        probability: of that class.
        probabilities: of every class.
        none_of_these: the probability that it is none of the model's classes; None where it cannot tell.
    """

    file: str
    label: str
    probability: float
    probabilities: dict[str, float]
    none_of_these: float | None


def open_model(source: Path, site: str = CLOUD, trust: bool = False) -> Opened:
    """The model in an exported file, or that of a site in a run's folder.

    Args:
        trust: whether code may run that the file names or brings: a user's own model, a ``.pt2``.

    Raises:
        SheafError: it cannot be had; one line says why.
    """
    return open_file(weights_of(source, site) if source.is_dir() else source, trust)


def predict(model: Opened, files: Sequence[Path]) -> Iterator[Prediction]:
    """Classifies each file, in their order; images are brought to the model's size, sounds to its length.

    Raises:
        DataError: a file cannot be read.
        ModelFileError: the model takes no files.
    """
    card = model.card
    for start in range(0, len(files), BATCH):
        some = files[start : start + BATCH]
        logits = model.logits(torch.stack([read(card, file) for file in some]))
        if card.other:
            logits = torch.cat([logits, torch.zeros(len(some), 1)], 1)
        for file, row in zip(some, logits.softmax(1).tolist(), strict=True):
            probabilities = dict(zip(card.outputs, row, strict=False))
            label = max(probabilities, key=lambda name: probabilities[name])
            none = row[-1] if card.other else None
            yield Prediction(str(file), label, probabilities[label], probabilities, none)


def read(card: Card, file: Path) -> Tensor:
    """(C, H, W) one file as the model takes it.

    Raises:
        DataError: it cannot be read as what the model is for.
        ModelFileError: the model was trained on features that no file holds.
    """
    channels, rows, columns = card.in_shape
    if card.inputs == "features" or (card.inputs == "image" and channels not in (1, 3)):
        raise ModelFileError(
            f"the model takes {channels}x{rows}x{columns} numbers of its dataset's own making, not files"
        )
    try:
        content = file.read_bytes()
    except OSError as error:
        raise DataError(f"{file} cannot be read: {error.strerror}") from error
    if card.sound is None:
        shape = DataSettings(name="", size=(rows, columns), channels=1 if channels == 1 else 3)
        return torch.tensor(decode_image(str(file), content, shape))
    wave, rate = decode_sound(str(file), content)
    fitted = fit(wave, rate, card.sound.rate, card.sound.seconds)
    return log_mel(torch.from_numpy(fitted)[None], card.sound.rate)[0]
