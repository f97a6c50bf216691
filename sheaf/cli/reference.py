"""All names and settings, from docstrings and fields: for ``sheaf list KIND NAME``, and as docs/reference.md.

Write the page with ``python -m sheaf.cli.reference > docs/reference.md``; a test compares it.
"""

from __future__ import annotations

import ast
import importlib
import inspect
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from sheaf.cli.listings import listings
from sheaf.core import registry
from sheaf.core.errors import UnknownNameError
from sheaf.core.recipe import FromStatistics, Part, Privacy, Recipe, Ridge, Share
from sheaf.core.settings_help import SettingHelp, describe_settings, describe_type, nested_settings
from sheaf.data.settings import DataSettings
from sheaf.data.unlabelled import PublicSettings
from sheaf.experiments.config import CloudSettings, DeviceBudget, Experiment, FleetSettings
from sheaf.experiments.shipped import SHIPPED
from sheaf.fleets.remote.device_settings import EdgeSettings, ShareSettings
from sheaf.models.build import ModelSettings
from sheaf.profiles.assignment import DevicesSettings
from sheaf.profiles.profile import DeviceProfile, LinkProfile, ProfileFile
from sheaf.profiles.shipped import FOLDER
from sheaf.runtime.timeline import Budget

PARTS: dict[str, tuple[str, tuple[type, ...]]] = {
    "Experiment": ("The tables of an experiment file.", (Experiment,)),
    "data": ("Keys under `[data]`.", (DataSettings,)),
    "model": ("Keys under `[model]`.", (ModelSettings,)),
    "fleet": (
        "Keys under `[fleet]`, `[fleet.budgets.EDGE]`, `[fleet.devices]` and `[fleet.stop_at]`.",
        (FleetSettings, DeviceBudget, DevicesSettings, Budget),
    ),
    "cloud": ("Keys under `[cloud]` and `[cloud.public]`.", (CloudSettings, PublicSettings)),
    "Recipe, Part, Share, Ridge": ("Tables that settings of methods contain.", (Recipe, Part, Share, Ridge)),
    "FromStatistics, Privacy": (
        "A table for `refit`, and the table `privacy` in it.",
        (FromStatistics, Privacy),
    ),
    "profiles": (
        "A profile's file, and its tables `[device]` and `[link]`.",
        (ProfileFile, DeviceProfile, LinkProfile),
    ),
    "edge.toml": ("The device's own settings: `[edge]` and `[share]`.", (EdgeSettings, ShareSettings)),
}
"""Heading -> introduction and settings classes that several things share."""

TOML_FOLDERS = {"experiments": SHIPPED, "profiles": FOLDER}
"""Kinds whose things are TOML files -> their folder."""

BUILDER_ARGUMENTS = ("num_classes", "in_shape", "variant")
"""Parameters of a model's builder that are no options."""


@dataclass(frozen=True)
class Described:
    """One thing of a kind.

    Attributes:
        text: its documentation: summary, sources, details.
        tables: (title, settings) of its own settings, then of the tables that these contain.
    """

    text: str
    tables: list[tuple[str, list[SettingHelp]]]


def describe_one(kind: str, name: str) -> Described:
    """Return the documentation and the settings of one thing.

    Raises:
        UnknownNameError: there is no such name of this kind.
    """
    if kind in TOML_FOLDERS:
        if name not in listings()[kind]():
            raise UnknownNameError(kind.removesuffix("s"), name, listings()[kind]())
        return Described((TOML_FOLDERS[kind] / f"{name}.toml").read_text(encoding="utf-8").rstrip(), [])
    if kind in registry.FILES:
        if name not in registry.describe(kind):
            raise UnknownNameError(registry.FILES[kind].noun, name, registry.describe(kind))
        return Described(_module_text(registry.FILES[kind].package, name), [])
    own, _, variant = name.partition("@") if kind == "models" and ":" not in name else (name, "", "")
    plugin = registry.load(kind, own)
    if variant and name not in listings()[kind]():
        raise UnknownNameError("model", name, listings()[kind]())
    text = inspect.getdoc(plugin) or ""
    if ":" not in own:
        text = _module_text(registry.KINDS[kind].package, own)
    if kind == "models":
        text += f"\n\n{name}: {listings()[kind]()[name]}" * bool(variant)
        options = list(_options(plugin))
        return Described(text, [("Options", options)] if options else [])
    if kind == "data":
        return Described(text, [("Settings of every dataset", describe_settings(DataSettings))])
    tables = [("Settings", describe_settings(plugin))]
    tables += [(inner.__name__, describe_settings(inner)) for inner in nested_settings(plugin)]
    return Described(text, [(title, settings) for title, settings in tables if settings])


def _module_text(package: str, name: str) -> str:
    """Return a module's docstring, read from its file: a library that it imports may be missing."""
    folder = Path(*importlib.import_module(package).__path__)
    return ast.get_docstring(ast.parse((folder / f"{name}.py").read_text(encoding="utf-8"))) or ""


def _options(builder: object) -> Iterator[SettingHelp]:
    """Yield the options of a model's builder, documented by the sentences of its docstring that name them."""
    if not callable(builder):
        return
    sentences = " ".join((inspect.getdoc(builder) or "").split()).split(". ")
    hints = inspect.get_annotations(builder, eval_str=True)
    for name, parameter in inspect.signature(builder).parameters.items():
        if name not in BUILDER_ARGUMENTS:
            text = next((each for each in sentences if f"``{name}``" in each), "")
            default = "required" if parameter.default is parameter.empty else str(parameter.default)
            yield SettingHelp(name, describe_type(hints.get(name)), default, text.rstrip("."))


INTRODUCTION = """# Reference

Everything that an experiment can name, and every setting with type, default and meaning. This page is
generated from the docstrings: `python -m sheaf.cli.reference > docs/reference.md`. `sheaf list` prints the
names, and `sheaf list KIND NAME` one entry. How the tables fit together: [experiments.md](experiments.md).
"""


def document() -> str:
    """Return docs/reference.md."""
    lines = [INTRODUCTION.rstrip()]
    for kind, names in listings().items():
        lines += ["", f"## {kind.capitalize()}", ""]
        if kind in TOML_FOLDERS:
            lines += [f"- `{name}`: {title}" for name, title in names().items()]
            continue
        for name, summary in names().items():
            if "@" in name:
                lines += [f"`{name}`: {summary}.", ""]
                continue
            part = describe_one(kind, name)
            lines += [f"### {name}", "", part.text.replace("``", "`"), ""]
            for title, settings in part.tables:
                if title in ("Settings", "Options"):
                    lines += [*_markdown_table(settings), ""]
        lines.pop()
    lines += ["", "## Tables"]
    for heading, (introduction, classes) in PARTS.items():
        lines += ["", f"### {heading}", "", introduction]
        for cls in classes:
            lines += ["", *([f"`{cls.__name__}`", ""] if len(classes) > 1 else [])]
            lines += _markdown_table(describe_settings(cls))
    return "\n".join(lines) + "\n"


def _markdown_table(settings: list[SettingHelp]) -> list[str]:
    rows = [["setting", "type", "default", "meaning"], ["---"] * 4]
    rows += [[f"`{s.name}`", s.type, f"`{s.default}`", s.text.replace("``", "`")] for s in settings]
    return [f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |" for row in rows]


if __name__ == "__main__":
    print(document(), end="")
