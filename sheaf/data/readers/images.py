"""Decoding of image files: PNG, JPEG, WebP, BMP, GIF, TIFF and PNM.

Images become 8-bit grey or colour. Sixteen-bit grey keeps its upper eight bits, palettes and CMYK become
colour, transparent pixels become white, the EXIF orientation is applied, and an animation is represented by
its first frame.
"""

from __future__ import annotations

import io
import warnings

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

from sheaf.core.errors import DataError
from sheaf.data.settings import DataSettings

# An explicit list, because Pillow's other formats include EPS, for which it starts an interpreter.
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF", "PPM")
SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm"})

Pixels = npt.NDArray[np.uint8]


def decode_image(location: str, content: bytes, settings: DataSettings) -> Pixels:
    """Return an image as (C, H, W) uint8, in the size and channels of ``settings`` where these are set.

    Args:
        location: where the image comes from, for messages.
        content: the encoded file.
        settings: ``size`` and ``channels``.

    Raises:
        DataError: the image cannot be read.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns of unusual but harmless tags
            image: Image.Image = Image.open(io.BytesIO(content), formats=FORMATS)
            image = _grey_or_colour(ImageOps.exif_transpose(image) if image.info.get("exif") else image)
    except Exception as error:  # Pillow's decoders raise many kinds of errors for damaged files
        unidentified = "identify" in str(error)
        reason = f"it is no image in a supported format ({', '.join(FORMATS)})" if unidentified else error
        raise DataError(f"{location} cannot be read: {reason}") from error
    if settings.channels is not None:
        image = image.convert("L" if settings.channels == 1 else "RGB")
    if settings.size is not None and image.size != settings.size[::-1]:
        image = image.resize(settings.size[::-1], Image.Resampling.BILINEAR)
    pixels = np.asarray(image)
    return pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)


def describe_image(shape: tuple[int, ...]) -> str:
    """Return a description of (C, H, W) such as ``32x32 colour``."""
    channels, height, width = shape
    return f"{height}x{width} {'grey' if channels == 1 else 'colour'}"


def _grey_or_colour(image: Image.Image) -> Image.Image:
    """Convert an image to 8-bit grey (mode L) or colour (mode RGB)."""
    if image.mode in ("L", "RGB"):
        image.load()
        return image
    if image.mode == "1":
        return image.convert("L")
    if image.mode.startswith("I"):
        values = np.asarray(image)
        if values.min() < 0 or values.max() > 65535:
            raise ValueError(
                f"its values range from {values.min()} to {values.max()}; they must fit into 16 bits"
            )
        return Image.fromarray((values >> 8).astype(np.uint8))
    if image.mode == "F":
        raise ValueError("its pixels are floating-point numbers of unknown range; convert it to 8 or 16 bits")
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        background = Image.new("RGBA", layer.size, "white")
        mode = "L" if image.mode in ("LA", "La") else "RGB"
        return Image.alpha_composite(background, layer).convert(mode)
    return image.convert("RGB")
