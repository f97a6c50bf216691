"""Figures as SVG with a tooltip for each value, for files and for pages that have a light and a dark mode."""

from __future__ import annotations

import io
import re
from xml.etree import ElementTree

from matplotlib.artist import Artist
from matplotlib.container import Container
from matplotlib.figure import Figure

from sheaf.report.style import COLOUR_NAMES

SVG, XLINK = "http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"
PREFIX = "value: "
"""Start of the ids that ``set_tooltip`` gives to artists."""

PIXELS_PER_INCH = 96
"""CSS pixels."""

ElementTree.register_namespace("", SVG)
ElementTree.register_namespace("xlink", XLINK)


def set_tooltip(artist: Artist | Container, text: str) -> None:
    """Set the text that an SVG shows while the pointer is over the artist, or over a container's artists."""
    if isinstance(artist, Container):
        for child in artist.get_children():
            set_tooltip(child, text)
    else:
        artist.set_gid(PREFIX + "".join(c for c in " ".join(text.split()) if c.isprintable()))


def figure_svg(figure: Figure) -> ElementTree.Element:
    """Return the figure as an SVG element, with a ``title`` element for each tooltip."""
    file = io.BytesIO()
    figure.savefig(file, format="svg", metadata={"Date": None})
    root = ElementTree.fromstring(file.getvalue())
    for element in root.iter(f"{{{SVG}}}g"):
        if element.get("id", "").startswith(PREFIX):
            title = ElementTree.Element(f"{{{SVG}}}title")
            title.text = element.attrib.pop("id").removeprefix(PREFIX)
            element.insert(0, title)
    return root


def svg_file(root: ElementTree.Element) -> bytes:
    """Return the content of an SVG file."""
    content: bytes = ElementTree.tostring(root, encoding="utf-8", xml_declaration=True)
    return content


def inline_svg(root: ElementTree.Element, name: str, alt: str) -> str:
    """Return the element's text for an HTML page; changes ``root``.

    Its colours become the page's variables, such as ``var(--blue)``, and its ids start with ``name``, so that
    they are unique in the page.

    Args:
        root: the SVG element.
        name: of the picture, unique in the page.
        alt: the alternative text.
    """
    for child in [*root]:
        if child.tag == f"{{{SVG}}}metadata" or child.find(f"{{{SVG}}}style") is not None:
            root.remove(child)  # page.css contains the style, which would apply to the whole page
    for element in root.iter():
        for key, value in element.attrib.items():
            if key == "id":
                element.set(key, f"{name}-{value}")
            elif key == f"{{{XLINK}}}href" and value.startswith("#"):
                element.set(key, f"#{name}-{value[1:]}")
            elif key in ("style", "clip-path", "fill", "stroke"):
                element.set(key, _in_page(value, name))
    points = [float(root.get(key, "").removesuffix("pt")) for key in ("width", "height")]
    for key, length in zip(("width", "height"), points, strict=True):
        root.set(key, f"{length / 72 * PIXELS_PER_INCH:.0f}")
    root.set("role", "img")
    root.set("aria-label", alt)
    return ElementTree.tostring(root, encoding="unicode")


def _in_page(value: str, name: str) -> str:
    """Replace colours by variables, and prefix the ids in ``url(#id)``."""
    value = value.replace("url(#", f"url(#{name}-")
    return re.sub(r"#[0-9a-f]{6}\b", lambda match: _variable(match.group()), value)


def _variable(colour: str) -> str:
    return f"var(--{COLOUR_NAMES[colour]})" if colour in COLOUR_NAMES else colour
