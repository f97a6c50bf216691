"""Classify image and sound files with an exported model."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from sheaf.core.errors import DataError, ModelFileError
from sheaf.data.readers.images import decode_image
from sheaf.data.readers.logmel import decode_sound, fit, log_mel
from sheaf.data.settings import DataSettings
from sheaf.export.model_file import LoadedModel
from sheaf.models.card import Card

BATCH = 64
"""Files per forward pass."""


@dataclass(frozen=True)
class Prediction:
    """The predicted class of one file.

    Attributes:
        file: the file's path.
        label: the most probable class.
        probability: the probability of ``label``.
        probabilities: class -> probability.
        none_of_these: the probability of none of the classes; None if the model has no such output.
    """

    file: str
    label: str
    probability: float
    probabilities: dict[str, float]
    none_of_these: float | None


def predict(model: LoadedModel, files: Sequence[Path]) -> Iterator[Prediction]:
    """Yield the prediction for each file, in order.

    Images are resized to the model's input size; sounds are resampled, and padded or cut to its length.

    Raises:
        DataError: a file cannot be read.
        ModelFileError: the model's inputs are features, which are not in files.
    """
    for start in range(0, len(files), BATCH):
        batch = files[start : start + BATCH]
        inputs = torch.stack([read_input(model.card, file) for file in batch])
        yield from predict_inputs(model, inputs, [str(file) for file in batch])


def predict_inputs(model: LoadedModel, inputs: Tensor, names: Sequence[str]) -> Iterator[Prediction]:
    """Yield the prediction for each of N inputs, (N, C, H, W), with the N names."""
    card, logits = model.card, model.logits(inputs)
    if card.other:
        logits = torch.cat([logits, torch.zeros(len(logits), 1)], 1)
    for name, row in zip(names, logits.softmax(1).tolist(), strict=True):
        probabilities = dict(zip(card.outputs, row, strict=False))
        label = max(probabilities, key=lambda each: probabilities[each])
        none_of_these = row[-1] if card.other else None
        yield Prediction(name, label, probabilities[label], probabilities, none_of_these)


def read_input(card: Card, file: Path) -> Tensor:
    """Return a file's content as the model's input, (C, H, W).

    Raises:
        DataError: the file cannot be read or decoded.
        ModelFileError: the model's inputs are features, which are not in files.
    """
    _check_takes_files(card)
    try:
        content = file.read_bytes()
    except OSError as error:
        raise DataError(f"{file} cannot be read: {error.strerror}") from error
    return decode_input(card, str(file), content)


def decode_input(card: Card, name: str, content: bytes) -> Tensor:
    """Return the content of an image or sound file as the model's input, (C, H, W).

    Args:
        name: of the file, for messages.

    Raises:
        DataError: the content cannot be decoded.
        ModelFileError: the model's inputs are features, which are not in files.
    """
    _check_takes_files(card)
    channels, rows, columns = card.in_shape
    if card.sound is None:
        form = DataSettings(name="", size=(rows, columns), channels=1 if channels == 1 else 3, bits=card.bits)
        return torch.tensor(decode_image(name, content, form))
    wave, rate = decode_sound(name, content)
    fitted = fit(wave, rate, card.sound.rate, card.sound.seconds)
    return log_mel(torch.from_numpy(fitted)[None], card.sound.rate)[0]


def _check_takes_files(card: Card) -> None:
    channels, rows, columns = card.in_shape
    if card.inputs == "features" or (card.inputs == "image" and channels not in (1, 3)):
        raise ModelFileError(
            f"the model's inputs are {channels}x{rows}x{columns} features computed by its dataset; "
            "sheaf predict reads images and sounds only"
        )
