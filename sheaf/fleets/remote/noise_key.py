"""A device's secret key, from which the noise of its statistics is derived.

The noise is a function of the key and of the exact statistic, so a repeated request gets the same answer: new
noise for the same request would let the cloud average it away. Nobody without the key can subtract the noise.
"""

from __future__ import annotations

import os
from pathlib import Path

from sheaf.core.atomic_io import sync

KEY = "noise.key"
"""The file of the key, readable by its owner only."""

KEY_BYTES = 32


def noise_key(folder: Path) -> bytes:
    """Return the key in a device's folder; create it on the first call."""
    path = folder / KEY
    if not path.exists():
        partial = folder / f"{KEY}.new"
        partial.unlink(missing_ok=True)
        with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(os.urandom(KEY_BYTES))
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
        sync(folder)
    return path.read_bytes()
