"""The model card: metadata in a weights file that makes the file usable on its own."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated, Any, Literal

import torch
from pydantic import Field, TypeAdapter, ValidationError

from sheaf.core.dataset import Dataset, Sound
from sheaf.core.errors import ModelFileError
from sheaf.core.settings import settings
from sheaf.models.build import ModelSettings

Size = Annotated[int, Field(ge=1, le=65536)]


@settings
class Card:
    """The metadata of a weights file or an exported model.

    Attributes:
        classes: the K class names in the order of the whole model's logits.
        in_shape: (C, H, W) of one example, each 1 to 65536.
        mean: of each channel, with images scaled to 0..1; normalises the inputs.
        std: the standard deviation, above 0, likewise.
        inputs: the form of an example: ``image`` (uint8, 0..255), ``sound`` (log-mel spectrogram) or
            ``features`` (float32 values of the user).
        sound: the conversion of sounds to spectrograms; set if and only if ``inputs`` is ``sound``.
        bits: bits per channel from which images of more than 8 bits are scaled; None: those an image uses.
        model: the settings that build the network; None if the file contains its graph.
        cut: the cut whose sub-model the weights belong to (``Cut.header``); None for the whole model.
        other: whether there is an implicit class "none of these" with the logit 0.
        source: the origin of the weights: run, site, method, seed, commit.
    """

    classes: tuple[str, ...]
    in_shape: tuple[Size, Size, Size]
    mean: tuple[float, ...]
    std: tuple[Annotated[float, Field(gt=0)], ...]
    inputs: Literal["image", "sound", "features"]
    sound: Sound | None = None
    bits: Annotated[int, Field(ge=8, le=32)] | None = None
    model: ModelSettings | None = None
    cut: dict[str, Any] | None = None
    other: bool = False
    source: dict[str, Any] | None = None

    def __post_init__(self) -> None:
        if not len(self.mean) == len(self.std) == self.in_shape[0]:
            raise ValueError(f"mean and std must have {self.in_shape[0]} values, one per channel")
        if (self.inputs == "sound") != (self.sound is not None):
            raise ValueError('sound must be set if and only if inputs is "sound"')

    @classmethod
    def of_dataset(cls, dataset: Dataset, model: ModelSettings) -> Card:
        """Return the card of a whole model for ``dataset``."""
        pixels = dataset.train.inputs.dtype == torch.uint8
        return cls(
            classes=dataset.classes,
            in_shape=dataset.shape,
            mean=dataset.mean,
            std=dataset.std,
            inputs="sound" if dataset.sound else "image" if pixels else "features",
            sound=dataset.sound,
            bits=dataset.bits,
            model=model,
        )

    def metadata(self) -> dict[str, str]:
        """Return the set fields as JSON by name, for a file's metadata."""
        plain = TypeAdapter(Card).dump_python(self, mode="json", exclude_none=True)
        return {key: json.dumps(value) for key, value in plain.items() if value is not False}

    @classmethod
    def of(cls, metadata: Mapping[str, str], where: str) -> Card:
        """Return the card in a file's metadata; other keys are ignored.

        Args:
            metadata: JSON by name.
            where: the file, for messages.

        Raises:
            ModelFileError: the metadata contains no valid card.
        """
        known = {key: text for key, text in metadata.items() if key in cls.__dataclass_fields__}
        try:
            table = {key: json.loads(text) for key, text in known.items()}
            return TypeAdapter(cls).validate_json(json.dumps(table), strict=True)
        except ValidationError as error:
            first = error.errors()[0]
            key = ".".join(map(str, first["loc"])) or "its metadata"
            raise ModelFileError(f"{where} was not written by sheaf: {key}: {first['msg']}") from error
        except ValueError as error:
            raise ModelFileError(f"{where} was not written by sheaf: its metadata is not JSON") from error

    @property
    def outputs(self) -> tuple[str, ...]:
        """Return the class name of each logit."""
        rows = None if self.cut is None else self.cut["classes"]
        return self.classes if rows is None else tuple(self.classes[row] for row in rows)

    def of_graph(self) -> Card:
        """Return the card of a file that contains the graph of this model, which is built and cut already."""
        return replace(self, classes=self.outputs, model=None, cut=None)

    @property
    def dtype(self) -> torch.dtype:
        """Return the type of the inputs."""
        return torch.uint8 if self.inputs == "image" else torch.float32
