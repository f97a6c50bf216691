"""Weights files: safetensors, PyTorch's state_dicts, and the published ImageNet weights.

Nothing in a file is executed: what ``torch.load(weights_only=True)`` will not read is refused.
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
"""In place of a path: the published ImageNet weights of the model."""


def load_weights(model: nn.Module, source: str, imagenet_url: str | None = None) -> list[str]:
    """Fills ``model`` from ``source``: a .safetensors, .pth or .pt file, or ``"imagenet"``.

    A classifier (the last linear layer) for another number of classes is left as it was drawn.

    Returns:
        What the user should know, a line each.

    Raises:
        WeightsError: the file cannot be found, downloaded or read; it is of another model; a value
            is not finite. The model is then as it was.
    """
    if source != IMAGENET:
        path = Path(source)
    elif imagenet_url is not None:
        path = _imagenet(imagenet_url)
    else:
        raise WeightsError("there are no ImageNet weights for this model; name a file")
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
        f"its classifier ({', '.join(head)}) starts afresh"
    ]


def save_weights(path: Path, params: Params, metadata: Mapping[str, str], named: bool = True) -> None:
    """Writes ``params`` as safetensors; a crash leaves the old file or the new one, whole.

    Args:
        named: see ``Blob.write``.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    write_durably(path, encode({name: tensor.cpu() for name, tensor in params.items()}, metadata), named)


def _read(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise WeightsError(f"there is no weights file {str(path)!r}")
    if path.suffix not in (".safetensors", ".pth", ".pt"):
        raise WeightsError(f"weights must be .safetensors, .pth or .pt, not {str(path)!r}")
    try:
        if path.suffix == ".safetensors":
            return safetensors.torch.load_file(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # rubbish trips the unpickler anywhere
        why = first_line(error)
        if "Weights only load failed" in why:
            why = "it holds more than tensors by name, and nothing in a file is executed"
        raise WeightsError(f"cannot read weights {str(path)!r}: {why}") from error
    return _state_dict(content, path)


def _state_dict(content: Any, path: Path) -> dict[str, Tensor]:
    """The tensors by name: of a bare state_dict, or of a checkpoint that has one inside."""
    if isinstance(content, Mapping) and isinstance(content.get("state_dict"), Mapping):
        content = content["state_dict"]
    if not isinstance(content, Mapping) or not all(
        isinstance(name, str) and isinstance(value, Tensor) for name, value in content.items()
    ):
        raise WeightsError(f"weights {str(path)!r} hold no state_dict (tensors by name)")
    return dict(content)


def _imagenet(url: str) -> Path:
    """The file at ``url``, in torch hub's cache."""
    name = url.rpartition("/")[2]
    path = Path(torch.hub.get_dir()) / "checkpoints" / name
    if path.is_file():
        return path
    digest = re.fullmatch(r".*-([0-9a-f]{8,})\.pth", name)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(url, str(path), digest and digest[1], progress=sys.stderr.isatty())
    except (OSError, RuntimeError) as error:  # no network; another hash
        raise WeightsError(f"cannot download {url}: {error}; put the file at {str(path)!r}") from error
    return path


def _other_head(model: nn.Module, theirs: Params) -> list[str]:
    """The parameters of the classifier, if ``theirs`` differs from ours in its classes alone."""
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
    # Files from before 2018 lack batch normalisation's counters, which nothing here reads.
    missing = {name for name in ours.keys() - theirs.keys() if "num_batches_tracked" not in name}
    unexpected = theirs.keys() - ours.keys()
    for what, names in (("lack", missing), ("have unknown", unexpected)):
        if names:
            few = ", ".join(sorted(names)[:3]) + (", ..." if len(names) > 3 else "")
            raise WeightsError(f"weights {str(path)!r} are of another model: they {what} {few}")
    for name in [name for name in ours if name in theirs and name not in head]:
        ours_is, theirs_is = ours[name], theirs[name]
        if theirs_is.shape != ours_is.shape:
            raise WeightsError(
                f"weights {str(path)!r} are of another model: {name} is {_size(theirs_is)}, "
                f"not {_size(ours_is)}"
            )
        if theirs_is.is_floating_point() != ours_is.is_floating_point():
            raise WeightsError(
                f"weights {str(path)!r} are of another model: {name} is {theirs_is.dtype}, "
                f"not {ours_is.dtype}"
            )
        if theirs_is.is_floating_point() and not theirs_is.isfinite().all():
            raise WeightsError(f"weights {str(path)!r} are not finite: see {name}")


def _size(tensor: Tensor) -> str:
    return "x".join(map(str, tensor.shape)) or "a single number"
