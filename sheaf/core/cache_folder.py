"""The folder of files that sheaf can make again: decoded examples, downloads, checks of models."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder() -> Path:
    """Return ``$SHEAF_CACHE``, else ``$XDG_CACHE_HOME/sheaf``, else ``~/.cache/sheaf``; it may not exist."""
    if own := os.environ.get("SHEAF_CACHE"):
        return Path(own).expanduser().absolute()
    base = os.environ.get("XDG_CACHE_HOME")
    return Path(base or Path.home() / ".cache") / "sheaf"


def checks_folder() -> Path:
    """Return the folder of the checks of models; it may not exist."""
    return cache_folder() / "models"
