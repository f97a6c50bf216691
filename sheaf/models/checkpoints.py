"""Weights files: safetensors, PyTorch's state_dicts, and the published ImageNet weights.

Nothing in a file is executed: files that ``torch.load(weights_only=True)`` rejects are errors.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn

from sheaf.core.atomic_io import write_durably
from sheaf.core.errors import WeightsError, first_line
from sheaf.core.tensor_file import encode
from sheaf.core.types import Params

IMAGENET = "imagenet"
"""Selects the published ImageNet weights of the model instead of a file."""


def load_weights(model: nn.Module, source: str, imagenet_url: str | None = None) -> list[str]:
    """Load parameters into ``model``.

    If the file's classifier (the last linear layer) is for another number of classes, the model keeps its
    own initial classifier.

    Args:
        model: is modified in place; unchanged if an error is raised.
        source: a .safetensors, .pth or .pt file, or ``"imagenet"``.
        imagenet_url: of the model's ImageNet weights, if it has them.

    Returns:
        Notes for the user, one line each.

    Raises:
        WeightsError: the file cannot be found, downloaded or read, is of another model, or has a value that
            is not finite.
    """
    if source != IMAGENET:
        path = Path(source)
    elif imagenet_url is not None:
        path = _imagenet(imagenet_url)
    else:
        raise WeightsError("this model has no ImageNet weights; give the path of a file")
    theirs = _read(path)
    ours = model.state_dict()
    head = _other_head(model, theirs)
    _check(ours, theirs, head, path)
    model.load_state_dict(ours | {name: theirs[name] for name in theirs if name not in head})
    if not head:
        return []
    weight = head[0]
    return [
        f"{path.name} is for {len(theirs[weight])} classes, the model for {len(ours[weight])}: "
        f"its classifier ({', '.join(head)}) is not loaded and starts from random values"
    ]


def save_weights(path: Path, params: Params, metadata: Mapping[str, str], named: bool = True) -> None:
    """Write ``params`` as safetensors, atomically and durably.

    Args:
        path: of the file; its folder is created.
        params: the tensors.
        metadata: of the file.
        named: see ``write_durably``.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    write_durably(path, encode({name: tensor.cpu() for name, tensor in params.items()}, metadata), named)


def _read(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise WeightsError(f"weights file {str(path)!r} does not exist")
    if path.suffix not in (".safetensors", ".pth", ".pt"):
        raise WeightsError(f"weights file {str(path)!r} must be .safetensors, .pth or .pt")
    try:
        if path.suffix == ".safetensors":
            return safetensors.torch.load_file(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # the unpickler raises many kinds of errors for damaged files
        reason = first_line(error)
        if "Weights only load failed" in reason:
            reason = "it contains objects other than tensors, which are not unpickled; save a state_dict"
        raise WeightsError(f"cannot read weights {str(path)!r}: {reason}") from error
    return _state_dict(content, path)


def _state_dict(content: Any, path: Path) -> dict[str, Tensor]:
    """Return the state_dict that ``content`` is, or that it has under the key ``state_dict``."""
    if isinstance(content, Mapping) and isinstance(content.get("state_dict"), Mapping):
        content = content["state_dict"]
    if not isinstance(content, Mapping) or not all(
        isinstance(name, str) and isinstance(value, Tensor) for name, value in content.items()
    ):
        raise WeightsError(f"weights {str(path)!r} contain no state_dict (tensors by name)")
    return dict(content)


def _imagenet(url: str) -> Path:
    """Return the path of the file at ``url`` in the cache of torch hub, after a download if necessary."""
    name = url.rpartition("/")[2]
    path = Path(torch.hub.get_dir()) / "checkpoints" / name
    if path.is_file():
        return path
    digest = re.fullmatch(r".*-([0-9a-f]{8,})\.pth", name)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(url, str(path), digest and digest[1], progress=sys.stderr.isatty())
    except (OSError, RuntimeError) as error:  # no network, or another hash
        raise WeightsError(f"cannot download {url}: {error}; put the file at {str(path)!r}") from error
    return path


def _other_head(model: nn.Module, theirs: Params) -> list[str]:
    """Return the names of the classifier's parameters if ``theirs`` has another number of classes."""
    linears = [(name, m) for name, m in model.named_modules() if isinstance(m, nn.Linear)]
    if not linears:
        return []
    prefix, head = linears[-1]
    names = [f"{prefix}.{name}".lstrip(".") for name, _ in head.named_parameters()]
    weight = theirs.get(names[0])
    if weight is None or weight.dim() != 2 or len(weight) == head.out_features:
        return []
    return names if weight.shape[1] == head.in_features else []


def _check(ours: Params, theirs: Params, head: list[str], path: Path) -> None:
    """Check names, shapes, types and values, except for the parameters in ``head``.

    Raises:
        WeightsError: the file is of another model or is not finite.
    """
    # Files from before 2018 lack the counters of batch normalisation, which sheaf does not use.
    missing = {name for name in ours.keys() - theirs.keys() if "num_batches_tracked" not in name}
    unexpected = theirs.keys() - ours.keys()
    for verb, names in (("lack", missing), ("have unknown", unexpected)):
        if names:
            first = ", ".join(sorted(names)[:3]) + (", ..." if len(names) > 3 else "")
            raise WeightsError(f"weights {str(path)!r} are of another model: they {verb} {first}")
    for name in [name for name in ours if name in theirs and name not in head]:
        our, their = ours[name], theirs[name]
        if their.shape != our.shape:
            raise WeightsError(
                f"weights {str(path)!r} are of another model: {name} is {_size(their)}, not {_size(our)}"
            )
        if their.is_floating_point() != our.is_floating_point():
            raise WeightsError(
                f"weights {str(path)!r} are of another model: {name} is {their.dtype}, not {our.dtype}"
            )
        if their.is_floating_point() and not their.isfinite().all():
            raise WeightsError(f"weights {str(path)!r} contain NaN or infinity in {name}")


def _size(tensor: Tensor) -> str:
    return "x".join(map(str, tensor.shape)) or "a scalar"
