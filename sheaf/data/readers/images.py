"""Image files' bytes to tensors.

Read are PNG, JPEG, WebP, BMP, GIF, TIFF and PNM. Sixteen-bit grey keeps its upper eight bits;
palettes and CMYK become colour; what is transparent becomes white; a photograph is turned upright
as its EXIF orientation says; of an animation the first picture counts.
"""

from __future__ import annotations

import io
import warnings

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

from sheaf.core.errors import DataError
from sheaf.data.settings import DataSettings

# Named one by one: Pillow's other formats include EPS, for which it starts an interpreter.
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF", "PPM")
SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm"})

Pixels = npt.NDArray[np.uint8]


def decode_image(where: str, data: bytes, settings: DataSettings) -> Pixels:
    """One image as (C, H, W) uint8, with the size and channels that are set, otherwise its own.

    Raises:
        DataError: it cannot be read; ``where`` is named.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a strange tag in a file is no matter of the user's
            image: Image.Image = Image.open(io.BytesIO(data), formats=FORMATS)
            image = _grey_or_colour(ImageOps.exif_transpose(image) if image.info.get("exif") else image)
    except Exception as error:  # a damaged file makes Pillow's decoders raise nearly anything
        reason = "it is not an image that sheaf reads" if "identify" in str(error) else error
        raise DataError(f"{where} cannot be read: {reason}") from error
    if settings.channels is not None:
        image = image.convert("L" if settings.channels == 1 else "RGB")
    if settings.size is not None and image.size != settings.size[::-1]:
        image = image.resize(settings.size[::-1], Image.Resampling.BILINEAR)
    pixels = np.asarray(image)
    return pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)


def describe_image(shape: tuple[int, ...]) -> str:
    """``32x32 colour``."""
    channels, height, width = shape
    return f"{height}x{width} {'grey' if channels == 1 else 'colour'}"


def _grey_or_colour(image: Image.Image) -> Image.Image:
    if image.mode in ("L", "RGB"):
        image.load()
        return image
    if image.mode == "1":
        return image.convert("L")
    if image.mode.startswith("I"):
        values = np.asarray(image)
        if values.min() < 0 or values.max() > 65535:
            raise ValueError("its values do not fit 16 bits")
        return Image.fromarray((values >> 8).astype(np.uint8))
    if image.mode == "F":
        raise ValueError("its values are floating-point numbers, of which no range is known")
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        paper = Image.new("RGBA", layer.size, "white")
        mode = "L" if image.mode in ("LA", "La") else "RGB"
        return Image.alpha_composite(paper, layer).convert(mode)
    return image.convert("RGB")
