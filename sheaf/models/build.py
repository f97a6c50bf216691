"""Construction of a network by name: shipped, of a user, of torchvision or of timm."""

from __future__ import annotations

import importlib
import inspect
import logging
from collections.abc import Callable, Mapping
from dataclasses import field
from types import ModuleType
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import nn

from sheaf.core import registry
from sheaf.core.errors import SettingError, SheafError, UnknownNameError, WeightsError, nearest
from sheaf.core.objects import is_object
from sheaf.core.seeds import global_draws_from
from sheaf.core.settings import settings
from sheaf.models.check import Shape, check_logits, describe, size_of
from sheaf.models.check_cache import fingerprint
from sheaf.models.checkpoints import IMAGENET, load_weights
from sheaf.models.flops import copy_to, is_small
from sheaf.models.freezing import freeze
from sheaf.models.names import model_names, variants
from sheaf.models.user_model import check_model

log = logging.getLogger("sheaf")

Option = bool | int | float | str


@settings
class ModelSettings:
    """The keys under ``[model]``.

    Attributes:
        name: a shipped model such as ``vgg16``, or a variant of one such as ``vgg16@32`` (``sheaf list
            models``); a user's ``package.module:callable``; ``torchvision:NAME`` or ``timm:NAME`` if the
            library is installed.
        weights: the initial parameters: a file with one of the ``checkpoints.SUFFIXES``, or
            ``"imagenet"``. Unset: drawn at random.
        frozen: the number of convolutions, in the order of ``model.modules()``, that keep their initial
            parameters together with the norms that follow them, from 0. Neither edges nor cloud train them.
        options: keyword arguments of the model's builder.
    """

    name: str
    weights: str | None = None
    frozen: Annotated[int, Field(ge=0)] = 0
    options: dict[str, Option] = field(default_factory=dict)


def build_model(settings: ModelSettings, num_classes: int, in_shape: Shape, seed: int) -> nn.Module:
    """Return the network, on the CPU in training mode: (N, C, H, W) -> (N, K) logits.

    Notes about ``settings.weights`` are logged at level INFO by the logger ``sheaf``.

    Args:
        settings: the table ``[model]``.
        num_classes: K.
        in_shape: (C, H, W).
        seed: of the initial parameters.

    Raises:
        UnknownNameError: no model or variant has that name.
        SettingError: an option is unknown or invalid, the model does not map (N, C, H, W) to (N, K), or
            ``settings.frozen`` is too large.
        WeightsError: the weights cannot be read or are of another model.
    """
    if ":" not in settings.name:
        build_skeleton(settings, num_classes, in_shape)  # detects errors before parameters are drawn
    imagenet_url = _imagenet(settings)
    with global_draws_from(seed):
        model = _make(settings, num_classes, in_shape)
        if ":" in settings.name:
            _check(model, settings, num_classes, in_shape)
    if settings.weights is not None:
        for note in load_weights(model, settings.weights, imagenet_url):
            log.info("%s: %s", settings.name, note)
    return model


def build_skeleton(settings: ModelSettings, num_classes: int, in_shape: Shape) -> nn.Module:
    """Return the network on the meta device, without values: for counts and shapes.

    Takes no memory for a shipped model. Ignores ``settings.weights``. Raises like ``build_model``.
    """
    if ":" in settings.name:  # a user's builder may compute with the values, which meta tensors lack
        with global_draws_from(0):
            model = _make(settings, num_classes, in_shape)
            _check(model, settings, num_classes, in_shape)
        return model.to("meta")
    with torch.device("meta"):
        model = _make(settings, num_classes, in_shape)
    device = torch.device("cpu" if is_small(model, in_shape) else "meta")
    inputs = torch.zeros(2, *in_shape, device=device)
    check_logits(copy_to(device, model), settings.name, num_classes, inputs)
    return model


def imagenet_urls() -> dict[str, str]:
    """Return the URL of the ImageNet weights of each model and variant that has them."""
    urls: dict[str, str] = {}
    for shipped in registry.describe("models"):
        for variant, url in getattr(_module(shipped), "IMAGENET", {}).items():
            urls[f"{shipped}@{variant}" if variant else shipped] = url
    return urls


def _check(model: nn.Module, settings: ModelSettings, num_classes: int, in_shape: Shape) -> None:
    """Check a model that is not shipped."""
    key = ""
    if not is_object(settings.name):
        builder, _ = _builder(settings.name, num_classes, in_shape)
        key = fingerprint(
            model, builder, [settings.name, settings.options, settings.frozen, num_classes, in_shape]
        )
    check_model(
        model, settings.name, num_classes, in_shape, lambda: _make(settings, num_classes, in_shape), key
    )


