"""Image files."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import numpy as np
from fuzz.engine import Harness, mutated
from PIL import Image, features

from sheaf.data.readers.decode import decode
from sheaf.data.readers.encoded import Encoded, EncodedSplit
from sheaf.data.readers.images import image_size, pillow_warnings_ignored
from sheaf.data.settings import DataSettings


def seeds() -> list[bytes]:
    """Return small images of all formats and modes."""
    ramp = np.arange(24 * 20, dtype=np.uint16).reshape(24, 20)
    images = {
        "L": Image.fromarray((ramp % 256).astype(np.uint8)),
        "I;16": Image.fromarray(ramp * 100),
        "RGB": Image.fromarray(np.stack([ramp % 256, ramp % 200, ramp % 3], -1).astype(np.uint8)),
    }
    images["RGBA"] = images["RGB"].convert("RGBA")
    images["P"] = images["RGB"].quantize(16)
    images["1"] = images["L"].convert("1")
    images["CMYK"] = images["RGB"].convert("CMYK")
    exif = Image.Exif()
    exif[0x112] = 6
    options: list[tuple[str, str, dict[str, Any]]] = [
        *[(mode, "PNG", {}) for mode in ("L", "I;16", "RGB", "RGBA", "P", "1")],
        ("P", "PNG", {"transparency": 3, "exif": exif}),
        ("RGB", "PNG", {"transparency": (0, 0, 0)}),
        ("RGB", "JPEG", {"exif": exif}),
        ("L", "JPEG", {"progressive": True}),
        ("CMYK", "JPEG", {}),
        ("RGB", "WEBP", {"lossless": True, "exif": exif}),
        ("RGBA", "WEBP", {}),
        ("RGB", "BMP", {}),
        ("P", "BMP", {}),
        ("P", "GIF", {"save_all": True, "append_images": [images["P"]], "transparency": 1}),
        *[("RGB", "TIFF", {"compression": name}) for name in (None, "tiff_lzw", "jpeg", "packbits")],
        ("I;16", "TIFF", {"compression": "tiff_adobe_deflate"}),
        ("1", "TIFF", {"compression": "group4"}),
        ("RGB", "PPM", {}),
        ("I;16", "PPM", {}),
    ]
    if features.check("avif"):
        options.append(("RGB", "AVIF", {"quality": 40}))
    contents = []
    for mode, name, keys in options:
        file = io.BytesIO()
        images[mode].save(file, name, **keys)
        contents.append(file.getvalue())
    return contents


def with_checksums(content: bytes) -> bytes:
    """Return a PNG with correct checksums; another file as it is."""
    if not content.startswith(b"\x89PNG\r\n\x1a\n"):
        return content
    fixed, position = bytearray(content[:8]), 8
    while position + 12 <= len(content):
        (length,) = struct.unpack(">I", content[position : position + 4])
        length = min(length, len(content) - position - 12)
        body = content[position + 4 : position + 8 + length]
        fixed += struct.pack(">I", length) + body + struct.pack(">I", zlib.crc32(body))
        position += 12 + length
    return bytes(fixed)


def read(content: bytes) -> None:
    """Decode a dataset of one image twice: as it is, and resized to grey."""
    with pillow_warnings_ignored():
        image_size(content)
    split = EncodedSplit(np.zeros(1, np.int64), lambda positions: iter([("image.png", content)]))
    encoded = Encoded("image", split, split, ("a",))
    decoded = decode("images", encoded, DataSettings(name="images", size=(9, 8), channels=1))
    assert decoded.train.inputs.shape == (1, 1, 9, 8)
    decode("images", encoded, DataSettings(name="images"))


HARNESS = Harness(mutated(seeds(), with_checksums), read)
