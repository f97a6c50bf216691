"""Effects of a model's forward pass outside its state_dict: how they are found, and the marks of a model.

A way of training that replays operations, or runs a module on several threads, can lose or mix such effects.
"""

from __future__ import annotations

import copy
import hashlib
import random
from collections import deque
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

MARK = "sheaf_effects"
"""An attribute of checked models. Copies and sub-models inherit it."""


class Absent:
    """Stands for the value of an attribute that the model as built lacks."""


DEPTH = 6
"""Attributes of attributes are read down to this depth."""

OPAQUE = FunctionType, MethodType, BuiltinFunctionType, ModuleType, type
"""Values that are not read."""


@dataclass(frozen=True)
class Effects:
    """The effects of a model's forward pass in training.

    Attributes:
        not_recorded: why steps may be neither recorded nor taken for several sites at once; "" if they may.
        alone: why sites may not train on several threads either; "" if they may.
        shareable: whether two threads may run the same module at once, in evaluation.
        resets: (module, attribute) -> its value in the model as built, for attributes that change in every
            step. A task starts from these values, so its result does not depend on earlier ones.
        fingerprint: of the model in ``check_cache``.
    """

    not_recorded: str = ""
    alone: str = ""
    shareable: bool = True
    resets: Mapping[tuple[str, str], Any] = field(default_factory=dict)
    fingerprint: str = ""


def effects_of(model: nn.Module) -> Effects:
    """Return the marks of a model; of an unmarked one, no effects."""
    effects: Effects = getattr(model, MARK, Effects())
    return effects


def is_marked(model: nn.Module) -> bool:
    """Return whether the model is a user's: all of them are marked, also those without effects."""
    return hasattr(model, MARK)


def mark(model: nn.Module, effects: Effects) -> None:
    """Mark a model with its effects."""
    setattr(model, MARK, effects)


def reset(model: nn.Module) -> None:
    """Set the attributes that change in every step to their values in the model as built."""
    for (path, name), value in effects_of(model).resets.items():
        module = model.get_submodule(path)
        if value is not Absent:
            setattr(module, name, copy.deepcopy(value))
        elif hasattr(module, name):
            delattr(module, name)


class Contents(NamedTuple):
    """A tensor or an array, by its type, its shape and a digest of its values."""

    dtype: str
    shape: tuple[int, ...]
    digest: str


def attributes(model: nn.Module) -> dict[tuple[str, str], Any]:
    """Return (module, attribute) -> comparable value, of everything that the state_dict does not contain."""
    values = {}
    for path, module in model.named_modules():
        for name, value in vars(module).items():
            if name not in USUAL and not name.startswith("sheaf_"):
                values[path, name] = _comparable(value, set(), DEPTH)
        for name in module._non_persistent_buffers_set:
            values[path, name] = _comparable(module._buffers[name], set(), DEPTH)
    return values


USUAL = frozenset(vars(nn.Module()))
"""The attributes of every module: its parameters, its buffers, its hooks and its mode."""


def differing(one: Mapping[Any, Any], other: Mapping[Any, Any], contents: bool = True) -> list[Any]:
    """Return the keys of attributes that differ.

    Args:
        one: some ``attributes``.
        other: some others.
        contents: whether the values of tensors count.
    """
    if not contents:
        one, other = without_contents(one), without_contents(other)
    return [key for key in {**one, **other} if one.get(key) != other.get(key)]


def without_contents(value: Any) -> Any:
    """Return attributes without the values of tensors and arrays."""
    if isinstance(value, Contents):
        return value[:2]
    if isinstance(value, Mapping):
        return {key: without_contents(each) for key, each in value.items()}
    if isinstance(value, tuple):
        return tuple(without_contents(each) for each in value)
    return value


def buffers(model: nn.Module) -> dict[str, Tensor]:
    """Return name -> buffer. A buffer that forward assigns anew is another object afterwards."""
    return dict(model.named_buffers())


def listed(keys: Collection[tuple[str, str]], limit: int = 3) -> str:
    """Return attributes as a user writes them, such as ``n.rm``, at most ``limit`` of them."""
    names = sorted(f"{module}.{name}".lstrip(".") for module, name in keys)
    return ", ".join(names[:limit]) + (f" and {len(names) - limit} more" if len(names) > limit else "")


def _comparable(value: Any, above: set[int], depth: int) -> Any:
    """Return a value of nested tuples that is equal for equal contents."""
    if value is None or isinstance(value, bool | int | float | complex | str | bytes):
        return repr(value)
    if isinstance(value, Tensor):
        return _contents(value)
    if isinstance(value, np.ndarray):
        return Contents(str(value.dtype), value.shape, _digest(value.tobytes()))
    if isinstance(value, OPAQUE) or id(value) in above or depth == 0:
        return type(value).__name__
    if isinstance(value, torch.Generator):
        return _contents(value.get_state()).digest
    if isinstance(value, random.Random):
        return repr(value.getstate())
    if isinstance(value, np.random.Generator):
        return repr(value.bit_generator.state)
    if isinstance(value, np.random.RandomState):
        return repr(value.get_state(legacy=False))
    above = above | {id(value)}
    if isinstance(value, Mapping):
        return tuple((repr(key), _comparable(each, above, depth - 1)) for key, each in value.items())
    if isinstance(value, list | tuple | deque):
        return tuple(_comparable(each, above, depth - 1) for each in value)
    if isinstance(value, set | frozenset):
        return tuple(sorted(repr(each) for each in value))
    if isinstance(value, nn.Module):  # one that is no registered child: its parameters are outside, too
        held = {**dict(value.named_parameters()), **dict(value.named_buffers())}
        return tuple((name, _contents(tensor)) for name, tensor in held.items())
    inside = getattr(value, "__dict__", {})
    return tuple((name, _comparable(each, above, depth - 1)) for name, each in inside.items())


def _contents(tensor: Tensor) -> Contents:
    if tensor.device.type == "meta" or tensor.layout != torch.strided or tensor.is_quantized:
        return Contents(str(tensor.dtype), tuple(tensor.shape), "")
    raw = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
    return Contents(str(tensor.dtype), tuple(tensor.shape), _digest(raw.numpy()))


def _digest(raw: Any) -> str:
    return hashlib.blake2b(raw, digest_size=16).hexdigest()
