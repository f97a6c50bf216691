"""The names that users import are there, and importing sheaf alone costs no torch."""

from __future__ import annotations

import subprocess
import sys

import pytest

import sheaf


@pytest.mark.parametrize("name", sheaf.__all__)
def test_every_public_name_is_there_and_documented(name: str) -> None:
    assert getattr(sheaf, name).__doc__


def test_run_stays_callable_whatever_was_imported() -> None:
    import sheaf.cli.main
    import sheaf.experiments.run

    assert callable(sheaf.run)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'rum'"):
        sheaf.rum  # noqa: B018


def test_listing_needs_no_torch() -> None:
    code = (
        "import sys, sheaf, sheaf.core.registry as p; [p.describe(k) for k in p.KINDS]; "
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
