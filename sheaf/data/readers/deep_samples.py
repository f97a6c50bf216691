"""Samples of images with more than 8 bits per channel, which Pillow would reduce to the upper 8 bits."""

from __future__ import annotations

import io
import sys
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

Samples = npt.NDArray[Any]

NATIVE_SWAPPED = "16B" if sys.byteorder == "little" else "16L"
BITS_PER_SAMPLE, PLANAR_CONFIGURATION, SAMPLE_FORMAT = 258, 284, 339  # tags of TIFF
SWAPPED = {"16B": "16L", "16L": "16B", "16N": NATIVE_SWAPPED}
"""Layout of 16-bit samples in Pillow -> the layout whose upper byte is the lower byte of the other."""


def deep_samples(image: Image.Image, content: bytes, formats: tuple[str, ...]) -> Samples | None:
    """Return all bits of an image that Pillow has opened but not loaded; None if it has 8 bits per channel.

    Args:
        image: the opened image; it is loaded if it has one channel.
        content: the encoded file.
        formats: names of Pillow's formats.

    Returns:
        Non-negative integers: (H, W, 1) grey, (H, W, 2) grey and alpha, (H, W, 3) or (H, W, 4) colour.

    Raises:
        ValueError: a sample is negative, or the channels are in separate planes.
    """
    if image.mode.startswith("I"):
        samples = np.asarray(image)
        if samples.dtype == np.int32 and _tag(image, SAMPLE_FORMAT) == (1,):
            samples = samples.view(np.uint32)  # Pillow has no unsigned type of 32 bits
        if samples.min() < 0:
            raise ValueError(
                f"its values range from {samples.min()} to {samples.max()}; they must not be negative"
            )
        return samples[..., None]
    if image.mode not in ("RGB", "RGBA"):
        return None
    if _has_deep_planes(image):
        tiles: Any = getattr(image, "tile", [])
        # Pillow decodes such strips wrongly if they are not compressed, otherwise it keeps the upper bytes.
        if tiles[0][0] == "raw" or np.asarray(image).max() < 128:
            raise ValueError("its 16-bit channels are in separate planes; store them interleaved")
        return None
    layouts = {_layout(tile) for tile in getattr(image, "tile", [])}
    if len(layouts) != 1:
        return None
    mode, _, depth = layouts.pop().partition(";")
    if mode == "LA" and depth == "16B":
        parts = _load(content, formats, "RGBA").astype(np.uint16)  # the four bytes of a pixel
        return np.stack([parts[..., 0] << 8 | parts[..., 1], parts[..., 2] << 8 | parts[..., 3]], -1)
    if mode in ("RGB", "RGBA") and depth in SWAPPED:
        upper = _load(content, formats, f"{mode};{depth}").astype(np.uint16)
        return upper << 8 | _load(content, formats, f"{mode};{SWAPPED[depth]}")
    return None


def _has_deep_planes(image: Image.Image) -> bool:
    """Return whether an image is a TIFF whose channels of 16 bits are stored one after another."""
    return _tag(image, PLANAR_CONFIGURATION) == 2 and 16 in (_tag(image, BITS_PER_SAMPLE) or ())


def _tag(image: Any, number: int) -> Any:
    """Return the value of a tag of TIFF; None if the image has none."""
    return getattr(image, "tag_v2", {}).get(number)


def _layout(tile: Any) -> str:
    """Return the layout of a tile's samples, such as ``RGB;16B``; Pillow calls it the raw mode."""
    arguments = tile[3]
    return str(arguments if isinstance(arguments, str) else arguments[0])


def _load(content: bytes, formats: tuple[str, ...], layout: str) -> npt.NDArray[np.uint8]:
    """Decode a file whose samples are taken to be in another layout."""
    image: Any = Image.open(io.BytesIO(content), formats=formats)
    image.tile = [_with_layout(tile, layout) for tile in image.tile]
    image.load()
    return np.asarray(image)


def _with_layout(tile: Any, layout: str) -> Any:
    arguments = layout if isinstance(tile[3], str) else (layout, *tile[3][1:])
    # A named tuple since Pillow 11.1, whose TIFF reader needs the names.
    return tile._replace(args=arguments) if hasattr(tile, "_replace") else (*tile[:3], arguments)
