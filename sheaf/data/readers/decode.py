"""Decoding of the files of a dataset into one tensor per split."""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import torch

from sheaf.core.dataset import Samples, Sound
from sheaf.core.errors import DataError
from sheaf.core.progress_bar import bar
from sheaf.data.array_store import ArrayStore, MemoryStore
from sheaf.data.readers.encoded import Encoded, EncodedSplit
from sheaf.data.readers.images import (
    decode_image,
    decode_with_bits,
    describe_image,
    image_size,
    pillow_warnings_ignored,
)
from sheaf.data.readers.logmel import Wave, decode_sound, fit, log_mel
from sheaf.data.settings import DataSettings

logger = logging.getLogger("sheaf")

T = TypeVar("T")
Advance = Callable[[int], None]
Broken = dict[str, DataError]
"""Location of an example that cannot be read -> its error."""

BLOCK = 512  # files in memory at a time
ENCODED_BYTES, DECODED_BYTES = 2**25, 2**23  # of these files
THREADS = min(8, os.cpu_count() or 1)
FULL_BITS = 16  # from which images of more than 8 bits per channel are scaled at first
NAMED = 5  # broken files in a message
PROBED, LARGE = 64, 2**16  # the headers of a split are read if one of its first 64 images has 2^16 pixels


@dataclass(frozen=True)
class Decoded:
    """A dataset after decoding.

    Attributes:
        train: the training split, with inputs (N, C, H, W): uint8 for images, float32 log-mel spectrograms
            for sounds.
        test: the test split, likewise.
        sound: the conversion of sounds; None for images.
        bits: the bits per channel from which images are scaled; None if all files have at most 8.
        broken: the examples that cannot be read and are left out.
    """

    train: Samples
    test: Samples
    sound: Sound | None = None
    bits: int | None = None
    broken: Broken = field(default_factory=dict)


def decode(name: str, encoded: Encoded, settings: DataSettings, store: ArrayStore | None = None) -> Decoded:
    """Decode both splits.

    Args:
        name: of the dataset, for messages.
        encoded: both splits.
        settings: the table ``[data]``.
        store: receives the decoded examples. Unset: memory.

    Raises:
        DataError: a file or row cannot be read or differs in shape or rate, a setting does not apply, or the
            examples exceed the available memory.
        CacheError: the store cannot be written.
    """
    store = store or MemoryStore()
    if encoded.kind == "image" and settings.rate is not None:
        raise DataError(f"data.rate is for sounds, but {name} contains images; remove it")
    if encoded.kind == "sound" and (settings.size or settings.channels):
        raise DataError(
            f"data.size and data.channels are for images, but {name} contains sounds; remove them"
        )
    total = len(encoded.train.labels) + len(encoded.test.labels)
    decode_splits = _decode_images if encoded.kind == "image" else _decode_sounds
    with bar(f"reading {name}", total) as advance, pillow_warnings_ignored():
        if encoded.kind == "image" and settings.size is None:
            _check_sizes(name, encoded)
        return decode_splits(name, encoded, settings, store, advance)


def _check_sizes(name: str, encoded: Encoded) -> None:
    """Check by their headers that large images have one size, before any is decoded.

    Small images are decoded about as fast, so they are left to the decoding.

    Raises:
        DataError: two images differ in size.
    """
    first: tuple[str, tuple[int, int]] | None = None
    largest = 0
    for split in (encoded.train, encoded.test):
        for number, (location, content) in enumerate(split.items(np.arange(len(split.labels)))):
            if number == PROBED and largest < LARGE:
                break
            size = image_size(content)
            if size is None:
                continue
            first = first or (location, size)
            largest = max(largest, size[0] * size[1])
            if size != first[1] and largest >= LARGE:
                raise DataError(
                    f"{name}: the images differ in size: {first[0]} is {first[1][0]}x{first[1][1]}, "
                    f"{location} is {size[0]}x{size[1]}; set data.size = [rows, columns] to resize them"
                )


def _reserve_images(name: str, encoded: Encoded, settings: DataSettings, store: ArrayStore) -> int:
    """Reserve the space of all images, in the shape of the first one that can be read.

    Returns:
        The number of images that may be decoded at a time.
    """
    total = len(encoded.train.labels) + len(encoded.test.labels)
    first = encoded.train if len(encoded.train.labels) else encoded.test
    for location, content in first.items(np.arange(min(PROBED, len(first.labels)))):
        try:
            shape = decode_image(location, content, settings).shape
        except DataError:
            continue
        store.reserve(
            f"{name}: {total} images of {describe_image(shape)}", total * math.prod(shape), "data.size"
        )
        return _examples_per_block(math.prod(shape))
    return BLOCK


