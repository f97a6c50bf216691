"""Decoding of image files: PNG, JPEG, WebP, BMP, GIF, TIFF and PNM, and AVIF and HEIC where Pillow can.

Images become 8-bit grey or colour. Images with more bits per channel are scaled by the bits in use, palettes
and CMYK become colour, transparent pixels become white, the orientation in EXIF or XMP is applied, and an
animation is represented by its first frame.
"""

from __future__ import annotations

import importlib
import io
import re
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image, UnidentifiedImageError, features

from sheaf.core.errors import DataError
from sheaf.data.readers.deep_samples import Samples, deep_samples
from sheaf.data.settings import DataSettings

# An explicit list, because Pillow's other formats include EPS, for which it starts an interpreter.
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF", "PPM")
SUFFIXES = frozenset(
    {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm"}
    | {".avif", ".heic", ".heif"}
)
SMALL = 1 << 24  # pixels of an image that may be one colour, in a file of any size
MOST_PIXELS_PER_BYTE = 10_000  # of a larger image; PNG stores at most 8,256, of one bit each
CONVERT = "convert it to JPEG or PNG, for example with ImageMagick: magick mogrify -format jpg FILE"

GREY_SCALE = {"L;2": 85, "L;4": 17}
"""Pillow's layout of grey samples of 2 and 4 bits -> the factor by which it scales them to 8 bits."""

TRANSPOSITIONS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""EXIF orientation -> the transposition that turns the image upright."""
XMP_ORIENTATION = re.compile(rb"tiff:Orientation\s*(?:=\s*[\"']|>)\s*([1-8])")
PROFILES = ("exif", "APP1", "xmp")
ORIENTATION_KEYS = {"exif", "xmp", "XML:com.adobe.xmp", *(f"Raw profile type {name}" for name in PROFILES)}
"""Keys of Pillow's ``Image.info`` whose values can contain an orientation."""
METADATA_CHUNKS = (b"eXIf", b"tEXt", b"iTXt", b"zTXt")
"""Names of the parts of a PNG file that can contain an orientation."""

Pixels = npt.NDArray[np.uint8]


def decode_image(location: str, content: bytes, settings: DataSettings) -> Pixels:
    """Return an image as (C, H, W) uint8, without Pillow's warnings; see ``decode_with_bits``."""
    with pillow_warnings_ignored():
        return decode_with_bits(location, content, settings)[0]


def decode_with_bits(location: str, content: bytes, settings: DataSettings) -> tuple[Pixels, int]:
    """Decode an image, in the size and channels of ``settings`` where these are set.

    Args:
        location: where the image comes from, for messages.
        content: the encoded file.
        settings: ``size``, ``channels`` and ``bits``. Unset bits: those in use in this image.

    Returns:
        (the image, (C, H, W) uint8; the bits per channel in use, 0 if the file has at most 8).

    Raises:
        DataError: the image cannot be read.
    """
    try:
        image, bits = _grey_or_colour(content, settings.bits)
    except Exception as error:  # Pillow's decoders raise many kinds of errors for damaged files
        raise DataError(f"{location} cannot be read: {error}") from error
    if settings.channels is not None:
        image = image.convert("L" if settings.channels == 1 else "RGB")
    if settings.size is not None and image.size != settings.size[::-1]:
        image = image.resize(settings.size[::-1], Image.Resampling.BILINEAR)
    pixels = np.asarray(image)
    return (pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)), bits


def image_size(content: bytes) -> tuple[int, int] | None:
    """Return (rows, columns) of an upright image by its header; None if that cannot be read."""
    try:
        image: Image.Image = Image.open(io.BytesIO(content), formats=_formats(content))
        if image.format == "PNG" and any(chunk in content for chunk in METADATA_CHUNKS):
            image.load()  # these chunks may follow the pixels
        orientation = _orientation(image)
    except Exception:  # decoding reports it
        return None
    columns, rows = image.size
    return (columns, rows) if orientation in (5, 6, 7, 8) else (rows, columns)


def describe_image(shape: tuple[int, ...]) -> str:
    """Return a description of (C, H, W) such as ``32x32 colour``."""
    channels, height, width = shape
    return f"{height}x{width} {'grey' if channels == 1 else 'colour'}"


_filter_lock = threading.Lock()
_filter_users = 0
_filter = warnings.catch_warnings()


@contextmanager
def pillow_warnings_ignored() -> Iterator[None]:
    """Ignore Pillow's warnings, which are of unusual but harmless tags, while any thread is in the block.

    The filters belong to the process: the first thread sets them, and the last one restores them. A block
    around many images saves setting them, and a lock, for each one.
    """
    global _filter_users, _filter
    with _filter_lock:
        if _filter_users == 0:
            _filter = warnings.catch_warnings()
            _filter.__enter__()
            warnings.filterwarnings("ignore", module=r"PIL\b")
        _filter_users += 1
    try:
        yield
    finally:
        with _filter_lock:
            _filter_users -= 1
            if _filter_users == 0:
                _filter.__exit__(None, None, None)


