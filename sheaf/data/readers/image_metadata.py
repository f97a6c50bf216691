"""Removal of metadata from JPEG and PNG files, without decoding.

Metadata are the place, the time, the camera, an edited picture's original as a thumbnail, comments, and data
after the end of the image.
"""

from __future__ import annotations

import re

JPEG = b"\xff\xd8\xff"
PNG = b"\x89PNG\r\n\x1a\n"
"""The first bytes of the two formats."""

MOST_SCANS = 32
"""Maximum number of scans of a JPEG file: each takes the time of an image, and usual files have about ten."""

JPEG_SEGMENTS = {*range(0xC0, 0xD0), 0xDA, 0xDB, 0xDD}
"""Markers of the segments that a decoder needs: frames, tables, scans and restart intervals."""
END_OF_SCAN = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")
"""A marker that ends a scan's compressed data."""

PNG_CHUNKS = {b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"}
"""Names of the chunks that a decoder needs."""


def strip_metadata(content: bytes) -> bytes:
    """Return a JPEG or PNG file without the parts that its pixels do not need, and without appended data.

    An orientation is removed, too: the pixels of such a file then decode differently.

    Raises:
        ValueError: the file is of another format or damaged, or has too many scans.
    """
    if content.startswith(JPEG):
        return _strip_jpeg(content)
    if content.startswith(PNG):
        return _strip_png(content)
    raise ValueError("it is neither a JPEG nor a PNG file")


def _strip_jpeg(content: bytes) -> bytes:
    needed, at, scans = [content[:2]], 2, 0
    while True:
        while content[at : at + 2] == b"\xff\xff":  # fill bytes
            at += 1
        if content[at : at + 2] == b"\xff\xd9":
            return b"".join([*needed, b"\xff\xd9"])
        if at + 4 > len(content) or content[at] != 0xFF:
            raise ValueError("it is a damaged JPEG file")
        marker = content[at + 1]
        end = at + 2 + int.from_bytes(content[at + 2 : at + 4], "big")
        segment, at = content[at:end], end
        if marker in JPEG_SEGMENTS or _gives_colours(segment):
            needed.append(segment)
        if marker == 0xDA:
            scans += 1
            next_marker = END_OF_SCAN.search(content, at)
            if next_marker is None or scans > MOST_SCANS:
                raise ValueError(f"it is a JPEG file without an end, or with more than {MOST_SCANS} scans")
            needed.append(content[at : next_marker.start()])
            at = next_marker.start()


def _gives_colours(segment: bytes) -> bool:
    """Return whether a segment is one of the two that name the colour space, without a thumbnail."""
    jfif = segment.startswith(b"\xff\xe0\x00\x10JFIF\0")
    return jfif or segment.startswith(b"\xff\xee\x00\x0eAdobe")


def _strip_png(content: bytes) -> bytes:
    needed, at, name = [PNG], len(PNG), b""
    while name != b"IEND":
        end = at + 12 + int.from_bytes(content[at : at + 4], "big")
        if end > len(content):
            raise ValueError("it is a damaged PNG file")
        name = content[at + 4 : at + 8]
        if name in PNG_CHUNKS:
            needed.append(content[at:end])
        at = end
    return b"".join(needed)
