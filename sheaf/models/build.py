"""From a name to a network: shipped ones, a user's own, torchvision's and timm's."""

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
from sheaf.core.errors import SettingError, UnknownNameError, WeightsError, first_line, nearest
from sheaf.core.seeds import global_draws_from
from sheaf.core.settings import settings
from sheaf.models.checkpoints import IMAGENET, load_weights
from sheaf.models.freezing import freeze

log = logging.getLogger("sheaf")

Shape = tuple[int, int, int]
Option = bool | int | float | str


@settings
class ModelSettings:
    """Which network is trained, and from where it starts.

    Attributes:
        name: a shipped model, ``vgg16`` or with a variant ``vgg16@32``; a user's
            ``package.module:callable``; ``torchvision:NAME`` or ``timm:NAME`` where these are
            installed.
        weights: where training starts: None (drawn), ``"imagenet"``, or a .safetensors, .pth or
            .pt file.
        frozen: how many convolutions, in the order in which the model lists them, stay as they start, with
            the norms beside them; neither an edge nor the cloud trains them.
        options: keywords of the model's builder.
    """

    name: str
    weights: str | None = None
    frozen: Annotated[int, Field(ge=0)] = 0
    options: dict[str, Option] = field(default_factory=dict)


def build_model(settings: ModelSettings, num_classes: int, in_shape: Shape, seed: int) -> nn.Module:
    """The network, on the CPU in training mode: (N, C, H, W) -> (N, K) logits.

    The same ``seed`` draws the same parameters. What loading ``settings.weights`` has to say goes
    to the logger ``sheaf`` as INFO.

    Raises:
        UnknownNameError: no model or variant has that name.
        SettingError: an option is unknown or wrong; the model does not take inputs of
            ``in_shape`` or gives something else than (N, K); more is to be frozen than there is.
        WeightsError: the weights cannot be read or are of another model.
    """
    if ":" not in settings.name:
        build_skeleton(settings, num_classes, in_shape)  # fails sooner and cheaper than drawing
    imagenet_url = _imagenet(settings)
    with global_draws_from(seed):
        model = _make(settings, num_classes, in_shape)
        if ":" in settings.name:
            _check(model, settings.name, num_classes, in_shape, "cpu")
    if settings.weights is not None:
        for note in load_weights(model, settings.weights, imagenet_url):
            log.info("%s: %s", settings.name, note)
    return model


def build_skeleton(settings: ModelSettings, num_classes: int, in_shape: Shape) -> nn.Module:
    """The same network without numbers, on the meta device: for counting and for shapes.

    Costs no memory for a shipped model. Ignores ``settings.weights``, and raises as ``build_model`` does.
    """
    if ":" in settings.name:  # a user's may compute with what it draws
        with global_draws_from(0):
            model = _make(settings, num_classes, in_shape)
            _check(model, settings.name, num_classes, in_shape, "cpu")
        return model.to("meta")
    with torch.device("meta"):
        model = _make(settings, num_classes, in_shape)
    _check(model, settings.name, num_classes, in_shape, "meta")
    return model


def model_names() -> dict[str, str]:
    """Name -> its one line, for every shipped model and, as ``name@variant``, every variant."""
    lines = {}
    for name, line in registry.describe("models").items():
        lines[name] = line
        for variant, change in _variants(_module(name)).items():
            lines[f"{name}@{variant}"] = f"{name} {change}"
    return lines


def _make(settings: ModelSettings, num_classes: int, in_shape: Shape) -> nn.Module:
    """What the builder returns, before any check of its output."""
    builder, given = _builder(settings.name, num_classes, in_shape)
    _check_options(settings, builder, given)
    try:
        model = builder(**given, **settings.options)
    except (RuntimeError, ValueError, TypeError, ZeroDivisionError) as error:
        raise SettingError(
            f"model {settings.name!r} cannot be built for {num_classes} classes and inputs of "
            f"{_size(in_shape)}{_with(settings.options)}: {first_line(error)}"
        ) from error
    if not isinstance(model, nn.Module):
        raise SettingError(
            f"model {settings.name!r} must return a torch.nn.Module, not {type(model).__name__}"
        )
    if settings.frozen:
        freeze(model, settings.frozen)
    return model


