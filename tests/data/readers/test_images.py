"""Image files of all formats are decoded to uint8 with one or three channels."""

import io
import struct
import sys
import threading
import warnings
import zlib

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image, PngImagePlugin, features

from sheaf.core.errors import DataError
from sheaf.data.readers import images
from sheaf.data.readers.images import decode_image, decode_with_bits, image_size
from sheaf.data.settings import DataSettings

PLAIN = DataSettings(name="x")


def encoded(image: Image.Image, form: str = "PNG", **more: object) -> bytes:
    file = io.BytesIO()
    image.save(file, form, **more)
    return file.getvalue()


def deep_png(samples: npt.NDArray[np.uint16], key: tuple[int, ...] = ()) -> bytes:
    """Return a PNG of 16 bits per channel, (H, W, C), with a transparent colour if ``key`` is given."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return (
            struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))
        )

    height, width, channels = samples.shape
    header = struct.pack(">IIBBBBB", width, height, 16, {1: 0, 2: 4, 3: 2, 4: 6}[channels], 0, 0, 0)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in samples)
    transparent = chunk(b"tRNS", struct.pack(f">{len(key)}H", *key)) if key else b""
    content = chunk(b"IHDR", header) + transparent + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + content


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


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("bits", "shift"), [(8, 0), (12, 4), (16, 8)])
def test_deep_images_are_scaled_by_the_bits_in_use(channels: int, bits: int, shift: int) -> None:
    samples = np.random.default_rng(0).integers(0, 2**bits, (5, 7, channels), np.uint16)
    samples[0, 0] = 2**bits - 1
    image, used = decode_with_bits("a", deep_png(samples), PLAIN)
    assert used == bits
    assert np.array_equal(image, (samples >> shift).astype(np.uint8).transpose(2, 0, 1))


@pytest.mark.parametrize("dtype", ["<u2", ">u2", "<i4"])
def test_deep_tiffs_are_scaled_by_the_bits_in_use(dtype: str) -> None:
    samples = np.array([[0, 255, 4095]], dtype)
    assert decode_image("a", encoded(Image.fromarray(samples), "TIFF"), PLAIN).tolist() == [[[0, 15, 255]]]
    assert decode_image(
        "a", encoded(Image.fromarray(samples), "TIFF"), DataSettings(name="x", bits=16)
    ).tolist() == [[[0, 0, 15]]]


def tiff_of_deep_colour(samples: npt.NDArray[np.uint16], compressed: bool, planes: bool) -> bytes:
    """Return a little-endian TIFF of 16 bits per channel, (H, W, 3), in one strip or one per channel."""
    height, width, _ = samples.shape
    parts = [samples[..., channel].tobytes() for channel in range(3)] if planes else [samples.tobytes()]
    parts = [zlib.compress(part) if compressed else part for part in parts]
    pixels = b"".join(parts)
    starts = [8 + sum(map(len, parts[:number])) for number in range(len(parts))]
    after = 8 + len(pixels)
    lists = struct.pack("<3H", 16, 16, 16) + struct.pack(f"<{2 * len(parts)}I", *starts, *map(len, parts))
    one = len(parts) == 1
    entries = [
        (256, 4, 1, width),
        (257, 4, 1, height),
        (258, 3, 3, after),
        (259, 3, 1, 8 if compressed else 1),
        (262, 3, 1, 2),
        (273, 4, len(parts), starts[0] if one else after + 6),
        (277, 3, 1, 3),
        (278, 4, 1, height),
        (279, 4, len(parts), len(parts[0]) if one else after + 6 + 4 * len(parts)),
        (284, 3, 1, 2 if planes else 1),
    ]
    directory = struct.pack("<H", len(entries)) + b"".join(struct.pack("<HHII", *entry) for entry in entries)
    return b"II" + struct.pack("<HI", 42, after + len(lists)) + pixels + lists + directory + bytes(4)


@pytest.mark.parametrize("compressed", [False, True])
def test_tiffs_of_deep_colour_keep_their_contrast(compressed: bool) -> None:
    samples = np.random.default_rng(0).integers(0, 4096, (5, 7, 3), np.uint16)
    image, bits = decode_with_bits("a", tiff_of_deep_colour(samples, compressed, planes=False), PLAIN)
    assert bits == 12
    assert np.array_equal(image, (samples >> 4).astype(np.uint8).transpose(2, 0, 1))
    with pytest.raises(DataError, match="separate planes; store them interleaved"):
        decode_image("a", tiff_of_deep_colour(samples, compressed, planes=True), PLAIN)


def test_negative_samples_are_an_error() -> None:
    with pytest.raises(DataError, match="range from -5 to 5; they must not be negative"):
        decode_image("a", encoded(Image.fromarray(np.array([[-5, 5]], np.int32)), "TIFF"), PLAIN)


def test_an_unsigned_tiff_uses_all_32_bits() -> None:
    signed = encoded(Image.fromarray(np.array([[0, 2**31, 2**32 - 1]], np.uint32).view(np.int32)), "TIFF")
    sample_format = struct.pack("<HHIH", 339, 3, 1, 2)
    assert sample_format in signed
    unsigned = signed.replace(sample_format, struct.pack("<HHIH", 339, 3, 1, 1))
    assert decode_image("a", unsigned, PLAIN).tolist() == [[[0, 128, 255]]]


def test_a_pgm_is_scaled_by_its_maximum() -> None:
    assert decode_image("a", b"P5 2 1 15\n\x00\x0f", PLAIN).tolist() == [[[0, 255]]]
    assert decode_image("a", b"P5 2 1 4095\n\x00\x00\x0f\xff", PLAIN).tolist() == [[[0, 255]]]


def test_transparent_pixels_become_white() -> None:
    layer = Image.new("RGBA", (2, 1), (10, 20, 30, 255))
    layer.putpixel((1, 0), (10, 20, 30, 0))
    assert decode_image("a", encoded(layer), PLAIN)[:, 0].T.tolist() == [[10, 20, 30], [255, 255, 255]]
    grey = Image.new("LA", (1, 1), (7, 0))
    assert decode_image("a", encoded(grey), PLAIN).tolist() == [[[255]]]


@pytest.mark.parametrize(
    ("mode", "key", "other", "expected"),
    [
        ("L", 7, 9, [9]),
        ("1", 0, 1, [255]),
        ("RGB", (255, 0, 255), (1, 2, 3), [1, 2, 3]),
    ],
)
def test_the_transparent_colour_becomes_white(mode: str, key: int, other: int, expected: list[int]) -> None:
    image = Image.new(mode, (2, 1), other)
    image.putpixel((1, 0), key)
    decoded = decode_image("a", encoded(image, transparency=key), PLAIN)
    assert decoded[:, 0].T.tolist() == [expected, [255] * len(expected)]


@pytest.mark.parametrize(("bits", "scale"), [(2, 85), (4, 17)])
def test_the_transparent_grey_of_few_bits_becomes_white(bits: int, scale: int) -> None:
    packed = encoded(Image.new("L", (1, 1), scale), bits=bits, transparency=1)
    assert decode_image("a", packed, PLAIN).tolist() == [[[255]]]
    assert decode_image("a", encoded(Image.new("L", (1, 1), scale), transparency=1), PLAIN).tolist() == [
        [[scale]]
    ]


def test_transparent_deep_pixels_become_white_and_count_for_no_range() -> None:
    grey = np.array([[[255], [30000]]], np.uint16)
    assert decode_with_bits("a", deep_png(grey, (30000,)), PLAIN)[0].tolist() == [[[255, 255]]]
    assert decode_with_bits("a", deep_png(grey, (30000,)), PLAIN)[1] == 8
    colour = np.array([[[1, 2, 3], [1, 2, 259]]], np.uint16)  # equal in their lower bytes
    assert decode_image("a", deep_png(colour, (1, 2, 259)), PLAIN)[:, 0].T.tolist() == [[1, 2, 3], [255] * 3]
    for channels in (1, 3):
        layer = np.array([[[*[100] * channels, 65535], [*[60000] * channels, 0]]], np.uint16)
        decoded = decode_image("a", deep_png(layer), PLAIN)[:, 0].T
        assert decoded[0].tolist() == [100] * decoded.shape[1]
        assert decoded[1].tolist() == [255] * decoded.shape[1]


def test_a_palette_becomes_colour() -> None:
    image = Image.new("RGB", (4, 4), (200, 10, 10)).convert("P")
    assert decode_image("a", encoded(image), PLAIN).shape == (3, 4, 4)


def test_black_and_white_becomes_grey() -> None:
    assert decode_image("a", encoded(Image.new("1", (2, 2), 1)), PLAIN).tolist() == [[[255, 255]] * 2]


UPRIGHT = np.arange(18, dtype=np.uint8).reshape(3, 2, 3)
XMP = (
    "<x:xmpmeta xmlns:tiff='http://ns.adobe.com/tiff/1.0/'><rdf:Description tiff:Orientation={}/></x:xmpmeta>"
)


def sideways(**texts: str) -> bytes:
    """Return ``UPRIGHT`` turned by 90 degrees (orientation 6) as PNG with text chunks."""
    info = PngImagePlugin.PngInfo()
    for name, text in texts.items():
        if name == "xmp":
            info.add_itxt("XML:com.adobe.xmp", text)
        else:
            info.add_text(f"Raw profile type {name}", text)
    return encoded(Image.fromarray(UPRIGHT).transpose(Image.Transpose.ROTATE_90), pnginfo=info)


def raw_profile(name: str, content: bytes) -> str:
    return f"\n{name}\n{len(content):8}\n{content.hex()}\n"


def exif_of(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


@pytest.mark.parametrize("form", ["PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize(
    ("orientation", "back"), [(3, Image.Transpose.ROTATE_180), (6, Image.Transpose.ROTATE_90)]
)
def test_the_exif_orientation_is_applied(form: str, orientation: int, back: Image.Transpose) -> None:
    more = {"lossless": True} if form == "WEBP" else {}
    data = encoded(Image.fromarray(UPRIGHT).transpose(back), form, exif=exif_of(orientation), **more)
    assert np.array_equal(decode_image("a", data, PLAIN), UPRIGHT.transpose(2, 0, 1))
    assert image_size(data) == (3, 2)


@pytest.mark.parametrize("quoted", ["'6'", '"6"'])
def test_the_orientation_in_xmp_and_raw_profiles_is_applied(quoted: str) -> None:
    exif = b"Exif\0\0" + exif_of(6).tobytes().removeprefix(b"Exif\0\0")
    xmp = XMP.format(quoted)
    for data in (
        sideways(xmp=xmp),
        sideways(exif=raw_profile("exif", exif)),
        sideways(APP1=raw_profile("generic profile", exif)),
        sideways(xmp="", APP1=raw_profile("xmp", b"http://ns.adobe.com/xap/1.0/\0" + xmp.encode())),
    ):
        assert np.array_equal(decode_image("a", data, PLAIN), UPRIGHT.transpose(2, 0, 1))
        assert image_size(data) == (3, 2)


def test_a_damaged_orientation_is_ignored() -> None:
    turned = UPRIGHT.transpose(1, 0, 2)[::-1].transpose(2, 0, 1)
    for text in ("", "\nexif\n 3\nzz", raw_profile("exif", b"Exif\0\0garbage")):
        assert np.array_equal(decode_image("a", sideways(exif=text), PLAIN), turned)


def test_threads_restore_the_warning_filters() -> None:
    data = encoded(Image.new("L", (4, 4)), "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\x7fgarbage")
    before = list(warnings.filters)
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        threads = [
            threading.Thread(target=lambda: [decode_image("a", data, PLAIN) for _ in range(50)])
            for _ in range(8)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    assert warnings.filters == before


@pytest.mark.skipif(not features.check("avif"), reason="this Pillow reads no AVIF")
def test_avif_is_read() -> None:
    assert decode_image("a", encoded(Image.new("RGB", (4, 2)), "AVIF"), PLAIN).shape == (3, 2, 4)


def test_heic_is_read() -> None:
    pytest.importorskip("pillow_heif").register_heif_opener()
    photo = Image.new("RGB", (40, 20), (200, 30, 60))
    photo.paste((20, 60, 220), (20, 0, 40, 20))
    content = encoded(photo, "HEIF")
    pixels = decode_image("a.HEIC", content, PLAIN)
    assert pixels.shape == (3, 20, 40)
    assert np.abs(pixels[:, 10, 5].astype(int) - (200, 30, 60)).max() < 12
    assert np.abs(pixels[:, 10, 35].astype(int) - (20, 60, 220)).max() < 12
    assert image_size(content) == (20, 40)
    with pytest.raises(DataError, match=r"a.HEIC cannot be read: it is a damaged HEIF image"):
        decode_image("a.HEIC", b"\0\0\0\x18ftypheic" + bytes(12), PLAIN)


def test_avif_and_heic_without_a_library_are_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images.features, "check", lambda name: False)
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    for brand, library in ((b"avif", "Pillow 11.3"), (b"heic", "pillow-heif"), (b"mif1", "pillow-heif")):
        with pytest.raises(
            DataError, match=rf"a.jpg cannot be read: .* needs .*{library}.* convert it to JPEG"
        ):
            decode_image("a.jpg", b"\0\0\0\x18ftyp" + brand + bytes(12), PLAIN)


def test_size_is_rows_then_columns() -> None:
    settings = DataSettings(name="x", size=(2, 5), channels=3)
    assert decode_image("a", encoded(Image.new("L", (8, 8))), settings).shape == (3, 2, 5)


@pytest.mark.parametrize("data", [b"", b"not an image", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"])
def test_an_unknown_format_is_an_error(data: bytes) -> None:
    with pytest.raises(DataError, match=r"cat/1.png cannot be read"):
        decode_image("cat/1.png", data, PLAIN)


def test_a_header_that_states_too_many_pixels_needs_no_memory() -> None:
    content = bytearray(encoded(Image.new("RGB", (20, 24)), "BMP"))
    content[18:26] = (20_000).to_bytes(4, "little") + (8_000).to_bytes(4, "little")
    with pytest.raises(DataError, match=r"its header states 20000x8000 pixels, too many for its"):
        decode_image("a.bmp", bytes(content), PLAIN)
    assert decode_image("a.png", encoded(Image.new("1", (4096, 4096))), PLAIN).shape == (1, 4096, 4096)


def test_a_truncated_file_is_an_error() -> None:
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8))
    for form in ("PNG", "JPEG"):
        data = encoded(noise, form)
        with pytest.raises(DataError, match="cat/1 cannot be read"):
            decode_image("cat/1", data[: len(data) // 2], PLAIN)
