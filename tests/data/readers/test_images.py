"""Image files of all formats are decoded to uint8 with one or three channels."""

import io

import numpy as np
import pytest
from PIL import Image

from sheaf.core.errors import DataError
from sheaf.data.readers.images import decode_image
from sheaf.data.settings import DataSettings

PLAIN = DataSettings(name="x")


def encoded(image: Image.Image, form: str = "PNG", **more: object) -> bytes:
    file = io.BytesIO()
    image.save(file, form, **more)
    return file.getvalue()


def test_grey_and_colour_pixels_are_kept() -> None:
    grey = np.arange(12, dtype=np.uint8).reshape(3, 4)
    colour = np.arange(36, dtype=np.uint8).reshape(3, 4, 3)
    assert np.array_equal(decode_image("a", encoded(Image.fromarray(grey)), PLAIN), grey[None])
    assert np.array_equal(
        decode_image("a", encoded(Image.fromarray(colour)), PLAIN), colour.transpose(2, 0, 1)
    )


def test_sixteen_bits_keep_the_upper_eight() -> None:
    deep = Image.fromarray(np.array([[0, 255, 256, 65535]], np.uint16))
    assert decode_image("a", encoded(deep), PLAIN).tolist() == [[[0, 0, 1, 255]]]


def test_transparent_pixels_become_white() -> None:
    layer = Image.new("RGBA", (2, 1), (10, 20, 30, 255))
    layer.putpixel((1, 0), (10, 20, 30, 0))
    assert decode_image("a", encoded(layer), PLAIN)[:, 0].T.tolist() == [[10, 20, 30], [255, 255, 255]]
    grey = Image.new("LA", (1, 1), (7, 0))
    assert decode_image("a", encoded(grey), PLAIN).tolist() == [[[255]]]


def test_a_palette_becomes_colour() -> None:
    image = Image.new("RGB", (4, 4), (200, 10, 10)).convert("P")
    assert decode_image("a", encoded(image), PLAIN).shape == (3, 4, 4)


def test_black_and_white_becomes_grey() -> None:
    assert decode_image("a", encoded(Image.new("1", (2, 2), 1)), PLAIN).tolist() == [[[255, 255]] * 2]


def test_the_exif_orientation_is_applied() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    data = encoded(Image.new("RGB", (4, 2)), "JPEG", exif=exif.tobytes())
    assert decode_image("a", data, PLAIN).shape == (3, 4, 2)


def test_size_is_rows_then_columns() -> None:
    settings = DataSettings(name="x", size=(2, 5), channels=3)
    assert decode_image("a", encoded(Image.new("L", (8, 8))), settings).shape == (3, 2, 5)


@pytest.mark.parametrize("data", [b"", b"not an image", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"])
def test_an_unknown_format_is_an_error(data: bytes) -> None:
    with pytest.raises(DataError, match=r"cat/1.png cannot be read"):
        decode_image("cat/1.png", data, PLAIN)


def test_a_truncated_file_is_an_error() -> None:
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8))
    for form in ("PNG", "JPEG"):
        data = encoded(noise, form)
        with pytest.raises(DataError, match="cat/1 cannot be read"):
            decode_image("cat/1", data[: len(data) // 2], PLAIN)