def _builder(name: str, num_classes: int, in_shape: Shape) -> tuple[Callable[..., Any], dict[str, Any]]:
    """What builds the model, and what it is given besides the options."""
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
    asked: dict[str, Any] = {"num_classes": num_classes, "in_shape": in_shape}
    if rest:
        builder = registry.load("models", name)
        if not callable(builder) or isinstance(builder, nn.Module):
            raise SettingError(f"model {name!r} must be a callable that returns a torch.nn.Module")
        return builder, {key: asked[key] for key in asked if key in _parameters(builder)}
    shipped, _, variant = name.partition("@")
    if shipped not in registry.describe("models") or (
        "@" in name and variant not in _variants(_module(shipped))
    ):
        raise UnknownNameError("model", name, model_names())
    return registry.load("models", shipped), asked | {"variant": variant or None}


def _library(module: str, name: str) -> ModuleType:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        library = module.partition(".")[0]
        raise SettingError(f"model {name!r} needs {library}, which is not installed") from error


def _check_options(settings: ModelSettings, builder: Callable[..., Any], given: Mapping[str, Any]) -> None:
    """Options against the builder's signature: their names, and their types by the defaults."""
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
        wanted = type(allowed[key].default) if key in allowed else type(value)
        fits = wanted is type(value) or (wanted is float and type(value) is int)
        if wanted in (bool, int, float, str) and not fits:
            raise SettingError(
                f"option {key!r} of model {settings.name!r} must be {wanted.__name__}, not {value!r}"
            )


def _check(model: nn.Module, name: str, num_classes: int, in_shape: Shape, device: str) -> None:
    """Has the model classify two blank examples."""
    training = model.training
    try:
        with torch.no_grad():
            output = model.eval()(torch.zeros(2, *in_shape, device=device))
    except (RuntimeError, ValueError, TypeError, IndexError, AttributeError) as error:
        raise SettingError(
            f"model {name!r} does not take inputs of {_size(in_shape)}: {first_line(error)}"
        ) from error
    model.train(training)
    if not isinstance(output, torch.Tensor) or output.shape != (2, num_classes):
        got = tuple(output.shape) if isinstance(output, torch.Tensor) else type(output).__name__
        raise SettingError(
            f"model {name!r} must turn (N, {', '.join(map(str, in_shape))}) into "
            f"(N, {num_classes}) logits; for N = 2 it gave {got}"
        )


def _imagenet(settings: ModelSettings) -> str | None:
    """Where the model's ImageNet weights are, if they are asked for.

    Raises:
        WeightsError: there are none.
    """
    if settings.weights != IMAGENET:
        return None
    urls: dict[str, str] = {}
    for shipped in registry.describe("models"):
        for variant, url in getattr(_module(shipped), "IMAGENET", {}).items():
            urls[f"{shipped}@{variant}" if variant else shipped] = url
    if settings.name not in urls:
        raise WeightsError(
            f"there are no ImageNet weights for model {settings.name!r}; there are for: "
            f"{', '.join(sorted(urls))}"
        )
    return urls[settings.name]


def _module(shipped: str) -> ModuleType:
    return importlib.import_module(f"sheaf.models.zoo.{shipped}")


def _variants(module: ModuleType) -> dict[str, str]:
    variants: dict[str, str] = getattr(module, "VARIANTS", {})
    return variants


def _parameters(builder: Callable[..., Any]) -> Mapping[str, inspect.Parameter]:
    try:
        return inspect.signature(builder).parameters
    except ValueError:  # a builtin that has no signature
        return {}


def _size(in_shape: Shape) -> str:
    return "x".join(map(str, in_shape))


def _with(options: Mapping[str, Option]) -> str:
    return " with " + ", ".join(f"{key} = {value!r}" for key, value in options.items()) if options else ""
