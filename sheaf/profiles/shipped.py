"""The profiles that come with sheaf. Listing them imports no torch."""

from __future__ import annotations

from pathlib import Path

from sheaf.core import toml

FOLDER = Path(__file__).parent
"""The folder of the shipped profiles."""


def shipped_profiles() -> dict[str, str]:
    """Return name -> title of the profiles of devices and links that come with sheaf."""
    files = sorted(FOLDER.glob("*.toml"))
    return {path.stem: toml.loads(path.read_text(encoding="utf-8"))["title"] for path in files}
