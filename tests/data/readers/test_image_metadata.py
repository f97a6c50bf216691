"""Removal of metadata: the pixels stay, secrets and appended data go, damaged files are refused."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, PngImagePlugin

from sheaf.data.readers.image_metadata import strip_metadata
from sheaf.data.readers.images import decode_image
from sheaf.data.settings import DataSettings

SECRET = b"52.5163 N 13.3777 E"
PLAIN = DataSettings(name="x")
SMOOTH = np.add.outer(np.arange(0, 160, 5), np.arange(0, 96, 3)).astype(np.uint8)


def exif(orientation: int = 1) -> Image.Exif:
    found = Image.Exif()
    found[0x010E] = SECRET.decode()
    found[0x0112] = orientation
    return found


def encoded(form: str, mode: str = "RGB", **more: Any) -> bytes:
    file = io.BytesIO()
    Image.fromarray(SMOOTH).convert(mode).save(file, form, exif=exif(), **more)
    return file.getvalue()


def text() -> PngImagePlugin.PngInfo:
    info = PngImagePlugin.PngInfo()
    info.add_text("place", SECRET.decode())
    return info


FILES = {
    "baseline": encoded("JPEG", comment=SECRET, icc_profile=SECRET),
    "progressive": encoded("JPEG", progressive=True),
    "grey": encoded("JPEG", "L"),
    "CMYK": encoded("JPEG", "CMYK"),
    "restart intervals": encoded("JPEG", restart_marker_blocks=1),
    "appended film": encoded("JPEG") + SECRET * 9,
    "PNG": encoded("PNG", pnginfo=text(), icc_profile=SECRET),
    "palette": encoded("PNG", "P", pnginfo=text(), transparency=3),
    "PNG with data after it": encoded("PNG") + SECRET,
}


@pytest.mark.parametrize("name", list(FILES))
def test_the_pixels_stay_and_the_metadata_go(name: str) -> None:
    content = FILES[name]
    assert SECRET in content
    stripped = strip_metadata(content)
    assert SECRET not in stripped
    assert len(stripped) < len(content)
    assert np.array_equal(decode_image("a", stripped, PLAIN), decode_image("a", content, PLAIN))
    assert strip_metadata(stripped) == stripped


def test_a_thumbnail_in_the_first_segment_is_removed() -> None:
    content = encoded("JPEG")
    thumbnail = b"\xff\xe0\x00\x13JFIF\0\x01\x02\0\0\1\0\1\1\1abc"
    assert strip_metadata(content[:2] + thumbnail + content[20:]) == strip_metadata(content).replace(
        content[2:20], b""
    )


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"GIF89a", "neither a JPEG nor a PNG"),
        (FILES["baseline"][:-2], "without an end"),
        (FILES["baseline"][:300], "damaged JPEG"),
        (FILES["PNG"][:-4], "damaged PNG"),
        (FILES["PNG"][:8], "damaged PNG"),
        (b"\xff\xd8" + b"\xff\xda\x00\x02" * 40 + b"\xff\xd9", "more than 32 scans"),
    ],
)
def test_a_damaged_file_is_refused(content: bytes, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        strip_metadata(content)


@given(st.sampled_from(sorted(FILES)), st.integers(2, 2000), st.binary(max_size=6))
def test_any_bytes_are_refused_or_stripped_for_good(name: str, at: int, change: bytes) -> None:
    content = FILES[name]
    content = content[:at] + change + content[at + len(change) :]
    try:
        stripped = strip_metadata(content)
    except ValueError:
        return
    assert strip_metadata(stripped) == stripped
