"""Experiments and the settings of a device as TOML."""

from __future__ import annotations

import tempfile
from pathlib import Path

import tomli_w
from fuzz.engine import Harness, mutated, mutated_values
from hypothesis import strategies as st

from sheaf.core import toml
from sheaf.experiments.config import load_experiment, shipped
from sheaf.fleets.remote.device_settings import read_edge_file

EDGE = """[edge]
width = 0.5
threads = 2

[share]
max_fraction = 0.1
"""


def read(source: tuple[str, bytes]) -> None:
    """Load an experiment, and what it is written as; or a device's settings."""
    kind, content = source
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "file.toml")
        path.write_bytes(content)
        if kind == "edge":
            read_edge_file(path)
        else:
            experiment = load_experiment(path)
            path.write_text(experiment.toml(), encoding="utf-8")
            assert load_experiment(path) == experiment


def write(table: object) -> bytes:
    """Return a table as TOML, or bytes that are none."""
    try:
        return tomli_w.dumps(table).encode("utf-8", "surrogatepass")  # type: ignore[arg-type]
    except (TypeError, AttributeError, ValueError):
        return b"key = "


EXPERIMENTS = [load_experiment(name).toml() for name in sorted(shipped())]
HARNESS = Harness(
    st.one_of(
        mutated([text.encode() for text in EXPERIMENTS]).map(lambda content: ("run", content)),
        mutated_values([toml.loads(text) for text in EXPERIMENTS]).map(lambda table: ("run", write(table))),
        mutated([EDGE.encode()]).map(lambda content: ("edge", content)),
        mutated_values([toml.loads(EDGE)]).map(lambda table: ("edge", write(table))),
    ),
    read,
)
