"""The experiments that come with sheaf. Listing them imports no torch."""

from __future__ import annotations

from pathlib import Path

from sheaf.core import toml

SHIPPED = Path(__file__).parent / "configs"
"""Their directory."""


def shipped() -> dict[str, str]:
    """Return name -> title of the experiments that come with sheaf."""
    files = sorted(SHIPPED.glob("*.toml"))
    return {path.stem: toml.loads(path.read_text(encoding="utf-8"))["title"] for path in files}
