"""Import optional libraries where they are used."""

from __future__ import annotations

import importlib
import importlib.metadata
from typing import Any

from sheaf.core.errors import MissingExtraError


def extra(name: str, module: str) -> Any:
    """Import ``module``, which sheaf's optional dependency group ``name`` installs.

    Raises:
        MissingExtraError: the module is not installed; the message gives the pip command.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        requirements = [
            line.partition(";")[0].strip()
            for line in importlib.metadata.requires("sheaf") or ()
            if line.replace('"', "'").endswith(f"extra == '{name}'")
        ]
        install = " ".join(f"'{requirement}'" for requirement in requirements)
        raise MissingExtraError(f"{error}; install it with: pip install {install}") from error
