"""Check a user's model on blank examples, as it will be used, before anything is trained."""

from __future__ import annotations

import copy
import traceback
from pathlib import Path

import torch
from torch import Tensor, nn

from sheaf.core.errors import SettingError, first_line
from sheaf.models.memory_layout import keep_ordinary_layout, to_layout, uses_channels_last

Shape = tuple[int, int, int]

PACKAGES = str(Path(torch.__file__).parent), str(Path(__file__).parents[1])
"""The folders of torch and sheaf."""


def check_model(model: nn.Module, name: str, num_classes: int, in_shape: Shape) -> None:
    """Check the types of the model's parameters, its logits in evaluation, and a training step.

    Only a copy runs in training mode, so buffers keep their values. A model whose step fails in channels-last
    memory only is marked to keep the ordinary layout.

    Args:
        model: on the CPU; its mode is kept.
        name: of the model, for messages.
        num_classes: K.
        in_shape: (C, H, W).

    Raises:
        SettingError: the model cannot be trained. The message names the line of the user's own code.
    """
    check_state(model, name)
    for examples in (2, 1):
        check_logits(model, name, num_classes, torch.zeros(examples, *in_shape))
    try:
        trained = copy.deepcopy(model).train()
    except Exception as error:
        raise SettingError(f"model {name!r} cannot be copied: {describe(error)}") from error
    inputs = torch.zeros(2, *in_shape)
    if uses_channels_last(trained):
        try:
            return _check_step(to_layout(trained, channels_last=True), name, num_classes, inputs)
        except SettingError:
            to_layout(trained, channels_last=False)
    _check_step(trained, name, num_classes, inputs)
    if uses_channels_last(trained):
        keep_ordinary_layout(model)


def check_state(model: nn.Module, name: str) -> None:
    """Check that the state can be trained, sent and averaged: tensors, with float32 parameters.

    Raises:
        SettingError: a module has extra state, or a tensor has another type.
    """
    for key, value in model.state_dict().items():
        if not isinstance(value, Tensor) or key.rpartition(".")[2] == "_extra_state":
            raise SettingError(
                f"model {name!r} has extra state ({key}), which is not sent between sites: remove "
                "get_extra_state, and register a tensor that must be kept as a buffer"
            )
        if value.is_complex():
            raise SettingError(f"model {name!r}: {key} is {_type(value)}; store it as a real tensor")
    for key, parameter in model.named_parameters():
        if parameter.dtype != torch.float32:
            raise SettingError(
                f"model {name!r}: parameter {key} is {_type(parameter)}; sheaf trains float32 parameters, so "
                "build the model without .double(), .half() or dtype="
            )


def _check_step(model: nn.Module, name: str, num_classes: int, inputs: Tensor) -> None:
    """Check a forward and a backward pass in training mode."""
    logits = check_logits(model, name, num_classes, inputs, training=True)
    trainable = any(parameter.requires_grad for parameter in model.parameters())
    if trainable and not logits.requires_grad:
        raise SettingError(
            f"model {name!r} cannot be trained: its logits have no gradient; remove detach() and no_grad()"
        )
    try:
        if trainable:
            logits.sum().backward()  # type: ignore[no-untyped-call]
    except Exception as error:
        raise SettingError(f"model {name!r} cannot be trained: {describe(error)}") from error


def check_logits(
    model: nn.Module, name: str, num_classes: int, inputs: Tensor, training: bool = False
) -> Tensor:
    """Check that the model maps (N, C, H, W) inputs to (N, K) logits, and return them. Its mode is kept.

    Args:
        training: check in training mode, with gradients, instead of evaluation.

    Raises:
        SettingError: it fails, or returns something else.
    """
    mode = " in training" if training else ""
    was_training = model.training
    try:
        with torch.set_grad_enabled(training):
            output = model.train(training)(inputs)
    except Exception as error:
        batch = f" in a batch of {len(inputs)}" if len(inputs) == 1 else ""
        raise SettingError(
            f"model {name!r} does not take inputs of {size_of(tuple(inputs.shape[1:]))}{batch}{mode}: "
            f"{describe(error)}"
        ) from error
    finally:
        model.train(was_training)
    wanted = (len(inputs), num_classes)
    if isinstance(output, Tensor) and output.shape == wanted and output.is_floating_point():
        return output
    remedy = ""
    if not isinstance(output, Tensor):
        returned = type(output).__name__
        remedy = "; return the logits alone"
        if training:
            remedy += ", without auxiliary outputs (often an option such as aux_logits = false)"
    elif output.shape == wanted:
        returned = _type(output)
    else:
        returned = str(tuple(output.shape))
        if len(inputs) == 1:
            remedy = "; squeeze() also removes the dimension of a batch of one: use flatten(1)"
    raise SettingError(
        f"model {name!r} must map (N, {', '.join(map(str, inputs.shape[1:]))}) to (N, {num_classes}) "
        f"logits{mode}; for N = {len(inputs)} it returned {returned}{remedy}"
    )


def describe(error: Exception) -> str:
    """Return the error's type, its first line, and the line of the user's own code where it was raised."""
    kind, text = type(error).__name__, first_line(error)
    message = kind if text == kind else f"{kind}: {text}"
    own = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if not frame.filename.startswith((*PACKAGES, "<"))
    ]
    return f"{message} ({own[-1].filename}:{own[-1].lineno})" if own else message


def size_of(in_shape: tuple[int, ...]) -> str:
    """Return a shape as people write it, such as 3x32x32."""
    return "x".join(map(str, in_shape))


def _type(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")
