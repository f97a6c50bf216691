"""From encoded files to one tensor: all examples are alike, or the first that is not is named."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from sheaf.core.dataset import Sound
from sheaf.core.errors import DataError
from sheaf.core.progress_bar import bar
from sheaf.data.readers.encoded import Encoded, Part
from sheaf.data.readers.images import decode_image, describe_image
from sheaf.data.readers.logmel import decode_sound, fit, log_mel
from sheaf.data.settings import DataSettings

T = TypeVar("T")
Advance = Callable[[int], None]

BLOCK = 512  # so many encoded files are in memory at a time
THREADS = min(8, os.cpu_count() or 1)


def decode(name: str, encoded: Encoded, settings: DataSettings) -> tuple[Tensor, Tensor, Sound | None]:
    """The inputs of the training and of the test part, and how sounds became them.

    Returns:
        (N, C, H, W) each, uint8 for images and float32 for sounds.

    Raises:
        DataError: a file or row cannot be read or is not like the others, or a setting does not
            apply.
    """
    if encoded.kind == "image" and settings.rate is not None:
        raise DataError(f"data.rate is for sounds, and {name} holds images")
    if encoded.kind == "sound" and (settings.size or settings.channels):
        raise DataError(f"data.size and data.channels are for images, and {name} holds sounds")
    total = len(encoded.train.labels) + len(encoded.test.labels)
    read = _images if encoded.kind == "image" else _sounds
    with bar(f"reading {name}", total) as advance:
        return read(name, encoded, settings, advance)


def _images(
    name: str, encoded: Encoded, settings: DataSettings, advance: Advance
) -> tuple[Tensor, Tensor, None]:
    shape: tuple[int, ...] | None = None
    odd: list[str] = []

    def stack(part: Part) -> Tensor:
        nonlocal shape
        pixels = np.empty(0, np.uint8)
        blocks = _decoded(part, lambda where, data: decode_image(where, data, settings), advance)
        for at, (where, image) in enumerate(item for block in blocks for item in block):
            shape = shape or image.shape
            if at == 0:
                pixels = np.empty((len(part.labels), *shape), np.uint8)
            if image.shape == shape:
                pixels[at] = image
            else:
                odd.append(f"{where} is {describe_image(image.shape)}")
        return torch.from_numpy(pixels)

    train, test = stack(encoded.train), stack(encoded.test)
    if odd and shape:
        raise DataError(
            f"{name}: {len(odd)} of {len(train) + len(test)} images are not "
            f"{describe_image(shape)} as the first one is: {odd[0]}; "
            "data.size = [rows, columns] and data.channels = 1 or 3 make them alike"
        )
    return train, test, None


def _sounds(
    name: str, encoded: Encoded, settings: DataSettings, advance: Advance
) -> tuple[Tensor, Tensor, Sound]:
    common: int | None = settings.rate
    odd: list[str] = []

    def stack(part: Part) -> Tensor:
        nonlocal common
        features = []
        for block in _decoded(part, decode_sound, advance):
            waves = []
            for where, (wave, rate) in block:
                common = common or rate
                if rate != common and settings.rate is None:
                    odd.append(f"{where} has {rate}")
                waves.append(fit(wave, rate, common, settings.seconds))
            features.append(log_mel(torch.from_numpy(np.stack(waves)), common or 0))
        return torch.cat(features)

    train, test = stack(encoded.train), stack(encoded.test)
    if odd:
        raise DataError(
            f"{name}: {len(odd)} of {len(train) + len(test)} sounds do not have {common} samples "
            f"a second as the first one has: {odd[0]}; data.rate = {common} makes them alike"
        )
    return train, test, Sound(rate=common or 0, seconds=settings.seconds)


def _decoded(
    part: Part, decode_one: Callable[[str, bytes], T], advance: Advance
) -> Iterator[list[tuple[str, T]]]:
    """Blocks of (where, decoded), in order. Decoders let go of Python's lock, so threads help."""
    items = part.items(np.arange(len(part.labels)))
    share = -(-BLOCK // THREADS)
    with ThreadPoolExecutor(THREADS) as pool:
        while block := list(islice(items, BLOCK)):
            shares = [block[at : at + share] for at in range(0, len(block), share)]
            done = pool.map(lambda share: [(item[0], decode_one(*item)) for item in share], shares)
            yield [pair for decoded in done for pair in decoded]
            advance(len(block))
