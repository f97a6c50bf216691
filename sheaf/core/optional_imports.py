"""Optional libraries: imported where they are used, or one line says what to install."""

from __future__ import annotations

import importlib
import importlib.metadata
from typing import Any

from sheaf.core.errors import MissingExtraError


def extra(name: str, module: str) -> Any:
    """The module ``module``, which comes with sheaf's extra ``name``.

    Raises:
        MissingExtraError: it is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        wanted = [
            line.partition(";")[0].strip()
            for line in importlib.metadata.requires("sheaf") or ()
            if line.replace('"', "'").endswith(f"extra == '{name}'")
        ]
        install = " ".join(f"'{requirement}'" for requirement in wanted)
        raise MissingExtraError(f"{error}; what is missing: pip install {install}") from error
