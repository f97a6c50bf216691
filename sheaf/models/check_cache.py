"""A cache of the results of checks of users' models, by the model's fingerprint.

It is kept in this process and in the user's cache folder. A fingerprint covers everything that may decide a
check: the settings, the files of all modules of the user's own code that are loaded, the versions of the
libraries, the checking code, and the model's structure. Models of notebooks have no files and no
fingerprint.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import json
import sys
import sysconfig
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from torch import nn
from torch.nn.parameter import is_lazy

from sheaf.core.atomic_io import write
from sheaf.core.cache_folder import checks_folder
from sheaf.models.forward_effects import attributes, without_contents

LIBRARIES = ("numpy", "timm", "torch", "torchvision")
"""Packages whose versions decide what a model computes."""

INSTALLED = tuple({sysconfig.get_path(kind) for kind in ("stdlib", "platstdlib", "purelib", "platlib")})
"""The folders of modules that are not the user's own."""

OWN = Path(__file__).parents[1]
"""The folder of sheaf."""

_results: dict[str, Any] = {}


def fingerprint(model: nn.Module, builder: Callable[..., Any], settings: object) -> str:
    """Return the fingerprint of a model; "" if it has none.

    Args:
        model: as it was built.
        builder: the function or class that built it.
        settings: the builder's arguments, as JSON values.
    """
    if any(is_lazy(parameter) for parameter in model.parameters()):  # it has no shape yet
        return ""
    while isinstance(builder, functools.partial):
        builder = builder.func
    names = {type(module).__module__ for module in model.modules()}
    names.add(getattr(builder, "__module__", None) or type(builder).__module__)
    if any(getattr(sys.modules.get(name), "__file__", None) is None for name in names) or "__main__" in names:
        return ""
    digest = hashlib.sha256(_checking_code())
    for part in (*_sources(names), *_structure(model), json.dumps(settings)):
        digest.update(hashlib.sha256(part.encode()).digest())
    return digest.hexdigest()


def result_of(key: str, kind: str, compute: Callable[[], Any]) -> Any:
    """Return the stored result of one kind of check, or compute and store it.

    Args:
        key: the model's fingerprint; "": nothing is stored.
        kind: of the check, part of a file name.
        compute: returns JSON values; an error that it raises is not stored.
    """
    name = f"{key}-{kind}.json"
    path = checks_folder() / name
    if key and name not in _results:
        with suppress(OSError, ValueError):
            _results[name] = json.loads(path.read_text())
    if not key or name not in _results:
        result = compute()
        if not key:
            return result
        _results[name] = json.loads(json.dumps(result))
        with suppress(OSError):  # a cache that cannot be written only costs time
            path.parent.mkdir(parents=True, exist_ok=True)
            write(path, json.dumps(result).encode())
    return _results[name]


def _structure(model: nn.Module) -> Iterator[str]:
    """Yield the model's layers, tensors and other attributes, without the values of tensors."""
    yield repr([(path, type(module).__qualname__) for path, module in model.named_modules()])
    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    yield repr([(name, value.shape, value.dtype, value.requires_grad) for name, value in tensors.items()])
    yield repr(model)
    yield repr(without_contents(attributes(model)))


def _sources(names: set[str]) -> Iterator[str]:
    """Yield the paths and contents of the user's modules that are loaded, and of these modules."""
    for name, module in sorted(sys.modules.items()):
        path = getattr(module, "__file__", None)
        if path is None or name.partition(".")[0] in ("torch", "sheaf"):
            continue
        if name in names or not path.startswith(INSTALLED):
            with suppress(OSError):
                yield path
                yield hashlib.sha256(Path(path).read_bytes()).hexdigest()


@functools.cache
def _checking_code() -> bytes:
    """Return a digest of the versions of libraries and of the code that checks and trains models."""
    digest = hashlib.sha256(sys.version.encode())
    for library in LIBRARIES:
        with suppress(importlib.metadata.PackageNotFoundError):
            digest.update(f"{library} {importlib.metadata.version(library)}".encode())
    for path in sorted((*OWN.glob("core/*.py"), *OWN.glob("models/*.py"), *OWN.glob("training/*.py"))):
        digest.update(path.read_bytes())
    return digest.digest()
