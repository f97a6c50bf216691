"""The names that an experiment can use, by kind. Listing them imports no torch."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from sheaf.core import registry
from sheaf.experiments.shipped import shipped
from sheaf.models.names import model_names
from sheaf.profiles.shipped import shipped_profiles

KINDS = ("experiments", *registry.KINDS, *registry.FILES, "profiles")
"""The lists that ``sheaf list`` prints."""


def listings() -> dict[str, Callable[[], dict[str, str]]]:
    """Return kind -> function that returns name -> description. None of them imports torch."""
    lists: dict[str, Callable[[], dict[str, str]]] = {"experiments": shipped}
    lists |= {name: partial(registry.describe, name) for name in (registry.KINDS | registry.FILES)}
    return lists | {"models": model_names, "profiles": shipped_profiles}
