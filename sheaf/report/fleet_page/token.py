"""The token of a fleet's page: a secret in a file for the fleet's owner only."""

from __future__ import annotations

import secrets
from pathlib import Path

from sheaf.core.errors import FleetError
from sheaf.fleets.nvflare.kits import write_private

FILE = "page.token"
SHORTEST = 16
"""Minimum length of a token, in characters."""


def read_token(fleet: Path) -> str:
    """Return the token in the fleet's folder; create it if it is missing.

    Raises:
        FleetError: the file has no token.
    """
    path = fleet / FILE
    if not path.exists():
        write_private(path, secrets.token_urlsafe(32))
    token = path.read_text(encoding="utf-8", errors="replace").strip()
    if len(token) < SHORTEST or not token.isascii():
        raise FleetError(
            f"{path} holds no token of at least {SHORTEST} letters and digits; delete it for a new one"
        )
    return token
