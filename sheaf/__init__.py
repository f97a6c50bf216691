"""Train one model across edge devices and the cloud.

``sheaf.run("ecavg-digits")`` runs an experiment; ``ECAvg``, ``Worker``, ``LocalFleet`` are pieces to compose.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sheaf.config import Experiment as Experiment
    from sheaf.config import load_experiment as load_experiment
    from sheaf.engines.local import LocalFleet as LocalFleet
    from sheaf.methods.ecavg import ECAvg as ECAvg
    from sheaf.record import Result as Result
    from sheaf.runs import resume as resume
    from sheaf.runs import run as run
    from sheaf.types import Recipe as Recipe
    from sheaf.worker import Worker as Worker

_PUBLIC = {
    "ECAvg": "methods.ecavg",
    "Experiment": "config",
    "LocalFleet": "engines.local",
    "Recipe": "types",
    "Result": "record",
    "Worker": "worker",
    "load_experiment": "config",
    "resume": "runs",
    "run": "runs",
}
__all__ = list(_PUBLIC)


def __getattr__(name: str) -> Any:
    # Importing torch takes seconds; `import sheaf` and `sheaf list` need none of it.
    if name not in _PUBLIC:
        raise AttributeError(f"module 'sheaf' has no attribute {name!r}")
    return getattr(importlib.import_module(f"sheaf.{_PUBLIC[name]}"), name)
