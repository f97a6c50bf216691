"""What travels with a model's weights, so that the file alone is enough to use it."""

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
        classes: the names of the classes, in the order of the model's outputs; of a model that is still to be
            cut, those of the whole model.
        in_shape: (C, H, W) of one example.
        mean, std: of each channel, images scaled to 0..1: what normalises the inputs.
        inputs: what an example is: ``image``, bytes 0..255; ``sound``, a log-mel spectrogram; ``features``,
            numbers of the user's own making.
        sound: how sounds become spectrograms.
        model: how the network is built; None where the file holds the graph itself.
        cut: the part of that network that the weights are of (``Cut.header``); None for all of it.
        other: whether the logits say how much more an example is of a class than of none of them: "none of
            these" then has the logit 0.
        source: where the weights come from: run, site, method, seed, commit.
    """

    classes: tuple[str, ...]
    in_shape: tuple[Size, Size, Size]
    mean: tuple[float, ...]
    std: tuple[Annotated[float, Field(gt=0)], ...]
    inputs: Literal["image", "sound", "features"]
    sound: Sound | None = None
    model: ModelSettings | None = None
    cut: dict[str, Any] | None = None
    other: bool = False
    source: dict[str, Any] | None = None

    def __post_init__(self) -> None:
        if not len(self.mean) == len(self.std) == self.in_shape[0]:
            raise ValueError(f"mean and std are not of {self.in_shape[0]} channels")
        if (self.inputs == "sound") != (self.sound is not None):
            raise ValueError("sound is for sounds, and sounds need it")

    @classmethod
    def of_dataset(cls, dataset: Dataset, model: ModelSettings) -> Card:
        """The card of a whole model for ``dataset``."""
        pixels = dataset.train.inputs.dtype == torch.uint8
        return cls(
            classes=dataset.classes,
            in_shape=dataset.shape,
            mean=dataset.mean,
            std=dataset.std,
            inputs="sound" if dataset.sound else "image" if pixels else "features",
            sound=dataset.sound,
            model=model,
        )

    def metadata(self) -> dict[str, str]:
        """Key -> JSON; what is not set is left out."""
        plain = TypeAdapter(Card).dump_python(self, mode="json", exclude_none=True)
        return {key: json.dumps(value) for key, value in plain.items() if value is not False}

    @classmethod
    def of(cls, metadata: Mapping[str, str], where: str) -> Card:
        """The card that ``metadata()`` came from; keys that are no card's are passed over.

        Raises:
            ModelFileError: it is no card; ``where`` is named.
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
            raise ModelFileError(f"{where} was not written by sheaf: its metadata is no JSON") from error

    @property
    def outputs(self) -> tuple[str, ...]:
        """The class of each logit."""
        rows = None if self.cut is None else self.cut["classes"]
        return self.classes if rows is None else tuple(self.classes[row] for row in rows)

    def of_graph(self) -> Card:
        """The same for a file that holds the graph: nothing is left to be built or cut."""
        return replace(self, classes=self.outputs, model=None, cut=None)

    @property
    def dtype(self) -> torch.dtype:
        """Of the inputs."""
        return torch.uint8 if self.inputs == "image" else torch.float32
