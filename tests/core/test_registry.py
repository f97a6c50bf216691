"""Plugins by name: those in the folders, and a user's own."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from support import one_line

from sheaf.core import registry
from sheaf.core.errors import SheafError, UnknownNameError

EVERY = [(kind, name) for kind in registry.KINDS for name in registry.describe(kind)]


@pytest.mark.parametrize(("kind", "name"), EVERY)
def test_every_file_defines_one_plugin_and_describes_it(kind: str, name: str) -> None:
    thing = registry.load(kind, name)
    assert callable(thing)
    if kind != "data":  # the known sets are objects, not classes of their own
        assert thing.__module__ == f"{registry.KINDS[kind].package}.{name}"
        assert thing.__name__.lower().replace("_", "") == name.replace("_", "")
    line = registry.describe(kind)[name]
    assert 10 < len(line) <= 110, f"one line for sheaf list: {line!r}"
    assert re.search(r"[.:]$", line)


@pytest.mark.parametrize("kind", sorted({kind for kind, _ in EVERY}))
def test_an_unknown_name_is_an_error_with_the_known_names_and_the_most_similar(kind: str) -> None:
    known = list(registry.describe(kind))
    assert known == sorted(known)
    with pytest.raises(UnknownNameError) as error:
        registry.load(kind, known[0] + "x")
    assert one_line(error) == (
        f"no {registry.KINDS[kind].noun} is named '{known[0]}x' (did you mean '{known[0]}'?); "
        f"there are: {', '.join(known)}"
    )
    with pytest.raises(UnknownNameError) as error:
        registry.load(kind, "!")
    assert "did you mean" not in one_line(error)


@pytest.mark.parametrize("name", ["_common", "__init__", "../errors", "", "Mean", "mean.py"])
def test_only_plugins_have_names(name: str) -> None:
    for kind in registry.KINDS:
        with pytest.raises(UnknownNameError):
            registry.load(kind, name)


def test_describing_imports_nothing() -> None:
    code = (
        "import sys; from sheaf.core import registry as r; r.describe('merges'), r.describe('models');"
        "plugins = ('sheaf.merges.rules.', 'sheaf.models.zoo.');"
        "print([name for name in sys.modules if name.startswith(plugins)])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


class Shelf:
    """A class with a nested class, as a user's module may have."""

    class Own:
        pass


def test_a_users_own_plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "pkg_of_a_user").mkdir()
    (tmp_path / "pkg_of_a_user" / "merging.py").write_text("class Own:\n    class Inner: ...\n")
    monkeypatch.syspath_prepend(tmp_path)
    own = registry.load("merges", "pkg_of_a_user.merging:Own")
    assert registry.name_of(own()) == "pkg_of_a_user.merging:Own"
    assert registry.load("merges", registry.name_of(own.Inner()) or "") is own.Inner
    assert registry.load("merges", f"{__name__}:Shelf.Own") is Shelf.Own


def test_the_name_of_a_shipped_plugin() -> None:
    assert registry.name_of(registry.load("merges", "weighted_mean")()) == "weighted_mean"


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("no_such_package.x:Own", "No module named 'no_such_package'"),
        ("json:Own", "module 'json' has no attribute 'Own'"),
        ("json:dumps.nothing", "has no attribute 'nothing'"),
        ("json:", "has no attribute ''"),
        (":Own", "Empty module name"),
        (".json:Own", "relative import"),
    ],
)
def test_a_plugin_that_cannot_be_imported(name: str, why: str) -> None:
    with pytest.raises(SheafError, match=f"merge '{name}' cannot be imported: .*it must be pack") as error:
        registry.load("merges", name)
    assert why in one_line(error)


def test_a_module_that_fails_at_import_is_an_error(tmp_path, monkeypatch):
    (tmp_path / "fails_at_import.py").write_text("{}['x']\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(SheafError, match=r"cannot be imported: KeyError: 'x'; it must"):
        registry.load("models", "fails_at_import:Net")
