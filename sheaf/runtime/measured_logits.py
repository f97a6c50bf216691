"""The first logits of a site's evaluation, recorded to check exported models against them.

A model may compute with values outside its ``state_dict``. Built anew from its weights file, it is then not
the model that the run measured; only logits of the measured model show that. Simulated edges and the cloud
record the logits of their first test examples. A device records those of random examples, because its own
stay on the device.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from sheaf.core.atomic_io import write_durably
from sheaf.core.dataset import Samples
from sheaf.core.errors import RunFolderError
from sheaf.core.seeds import generator
from sheaf.core.tensor_file import encode
from sheaf.models.card import Card

EXAMPLES = 64
"""Most test examples whose logits are recorded."""

RANDOM_EXAMPLES = 16
"""Number of random examples: a device evaluates them in addition to its own."""

MAX_LOGITS = 4096
"""Most numbers of a record: every evaluation of every site adds one to the journal."""

MAX_INPUT_BYTES = 2**20
"""Most bytes of test examples that are stored in the run's folder."""

FILE = "logits.safetensors"
"""The file in the run's folder."""


@dataclass(frozen=True)
class MeasuredLogits:
    """The logits of some examples, as a site's evaluation measured them.

    Attributes:
        model: SHA-256 of the encoded parameters, in hexadecimal.
        inputs: the examples: the first of the test split, or ``random_examples``.
        device: the type of the device that computed them, such as ``cpu``.
        columns: number of outputs of the model.
        values: the (N, columns) float32 logits, little-endian, in base64.
    """

    model: str
    inputs: Literal["test", "random"]
    device: str
    columns: int
    values: str

    @classmethod
    def of(
        cls, model: str, inputs: Literal["test", "random"], device: torch.device, logits: Tensor
    ) -> MeasuredLogits:
        """Return the record of (N, K) float32 logits on the CPU."""
        content = logits.numpy().astype("<f4").tobytes()
        return cls(model, inputs, device.type, logits.shape[1], base64.b64encode(content).decode())

    def header(self) -> dict[str, Any]:
        """Return the record as a JSON object."""
        return dict(vars(self))

    @property
    def logits(self) -> Tensor:
        """The (N, columns) logits.

        Raises:
            ValueError: the record is malformed.
        """
        content = np.frombuffer(base64.b64decode(self.values, validate=True), "<f4")
        return torch.from_numpy(content.reshape(-1, self.columns).astype(np.float32))


@dataclass(frozen=True)
class Recorded:
    """The recorded logits of one site's final model, with their inputs.

    Attributes:
        model: SHA-256 of the encoded parameters, in hexadecimal.
        inputs: (N, C, H, W) uint8 or float32, as decoded from files.
        described: the examples, for messages: ``test examples`` or ``random examples``.
        device: the type of the device that computed the logits.
        logits: (N, K) float32.
    """

    model: str
    inputs: Tensor
    described: str
    device: str
    logits: Tensor


def count_recorded(samples: Samples, outputs: int) -> int:
    """Return the number of test examples whose logits are recorded, at least 1."""
    example_bytes = max(1, samples.inputs[:1].nbytes)
    return max(1, min(EXAMPLES, MAX_LOGITS // outputs, MAX_INPUT_BYTES // example_bytes))


def random_examples(
    shape: tuple[int, ...], dtype: torch.dtype, mean: tuple[float, ...], std: tuple[float, ...], count: int
) -> Tensor:
    """Return (count, C, H, W) examples, the same on every machine.

    Args:
        shape: (C, H, W).
        dtype: uint8 for images, float32 for other inputs.
        mean: of each channel; float32 examples have it.
        std: the standard deviation, likewise.
        count: the number of examples.
    """
    draws = generator(0)
    if dtype == torch.uint8:
        return torch.randint(0, 256, (count, *shape), generator=draws, dtype=torch.uint8)
    center, spread = (torch.tensor(values)[:, None, None] for values in (mean, std))
    return center + spread * 12**0.5 * (torch.rand(count, *shape, generator=draws) - 0.5)


def write_measured(folder: Path, measured: Mapping[str, MeasuredLogits], test: Samples) -> None:
    """Write the records of the sites' final models to ``FILE``, with the test examples that they refer to."""
    logits: dict[str, Tensor] = {}
    sites = {}
    for site, record in measured.items():
        try:
            logits[site] = record.logits
        except ValueError:  # of a faulty device
            continue
        sites[site] = {"model": record.model, "inputs": record.inputs, "device": record.device}
    most = max((len(logits[site]) for site in sites if sites[site]["inputs"] == "test"), default=0)
    tensors = {f"logits.{site}": values for site, values in logits.items()}
    tensors["inputs"] = test.inputs[test.positions[:most]]
    write_durably(folder / FILE, encode(tensors, {"sites": json.dumps(sites)}))


def read_measured(folder: Path, site: str, card: Card) -> Recorded | None:
    """Read the record of a site's final model, whose card this is; None if the run has none.

    Raises:
        RunFolderError: the file is damaged.
    """
    path = folder / FILE
    if not path.exists():
        return None
    try:
        with safe_open(path, "pt") as file:
            sites = json.loads(file.metadata()["sites"])
            if site not in sites:
                return None
            record, logits = sites[site], file.get_tensor(f"logits.{site}")
            if record["inputs"] == "random":
                inputs = random_examples(card.in_shape, card.dtype, card.mean, card.std, len(logits))
            else:
                inputs = file.get_tensor("inputs")[: len(logits)]
        return Recorded(record["model"], inputs, f"{record['inputs']} examples", record["device"], logits)
    except (SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
        raise RunFolderError(f"{path} is damaged; copy the run's folder again: {error}") from error