def _make(settings: ModelSettings, num_classes: int, in_shape: Shape) -> nn.Module:
    """Return the builder's model, with frozen layers, before any check of its output."""
    builder, given = _builder(settings.name, num_classes, in_shape)
    _check_options(settings, builder, given)
    try:
        model = builder(**given, **settings.options)
    except SheafError:
        raise
    except Exception as error:  # a user's builder may raise any
        raise SettingError(
            f"model {settings.name!r} cannot be built for {num_classes} classes and inputs of "
            f"{size_of(in_shape)}{_with(settings.options)}: {describe(error)}"
        ) from error
    if not isinstance(model, nn.Module):
        raise SettingError(
            f"model {settings.name!r} must return a torch.nn.Module, not {type(model).__name__}"
        )
    if settings.frozen:
        freeze(model, settings.frozen)
    return model


def _builder(name: str, num_classes: int, in_shape: Shape) -> tuple[Callable[..., Any], dict[str, Any]]:
    """Return the builder of the model, and its arguments without the options."""
    library, _, rest = name.partition(":")
    if library == "torchvision" and rest:
        models = _library("torchvision.models", name)
        if rest not in models.list_models():
            raise UnknownNameError("torchvision model", rest, models.list_models())
        return models.get_model_builder(rest), {"weights": None, "num_classes": num_classes}
    if library == "timm" and rest:
        timm = _library("timm", name)
        if rest not in timm.list_models():
            raise UnknownNameError("timm model", rest, timm.list_models())
        given = {"model_name": rest, "num_classes": num_classes, "in_chans": in_shape[0]}
        return timm.create_model, given
    shapes: dict[str, Any] = {"num_classes": num_classes, "in_shape": in_shape}
    if rest:
        builder = registry.load("models", name)
        if not callable(builder) or isinstance(builder, nn.Module):
            raise SettingError(f"model {name!r} must be a callable that returns a torch.nn.Module")
        return builder, {key: shapes[key] for key in shapes if key in _parameters(builder)}
    shipped, _, variant = name.partition("@")
    if shipped not in registry.describe("models") or ("@" in name and variant not in variants(shipped)):
        raise UnknownNameError("model", name, model_names())
    return registry.load("models", shipped), shapes | {"variant": variant or None}


def _library(module: str, name: str) -> ModuleType:
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:  # of the library, or of one that it imports: timm needs torchvision
        missing = (error.name or module).partition(".")[0]
        raise SettingError(
            f"model {name!r} needs {missing}, which is not installed; run pip install {missing}"
        ) from error
    except Exception as error:  # for example a torchvision of another torch version
        raise SettingError(
            f"model {name!r}: {module} cannot be imported: {describe(error)}; reinstall it for this torch"
        ) from error


def _check_options(settings: ModelSettings, builder: Callable[..., Any], given: Mapping[str, Any]) -> None:
    """Check the options against the builder's signature: names, and types by the defaults.

    Raises:
        SettingError: the builder has no such option, or its default is of another type.
    """
    parameters = _parameters(builder)
    allowed = {
        key: parameter
        for key, parameter in parameters.items()
        if key not in given and parameter.kind in (parameter.KEYWORD_ONLY, parameter.POSITIONAL_OR_KEYWORD)
    }
    open_ended = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    for key, value in settings.options.items():
        if key in given or (key not in allowed and not open_ended):
            raise SettingError(
                f"model {settings.name!r} has no option {key!r}{nearest(key, allowed)}; "
                f"its options: {', '.join(allowed) or 'none'}"
            )
        expected = type(allowed[key].default) if key in allowed else type(value)
        fits = expected is type(value) or (expected is float and type(value) is int)
        if expected in (bool, int, float, str) and not fits:
            raise SettingError(
                f"option {key!r} of model {settings.name!r} must be {expected.__name__}, not {value!r}"
            )


def _imagenet(settings: ModelSettings) -> str | None:
    """Return the URL of the model's ImageNet weights if ``settings.weights`` selects them, else None.

    Raises:
        WeightsError: the model has none.
    """
    if settings.weights != IMAGENET:
        return None
    urls = imagenet_urls()
    if settings.name not in urls:
        raise WeightsError(
            f"model {settings.name!r} has no ImageNet weights; models that have them: "
            f"{', '.join(sorted(urls))}; remove model.weights to start from random values"
        )
    return urls[settings.name]


def _module(shipped: str) -> ModuleType:
    return importlib.import_module(f"sheaf.models.zoo.{shipped}")


def _parameters(builder: Callable[..., Any]) -> Mapping[str, inspect.Parameter]:
    try:
        return inspect.signature(builder).parameters
    except ValueError:  # some builtins have no signature
        return {}


def _with(options: Mapping[str, Option]) -> str:
    return " with " + ", ".join(f"{key} = {value!r}" for key, value in options.items()) if options else ""
