"""The wheel contains every file of the package, and its commands work without the repository."""

import os
import subprocess
import zipfile
from pathlib import Path

import pytest
from hatchling.build import build_wheel

import sheaf

PACKAGE = Path(sheaf.__file__).parent
SCRIPT = """
import sys
sys.path[:0] = [{installed!r}]
import sheaf.cli.main
assert sheaf.__file__.startswith({installed!r})
sys.argv = ["sheaf", *{arguments!r}]
sheaf.cli.main.main()
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an unpacked wheel, as pip installs it."""
    folder, here = tmp_path_factory.mktemp("wheel"), Path.cwd()
    os.chdir(PACKAGE.parent)  # from which the build backend reads the project
    try:
        name = build_wheel(str(folder))
    finally:
        os.chdir(here)
    assert name.startswith("sheaf_edge-")
    with zipfile.ZipFile(folder / name) as wheel:
        wheel.extractall(folder / "site")
    return folder / "site"


def files(package: Path) -> set[str]:
    return {
        path.relative_to(package).as_posix()
        for path in package.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


def test_the_wheel_contains_every_file(installed: Path) -> None:
    contained = files(installed / "sheaf")
    assert contained == files(PACKAGE)
    assert {"py.typed", "report/page.html.jinja", "experiments/configs/default.toml"} <= contained


@pytest.mark.parametrize(
    ("arguments", "line"),
    [(["list", "models"], "kws_cnn"), (["run", "--dry-run", "--set", "partition.edges=2"], "edge-2")],
)
def test_its_commands_work(
    installed: Path, fork_server: Path, tmp_path: Path, arguments: list[str], line: str
) -> None:
    script = tmp_path / "command.py"
    script.write_text(SCRIPT.format(installed=str(installed), arguments=arguments))
    done = subprocess.run(
        [fork_server / "python", script], capture_output=True, text=True, cwd=tmp_path, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert line in done.stdout
