"""The harnesses by name; a module is imported when its harness is used."""

from __future__ import annotations

import importlib

from fuzz.engine import Harness

MODULES = {
    "images": "image_bytes:HARNESS",
    "sounds": "sound_bytes:HARNESS",
    "parquet": "parquet_bytes:HARNESS",
    "weights": "weights_bytes:HARNESS",
    "toml": "toml_text:HARNESS",
    "kits": "kit_text:HARNESS",
    "to_device": "message_bytes:TO_DEVICE",
    "from_device": "message_bytes:FROM_DEVICE",
    "coded": "coded_bytes:HARNESS",
}
NAMES = tuple(MODULES)


def load(name: str) -> Harness:
    """Return a harness."""
    module, _, attribute = MODULES[name].partition(":")
    harness: Harness = getattr(importlib.import_module(f"fuzz.{module}"), attribute)
    return harness
