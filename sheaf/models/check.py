"""Check a model's state, its logits and a training step. The messages name the line of the user's code."""

from __future__ import annotations

import copy
import traceback
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sheaf.core.errors import SettingError, first_line

Shape = tuple[int, int, int]

STEP = 1e-3
"""The learning rate of the checked step."""

PACKAGES = str(Path(torch.__file__).parent), str(Path(__file__).parents[1]), copy.__file__
"""The folders of torch and sheaf, and the module that copies."""


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


def check_step(model: nn.Module, name: str, num_classes: int, inputs: Tensor) -> Tensor:
    """Check a step of SGD in training mode; return its logits.

    Raises:
        SettingError: it fails, or the logits have no gradient.
    """
    logits = check_logits(model, name, num_classes, inputs, training=True)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if trained and not logits.requires_grad:
        raise SettingError(
            f"model {name!r} cannot be trained: its logits have no gradient; remove detach() and no_grad()"
        )
    try:
        if trained:
            labels = torch.arange(len(inputs)) % num_classes
            F.cross_entropy(logits, labels).backward()  # type: ignore[no-untyped-call]
            with torch.no_grad():
                for parameter in trained:
                    if parameter.grad is not None:
                        parameter.sub_(parameter.grad, alpha=STEP)
                        parameter.grad = None
    except Exception as error:
        raise SettingError(f"model {name!r} cannot be trained: {describe(error)}") from error
    return logits.detach()


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
        if was_training is not training:
            model.train(training)
        with torch.set_grad_enabled(training):
            output = model(inputs)
    except Exception as error:
        batch = f" in a batch of {len(inputs)}" if len(inputs) == 1 else ""
        raise SettingError(
            f"model {name!r} does not take inputs of {size_of(tuple(inputs.shape[1:]))}{batch}{mode}: "
            f"{describe(error)}"
        ) from error
    finally:
        if was_training is not training:
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
