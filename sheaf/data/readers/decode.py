"""Decoding of the files of a dataset into one tensor per split."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from sheaf.core.dataset import Sound
from sheaf.core.errors import DataError
from sheaf.core.progress_bar import bar
from sheaf.data.readers.encoded import Encoded, EncodedSplit
from sheaf.data.readers.images import decode_image, describe_image
from sheaf.data.readers.logmel import decode_sound, fit, log_mel
from sheaf.data.settings import DataSettings

logger = logging.getLogger("sheaf")

T = TypeVar("T")
Advance = Callable[[int], None]

BLOCK = 512  # encoded files in memory at a time
THREADS = min(8, os.cpu_count() or 1)


def decode(name: str, encoded: Encoded, settings: DataSettings) -> tuple[Tensor, Tensor, Sound | None]:
    """Decode both splits.

    Returns:
        (training inputs, test inputs, conversion of sounds). The inputs are (N, C, H, W), uint8 for images
        and float32 log-mel spectrograms for sounds.

    Raises:
        DataError: a file or row cannot be read or differs in shape or rate, or a setting does not apply.
    """
    if encoded.kind == "image" and settings.rate is not None:
        raise DataError(f"data.rate is for sounds, but {name} contains images; remove it")
    if encoded.kind == "sound" and (settings.size or settings.channels):
        raise DataError(
            f"data.size and data.channels are for images, but {name} contains sounds; remove them"
        )
    total = len(encoded.train.labels) + len(encoded.test.labels)
    decode_splits = _decode_images if encoded.kind == "image" else _decode_sounds
    with bar(f"reading {name}", total) as advance:
        return decode_splits(name, encoded, settings, advance)


def _decode_images(
    name: str, encoded: Encoded, settings: DataSettings, advance: Advance
) -> tuple[Tensor, Tensor, None]:
    shape: tuple[int, ...] | None = None  # of the first image
    different: list[str] = []

    def stack(split: EncodedSplit) -> Tensor:
        nonlocal shape
        pixels = np.empty(0, np.uint8)
        blocks = _decoded_blocks(
            split, lambda location, content: decode_image(location, content, settings), advance
        )
        for index, (location, image) in enumerate(item for block in blocks for item in block):
            shape = shape or image.shape
            if index == 0:
                pixels = np.empty((len(split.labels), *shape), np.uint8)
            if image.shape == shape:
                pixels[index] = image
            else:
                different.append(f"{location} is {describe_image(image.shape)}")
        return torch.from_numpy(pixels)

    train, test = stack(encoded.train), stack(encoded.test)
    if different and shape:
        raise DataError(
            f"{name}: {len(different)} of {len(train) + len(test)} images are not {describe_image(shape)} "
            f"like the first one: {different[0]}; "
            "set data.size = [rows, columns] and data.channels = 1 or 3 to convert them"
        )
    return train, test, None


def _decode_sounds(
    name: str, encoded: Encoded, settings: DataSettings, advance: Advance
) -> tuple[Tensor, Tensor, Sound]:
    common_rate: int | None = settings.rate  # in Hz; unset: that of the first sound
    different: list[str] = []
    durations: list[float] = []  # in s

    def stack(split: EncodedSplit) -> Tensor:
        nonlocal common_rate
        features = []
        for block in _decoded_blocks(split, decode_sound, advance):
            waves = []
            for location, (wave, rate) in block:
                common_rate = common_rate or rate
                durations.append(len(wave) / rate)
                if rate != common_rate and settings.rate is None:
                    different.append(f"{location} has {rate} Hz")
                waves.append(fit(wave, rate, common_rate, settings.seconds))
            features.append(log_mel(torch.from_numpy(np.stack(waves)), common_rate or 0))
        return torch.cat(features)

    train, test = stack(encoded.train), stack(encoded.test)
    if different:
        raise DataError(
            f"{name}: {len(different)} of {len(train) + len(test)} sounds do not have {common_rate} Hz "
            f"like the first one: {different[0]}; set data.rate = {common_rate} to resample them"
        )
    _note_cut_sounds(name, np.array(durations), settings.seconds)
    return train, test, Sound(rate=common_rate or 0, seconds=settings.seconds)


def _note_cut_sounds(name: str, durations: npt.NDArray[np.float64], seconds: float) -> None:
    """Log the fraction of the sound that ``data.seconds`` cuts off, if it is 0.1 % or more."""
    excess = np.maximum(durations - seconds, 0)
    fraction = excess.sum() / max(durations.sum(), seconds)
    if fraction >= 0.001:
        logger.info(
            "%s: data.seconds = %g cuts off %.1f %% of the sound, in %d of %d files; the longest has %.1f s",
            name,
            seconds,
            100 * fraction,
            np.count_nonzero(excess),
            len(excess),
            durations.max(),
        )


def _decoded_blocks(
    split: EncodedSplit, decode_one: Callable[[str, bytes], T], advance: Advance
) -> Iterator[list[tuple[str, T]]]:
    """Yield blocks of (location, decoded example), in order.

    Decodes in threads: the decoders release Python's global interpreter lock.
    """
    items = split.items(np.arange(len(split.labels)))
    per_thread = -(-BLOCK // THREADS)
    with ThreadPoolExecutor(THREADS) as pool:
        while block := list(islice(items, BLOCK)):
            pieces = [block[start : start + per_thread] for start in range(0, len(block), per_thread)]
            decoded = pool.map(lambda piece: [(item[0], decode_one(*item)) for item in piece], pieces)
            yield [pair for piece in decoded for pair in piece]
            advance(len(block))