def _grey_or_colour(content: bytes, bits: int | None) -> tuple[Image.Image, int]:
    """Decode to an upright image of mode L or RGB; return it and the bits in use, 0 for at most 8."""
    formats = _formats(content)
    try:
        image: Image.Image = Image.open(io.BytesIO(content), formats=formats)
    except UnidentifiedImageError as error:
        if formats != FORMATS:
            raise ValueError(f"it is a damaged {formats[0]} image") from error
        raise ValueError(f"it is no image in a supported format ({', '.join(FORMATS)})") from error
    if image.width * image.height > max(SMALL, MOST_PIXELS_PER_BYTE * len(content)):
        raise ValueError(
            f"its header states {image.width}x{image.height} pixels, too many for its {len(content)} bytes"
        )
    tiles = getattr(image, "tile", [])
    layout = tiles[0][3] if tiles else None
    samples = deep_samples(image, content, formats)
    image.load()
    orientation = _orientation(image)
    used = 0
    if samples is not None:
        image, used = _reduce(samples, image.info.get("transparency"), bits)
    elif image.mode == "F":
        raise ValueError("its pixels are floating-point numbers of unknown range; convert it to 8 or 16 bits")
    elif isinstance(layout, str) and layout in GREY_SCALE and "transparency" in image.info:
        image.info["transparency"] *= GREY_SCALE[layout]
    if image.has_transparency_data:
        image = _on_white(image)
    elif image.mode not in ("L", "RGB"):
        image = image.convert("L" if image.mode == "1" else "RGB")
    return (image.transpose(TRANSPOSITIONS[orientation]) if orientation in TRANSPOSITIONS else image), used


def _reduce(samples: Samples, key: object, bits: int | None) -> tuple[Image.Image, int]:
    """Reduce samples to the upper 8 of their ``bits``, unset: of the bits in use by pixels not transparent.

    Args:
        samples: see ``deep_samples``.
        key: the grey value or the colour that is transparent, or None.
        bits: 8 to 32, or None.

    Returns:
        (image of mode L, RGB or RGBA, bits in use).
    """
    channels = samples.shape[2]
    alpha = samples[..., -1] if channels in (2, 4) else None
    samples = samples[..., : channels - 1] if alpha is not None else samples
    if alpha is None and key is not None:
        alpha = np.where((samples == np.asarray(key)).all(-1), 0, 65535)
    visible = samples if alpha is None else samples[alpha > 0]
    used = max(8, int(visible.max()).bit_length()) if visible.size else 8
    reduced = np.minimum(samples >> ((bits or used) - 8), 255).astype(np.uint8)
    if alpha is None:
        return Image.fromarray(reduced[..., 0] if channels == 1 else reduced), used
    opaque = (alpha >> 8 if alpha.max() > 255 else alpha).astype(np.uint8)
    return Image.fromarray(np.concatenate([reduced, opaque[..., None]], -1)), used


def _on_white(image: Image.Image) -> Image.Image:
    """Lay an image with transparency on white; return mode L for grey, otherwise RGB."""
    grey = image.mode in ("1", "L", "LA", "La")
    layer = image.convert("RGBA")
    background = Image.new("RGBA", layer.size, "white")
    return Image.alpha_composite(background, layer).convert("L" if grey else "RGB")


def _orientation(image: Image.Image) -> object:
    """Return the orientation, 1 to 8, of a loaded image: of EXIF or, if EXIF has none, of XMP.

    ImageMagick stores both in text chunks of PNG, as hexadecimal digits after three lines.
    """
    if image.format == "TIFF":
        return 1  # Pillow has applied it
    if not image.info.keys() & ORIENTATION_KEYS:
        return 1
    profiles = [_raw_profile(image.info.get(f"Raw profile type {name}")) for name in PROFILES]
    for block in filter(None, (image.info.get("exif"), *profiles)):
        try:
            exif = Image.Exif()
            exif.load(block)
            if ExifTags.Base.Orientation in exif:
                return exif[ExifTags.Base.Orientation]
        except Exception:  # damaged, or not EXIF
            continue
    xmp = image.info.get("XML:com.adobe.xmp") or image.info.get("xmp") or b""
    for block in (xmp.encode() if isinstance(xmp, str) else xmp, *profiles):
        if match := XMP_ORIENTATION.search(block):
            return int(match[1])
    return 1


def _raw_profile(text: object) -> bytes:
    """Return the content of one of ImageMagick's profiles; empty if it is missing or damaged."""
    try:
        return bytes.fromhex("".join(text.split("\n")[3:])) if isinstance(text, str) else b""
    except ValueError:
        return b""


def _formats(content: bytes) -> tuple[str, ...]:
    """Return the formats that an image may have; for AVIF and HEIC the one that it has.

    Raises:
        ValueError: the library for it is missing.
    """
    if content[4:8] != b"ftyp":
        return FORMATS
    if b"avif" in content[8:64] or b"avis" in content[8:64]:
        if not features.check("avif"):
            raise ValueError(f"it is an AVIF image, which needs Pillow 11.3 or later; {CONVERT}")
        return ("AVIF",)
    if any(brand in content[8:64] for brand in (b"hei", b"hev", b"mif1", b"msf1")):
        try:
            importlib.import_module("pillow_heif").register_heif_opener()
        except ImportError as error:
            raise ValueError(
                f"it is a HEIC image, which needs the package pillow-heif; install that, or {CONVERT}"
            ) from error
        return ("HEIF",)
    return FORMATS
