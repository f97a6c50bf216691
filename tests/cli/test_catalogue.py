"""``sheaf list`` prints names quickly, and the settings of each; docs/reference.md has them all."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from sheaf.cli import main
from sheaf.cli.listings import KINDS, listings
from sheaf.cli.reference import PARTS, describe_one, document
from sheaf.core import registry
from sheaf.core.errors import UnknownNameError
from sheaf.core.settings_help import describe_settings, documented
from sheaf.methods.ecavg import ECAvg

PAGE = Path(__file__).parents[2] / "docs" / "reference.md"


def printed(*arguments: str) -> str:
    """Return the output of ``sheaf ARGUMENTS``, with runs of white space as one space."""
    result = CliRunner().invoke(main.app, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    assert all(len(line) <= 100 for line in result.output.splitlines())
    return " ".join(result.output.split())


def test_the_settings_of_a_method_with_type_default_and_meaning() -> None:
    text = printed("list", "methods", "ecavg")
    for setting in describe_settings(ECAvg):
        assert f" {setting.name} {setting.type.split()[0]}" in text
    assert "rounds integer, at least 1 1 the number of times" in text
    assert "https://arxiv.org/abs/2310.03823" in text
    assert "batch_size integer, at least 1 64 examples of a mini-batch" in text, "the recipe's settings too"
    assert text.endswith("use it: sheaf run --set method=ecavg --set method.restat=…")


def test_the_settings_of_other_kinds() -> None:
    assert "alpha number, at least 0.001 0.5 the concentration" in printed("list", "partitions", "dirichlet")
    assert "dropout number 0.5" in printed("list", "models", "vgg11@32")
    assert "held_out" in printed("list", "data", "digits")
    assert "onnxruntime" in printed("list", "formats", "onnx")
    assert "run it: sheaf run ecavg-digits" in printed("list", "experiments", "ecavg-digits")


@pytest.mark.parametrize("kind", KINDS)
def test_everything_listed_is_described(kind: str) -> None:
    for name in listings()[kind]():
        part = describe_one(kind, name)
        assert part.text
        for _, settings in part.tables:
            assert all(setting.text and setting.type and setting.default for setting in settings), name
    with pytest.raises(UnknownNameError, match="is named 'nothing'"):
        describe_one(kind, "nothing")


def test_defaults_and_types_in_words() -> None:
    help_of = {setting.name: setting for setting in describe_settings(ECAvg)}
    assert (help_of["pretrain"].type, help_of["pretrain"].default) == ("Recipe", "{ epochs = 5 }")
    assert (help_of["merge"].type, help_of["merge"].default) == ("merge, by name or as a table", '"mean"')
    assert (help_of["share"].default, help_of["own_start"].default) == ("the defaults", "false")
    assert documented(ECAvg).keys() == help_of.keys()


def test_the_page_of_all_settings_is_current() -> None:
    assert PAGE.read_text(encoding="utf-8") == document(), (
        "run: python -m sheaf.cli.reference > docs/reference.md"
    )
    for _, classes in PARTS.values():
        assert all(setting.text for cls in classes for setting in describe_settings(cls))


def test_the_list_needs_no_torch() -> None:
    code = "import sys; from sheaf.cli import catalogue; catalogue.list_(); sys.exit('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert all(name in done.stdout for kind in registry.KINDS for name in registry.describe(kind))
