"""Encoded parameters of every codec, as a device or the cloud receives them."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import rig
from fuzz.engine import Harness, mutated
from hypothesis import strategies as st
from safetensors import SafetensorError

from sheaf.core import registry
from sheaf.core.errors import FleetError
from sheaf.core.tensor_file import Blob, encode
from sheaf.runtime import coded_params
from sheaf.runtime.coded_params import DecodedBlob, encodable

NETWORK = rig.network()
NAMES = encodable(NETWORK)
BASE = Blob.of(rig.theta())


def messages() -> list[tuple[Any, bytes]]:
    """Return (codec, encoded parameters)."""
    codecs = [registry.load("codecs", name)() for name in registry.describe("codecs")]
    base = rig.theta()
    return [(codec, encode(coded_params.encode(rig.drawn(1), codec, NAMES, 3, base)[0])) for codec in codecs]


def read(source: tuple[Any, bytes]) -> None:
    """Decode a message, refused as ``Edges`` and a device refuse it."""
    codec, content = source
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "message.safetensors")
        path.write_bytes(content)
        try:
            params = DecodedBlob(Blob.at(path), NETWORK.shapes(None), codec, NAMES, BASE).open()
        except (SafetensorError, ValueError) as error:
            raise FleetError(f"its parameters cannot be read: {error}") from error
        expected = NETWORK.shapes(None)
        own = {name: value for name, value in params.items() if not name.startswith(".")}
        assert own.keys() == expected.keys()
        assert all(value.shape == expected[name].shape for name, value in own.items())


HARNESS = Harness(
    st.one_of(
        [mutated([content]).map(lambda new, codec=codec: (codec, new)) for codec, content in messages()]
    ),
    read,
)