def _examples_per_block(size: int) -> int:
    """Return how many examples of ``size`` bytes may be decoded at a time."""
    return max(1, min(BLOCK, DECODED_BYTES // size))


def _check_broken(name: str, broken: Broken, encoded: Encoded, settings: DataSettings) -> None:
    """Check that no file is broken, or that ``data.skip_broken`` is set and some can be read.

    Raises:
        DataError: files are broken.
    """
    if not broken:
        return
    total = len(encoded.train.labels) + len(encoded.test.labels)
    summary = describe_broken(name, broken, encoded)
    if len(broken) == total:
        raise DataError(summary)
    if not settings.skip_broken and len(broken) == 1:
        (error,) = broken.values()
        raise DataError(f"{error}; mend it, or set data.skip_broken = true to leave it out")
    if not settings.skip_broken:
        raise DataError(f"{summary}; mend them, or set data.skip_broken = true to leave them out")


def describe_broken(name: str, broken: Broken, encoded: Encoded) -> str:
    """Return how many files of the dataset ``name`` cannot be read, and the first ones."""
    errors = [str(error).replace(" cannot be read: ", ": ", 1) for error in broken.values()]
    listed = "; ".join(errors[:NAMED]) + (f"; and {len(errors) - NAMED} more" if len(errors) > NAMED else "")
    total = len(encoded.train.labels) + len(encoded.test.labels)
    return f"{name}: {len(errors)} of {total} {encoded.kind}s cannot be read: {listed}"


def _decode_images(
    name: str, encoded: Encoded, settings: DataSettings, store: ArrayStore, advance: Advance
) -> Decoded:
    first_bits = settings.bits or FULL_BITS
    train, test, used, broken = _read_images(name, encoded, settings, first_bits, store, advance)
    bits = settings.bits or used
    if used and bits != first_bits:
        # Scaling by all 16 bits would lose the contrast of these files, or cut off larger values.
        del train, test
        train, test, *_ = _read_images(name, encoded, settings, bits, store, lambda count: None)
        logger.info(
            "%s: the images of more than 8 bits per channel use %d bits and are scaled from these to 8 bits; "
            "data.bits sets another number",
            name,
            bits,
        )
    return Decoded(train, test, bits=bits if used else None, broken=broken)


def _read_images(
    name: str, encoded: Encoded, settings: DataSettings, bits: int, store: ArrayStore, advance: Advance
) -> tuple[Samples, Samples, int, Broken]:
    """Return (training split, test split, bits in use by images of more than 8 bits or 0, broken images)."""
    settings = replace(settings, bits=bits)
    block_size = _reserve_images(name, encoded, settings, store)
    shape: tuple[int, ...] | None = None  # of the first image
    different: list[str] = []
    broken: Broken = {}
    used = 0

    def stack(split_name: str, split: EncodedSplit) -> Samples:
        nonlocal shape, used
        column = None
        positions: list[int] = []
        blocks = _decoded_blocks(
            split,
            lambda location, content: decode_with_bits(location, content, settings),
            advance,
            broken,
            block_size,
        )
        for block in blocks:
            alike = []
            for position, location, (image, image_bits) in block:
                if shape is None:
                    shape = image.shape
                used = max(used, image_bits)
                if image.shape == shape:
                    alike.append(image)
                else:
                    different.append(f"{location} is {describe_image(image.shape)}")
                positions.append(position)
            if alike and shape:
                column = column or store.column(f"{split_name}.inputs", len(split.labels), shape, np.uint8)
                column.append(np.stack(alike))
        pixels = column.finish() if column else torch.empty(0, 1, 1, 1, dtype=torch.uint8)
        return Samples(pixels, torch.from_numpy(split.labels[positions]), torch.arange(len(positions)))

    train, test = stack("train", encoded.train), stack("test", encoded.test)
    if shape and not len(encoded.train.labels):  # for the cloud of a fleet: none, of the shape of the others
        train = Samples.of(store.column("train.inputs", 0, shape, np.uint8).finish(), train.labels)
    _check_broken(name, broken, encoded, settings)
    if different and shape:
        raise DataError(
            f"{name}: {len(different)} of {len(train) + len(test)} images are not {describe_image(shape)} "
            f"like the first one: {different[0]}; "
            "set data.size = [rows, columns] and data.channels = 1 or 3 to convert them"
        )
    return train, test, used, broken


def _decode_sounds(
    name: str, encoded: Encoded, settings: DataSettings, store: ArrayStore, advance: Advance
) -> Decoded:
    common_rate = settings.rate or _rate_of_first(encoded)  # in Hz
    length = round(settings.seconds * common_rate)
    shape = log_mel(torch.zeros(1, length), common_rate).shape[1:]
    total = len(encoded.train.labels) + len(encoded.test.labels)
    subject = f"{name}: {total} sounds of {settings.seconds:g} s at {common_rate} Hz"
    store.reserve(subject, 4 * total * math.prod(shape), "data.seconds")
    different: list[str] = []
    durations: list[float] = []  # in s
    broken: Broken = {}

    def decode_and_fit(location: str, content: bytes) -> tuple[Wave, float, int]:
        """Return (the waveform at the common rate and length, the duration and the rate of the file)."""
        wave, rate = decode_sound(location, content)
        return fit(wave, rate, common_rate, settings.seconds), len(wave) / rate, rate

    def stack(split_name: str, split: EncodedSplit) -> Samples:
        column = store.column(f"{split_name}.inputs", len(split.labels), shape, np.float32)
        positions: list[int] = []
        block_size = _examples_per_block(4 * length)
        for block in _decoded_blocks(split, decode_and_fit, advance, broken, block_size):
            waves = []
            for position, location, (wave, duration, rate) in block:
                positions.append(position)
                durations.append(duration)
                if rate != common_rate and settings.rate is None:
                    different.append(f"{location} has {rate} Hz")
                waves.append(wave)
            if waves:
                column.append(log_mel(torch.from_numpy(np.stack(waves)), common_rate).numpy())
        return Samples.of(column.finish(), torch.from_numpy(split.labels[positions]))

    train, test = stack("train", encoded.train), stack("test", encoded.test)
    _check_broken(name, broken, encoded, settings)
    if different:
        raise DataError(
            f"{name}: {len(different)} of {len(train) + len(test)} sounds do not have {common_rate} Hz "
            f"like the first one: {different[0]}; set data.rate = {common_rate} to resample them"
        )
    _note_cut_sounds(name, np.array(durations), settings.seconds)
    return Decoded(train, test, Sound(rate=common_rate, seconds=settings.seconds), broken=broken)


def _rate_of_first(encoded: Encoded) -> int:
    """Return the rate, in Hz, of the first sound that can be read; 16000 if none can."""
    for split in (encoded.train, encoded.test):
        for location, content in split.items(np.arange(len(split.labels))):
            with suppress(DataError):
                return decode_sound(location, content)[1]
    return 16000


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
    split: EncodedSplit,
    decode_one: Callable[[str, bytes], T],
    advance: Advance,
    broken: Broken,
    block_size: int = BLOCK,
) -> Iterator[list[tuple[int, str, T]]]:
    """Yield blocks of (position, location, decoded example), in order.

    Decodes in threads: the decoders release Python's global interpreter lock. Examples that cannot be decoded
    are left out, and their errors are added to ``broken``. A block has at most ``block_size`` examples.
    """

    def decode_piece(piece: list[tuple[int, tuple[str, bytes]]]) -> list[tuple[int, str, T | DataError]]:
        decoded: list[tuple[int, str, T | DataError]] = []
        for position, (location, content) in piece:
            try:
                decoded.append((position, location, decode_one(location, content)))
            except DataError as error:
                decoded.append((position, location, error))
        return decoded

    blocks = _encoded_blocks(enumerate(split.items(np.arange(len(split.labels)))), block_size)
    with ThreadPoolExecutor(THREADS) as pool:
        for block in blocks:
            per_thread = -(-len(block) // THREADS)
            pieces = [block[start : start + per_thread] for start in range(0, len(block), per_thread)]
            readable = []
            for piece in pool.map(decode_piece, pieces):
                for position, location, result in piece:
                    if isinstance(result, DataError):
                        broken[location] = result
                    else:
                        readable.append((position, location, result))
            yield readable
            advance(len(block))


def _encoded_blocks(
    items: Iterable[tuple[int, tuple[str, bytes]]], block_size: int
) -> Iterator[list[tuple[int, tuple[str, bytes]]]]:
    """Yield blocks of (position, (location, content)): ``block_size`` or, of large items, ENCODED_BYTES."""
    block: list[tuple[int, tuple[str, bytes]]] = []
    size = 0
    for item in items:
        block.append(item)
        size += len(item[1][1])
        if len(block) == block_size or size >= ENCODED_BYTES:
            yield block
            block, size = [], 0
    if block:
        yield block
