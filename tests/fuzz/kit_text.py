"""Kits of devices."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

from fuzz.engine import Harness, mutated, mutated_values
from hypothesis import strategies as st

from sheaf.fleets.nvflare.kits import Kit

PEM = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n"
KIT: dict[str, Any] = {
    "kit": {
        "edge": "shop-1",
        "host": "cloud.example.org",
        "port": 8002,
        "authority": PEM,
        "certificate": PEM,
        "key": PEM.replace("CERTIFICATE", "PRIVATE KEY"),
    }
}


def read(content: bytes) -> None:
    """Read a kit that only its owner can read."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "shop-1.kit")
        path.touch(0o600)
        path.write_bytes(content)
        Kit.read(path)


HARNESS = Harness(
    st.one_of(
        mutated([json.dumps(KIT).encode()]),
        mutated_values([KIT]).map(lambda value: json.dumps(value).encode()),
    ),
    read,
)
