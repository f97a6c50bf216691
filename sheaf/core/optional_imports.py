"""Import optional libraries where they are used, and name the command that installs them.

A device needs few libraries, so the others are extras of the distribution. A missing one is an error of one
line.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sheaf.core.errors import MissingExtraError

DISTRIBUTION = "sheaf-edge"
"""Name of the distribution; on PyPI, ``sheaf`` is another project."""


def installed_version() -> str:
    """Return the version of the installed distribution."""
    return importlib.metadata.version(DISTRIBUTION)


def install_command(extra: str) -> str:
    """Return the command that installs the libraries of an extra."""
    return f"pip install '{DISTRIBUTION}[{extra}]'"


@contextmanager
def needs(extra: str) -> Iterator[None]:
    """Name the command that installs an extra, if an import in the context fails.

    Raises:
        MissingExtraError: a library is not installed, or is damaged.
    """
    try:
        yield
    except ImportError as error:
        missing = isinstance(error, ModuleNotFoundError) and error.name
        problem = f"{missing} is not installed" if missing else str(error)
        raise MissingExtraError(f"{problem}; install it with: {install_command(extra)}") from error


def require(extra: str, module: str) -> None:
    """Check that a library is installed, without importing it: for one that is used only later in a run.

    Raises:
        MissingExtraError: it is not installed.
    """
    with needs(extra):
        if importlib.util.find_spec(module) is None:
            raise ModuleNotFoundError(name=module)


def extra(name: str, module: str) -> Any:
    """Import ``module``, which the extra ``name`` installs.

    Raises:
        MissingExtraError: the module is not installed; the message gives the pip command.
    """
    with needs(name):
        return importlib.import_module(module)
