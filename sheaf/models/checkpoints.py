"""Weights files: safetensors, PyTorch's state_dicts, and the published ImageNet weights.

Nothing in a file is executed: files that ``torch.load(weights_only=True)`` rejects are errors. ``unwrapping``
finds the state_dict in a checkpoint.
"""

from __future__ import annotations

import re
import sys
from collections import OrderedDict
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn

from sheaf.core.atomic_io import write_durably
from sheaf.core.errors import WeightsError, first_line
from sheaf.core.optional_imports import extra
from sheaf.core.tensor_file import encode
from sheaf.core.types import Params
from sheaf.models.unwrapping import Reading, find_state_dict, listed

SUFFIXES = (".safetensors", ".pth", ".pt", ".ckpt", ".bin", ".tar", ".th")
"""Of weights files. All but the first are read by ``torch.load(weights_only=True)``."""

IMAGENET = "imagenet"
"""Selects the published ImageNet weights of the model instead of a file."""


def load_weights(model: nn.Module, source: str, imagenet_url: str | None = None) -> list[str]:
    """Load parameters into ``model``.

    A checkpoint is unwrapped, and other floating-point types are converted. If the file's classifier (the
    last linear layer) is for another number of classes, the model keeps its own initial classifier.

    Args:
        model: is modified in place; unchanged if an error is raised.
        source: a file with one of the ``SUFFIXES``, or ``"imagenet"``.
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
    content, aliases = _read(path)
    ours = model.state_dict()
    tied = _tied(ours)
    head = _classifier(model)
    try:
        reading, notes = find_state_dict(content, ours, head, tied)
        theirs = reading.tensors
        if not _has_other_classes(head, ours, theirs):
            head = []
        notes += _check(ours, reading, head, tied)
    except WeightsError as error:
        raise WeightsError(f"weights {str(path)!r} {error}") from error
    if aliases:
        notes.append(f"lacks {listed(aliases)}, tied to other names that it has")
    state = ours | {name: theirs[name] for name in theirs if name not in head}
    load_state(model, state, reading.metadata)
    if head:
        weight = head[0]
        notes.append(
            f"is for {len(theirs[weight])} classes, the model for {len(ours[weight])}: "
            f"its classifier ({', '.join(head)}) is not loaded and starts from random values"
        )
    return [f"{path.name} {note}" for note in notes]


def load_state(
    model: nn.Module, params: Params, metadata: Mapping[str, Any] | None = None, assign: bool = False
) -> None:
    """Load a state_dict together with the versions of the modules, which some modules need.

    Args:
        model: is modified in place.
        params: the complete state_dict, as a mapping of any kind.
        metadata: the versions, by the module's name, as ``state_dict()._metadata``; None: the model's own.
        assign: see ``load_state_dict``.

    Raises:
        WeightsError: a module of the model does not accept its part.
    """
    state = OrderedDict(params)
    state._metadata = metadata or model.state_dict()._metadata  # type: ignore[attr-defined]
    try:
        model.load_state_dict(state, assign=assign)
    except Exception as error:  # modules of users may raise any
        raise WeightsError(f"{type(model).__name__}.load_state_dict fails: {first_line(error)}") from error


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


def _read(path: Path) -> tuple[Any, list[str]]:
    """Return the content of a weights file, and the names that it contains as aliases of tied tensors."""
    if not path.is_file():
        raise WeightsError(f"weights file {str(path)!r} does not exist")
    if path.suffix not in SUFFIXES:
        raise WeightsError(f"weights file {str(path)!r} must be one of {', '.join(SUFFIXES)}")
    try:
        if path.suffix != ".safetensors":
            return torch.load(path, map_location="cpu", weights_only=True), []
        with safetensors.safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
        tensors = safetensors.torch.load_file(path)
    except Exception as error:  # the unpickler raises many kinds of errors for damaged files
        reason = first_line(error)
        if "Weights only load failed" in reason:
            kind = re.search(r"GLOBAL ([\w.]+)", str(error))
            reason = (
                f"it contains objects other than tensors ({kind[1]}), which are not unpickled; "
                "save the state_dict alone: torch.save(model.state_dict(), FILE)"
                if kind
                else "it is damaged, or not a file of tensors"
            )
        raise WeightsError(f"cannot read weights {str(path)!r}: {reason}") from error
    # safetensors.torch.save_model writes one of several tied names, and the others as metadata
    aliases = {name: tensors[other] for name, other in metadata.items() if other in tensors}
    return aliases | tensors, [name for name in aliases if name not in tensors]


def _imagenet(url: str) -> Path:
    """Return the path of the ImageNet weights.

    Args:
        url: of a file, which is kept in the cache of torch hub after one download; or
            ``package:EXTRA/MODULE/PATH``, a file in a module of the optional dependency group ``EXTRA``.

    Raises:
        WeightsError: the download fails.
        MissingExtraError: the group is not installed.
    """
    if url.startswith("package:"):
        group, module, inside = url.removeprefix("package:").split("/", 2)
        return Path(extra(group, module).__file__).parent / inside
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


def _classifier(model: nn.Module) -> list[str]:
    """Return the names of the parameters of the last linear layer, the weight first."""
    linears = [(name, m) for name, m in model.named_modules() if isinstance(m, nn.Linear)]
    if not linears:
        return []
    prefix, head = linears[-1]
    return [f"{prefix}.{name}".lstrip(".") for name, _ in head.named_parameters()]


def _has_other_classes(head: list[str], ours: Params, theirs: Params) -> bool:
    """Return whether the classifiers differ in the number of classes, and in nothing else."""
    if not head or head[0] not in ours or head[0] not in theirs:
        return False
    our, their = ours[head[0]], theirs[head[0]]
    return their.dim() == 2 and len(their) != len(our) and their.shape[1:] == our.shape[1:]


def _tied(params: Params) -> list[list[str]]:
    """Return the groups of names that share one tensor."""
    groups: dict[tuple[int, torch.Size, tuple[int, ...]], list[str]] = {}
    for name, value in params.items():
        if value.numel():
            groups.setdefault((value.data_ptr(), value.shape, value.stride()), []).append(name)
    return [group for group in groups.values() if len(group) > 1]


def _check(ours: Params, reading: Reading, head: list[str], tied: Collection[Collection[str]]) -> list[str]:
    """Check names, shapes, types and values, except for the parameters in ``head``.

    Returns:
        A note for each type that is converted.

    Raises:
        WeightsError: the file is of another model or is not finite.
    """
    theirs = reading.tensors
    differences = []
    if missing := reading.misses(ours):
        differences.append(f"they lack {len(missing)} of its {len(ours)} tensors ({listed(missing)})")
    if unknown := reading.unknown(ours):
        differences.append(f"they have {len(unknown)} unknown ({listed(unknown)})")
    common = [name for name in ours if name in theirs and name not in head]
    if shapes := [
        f"{name} is {_size(theirs[name])}, not {_size(ours[name])}"
        for name in common
        if theirs[name].shape != ours[name].shape
    ]:
        differences.append(f"{len(shapes)} have another shape ({listed(shapes)})")
    if types := [
        f"{name} is {theirs[name].dtype}, not {ours[name].dtype}"
        for name in common
        if not _can_convert(theirs[name], ours[name])
    ]:
        differences.append(f"{len(types)} have another type ({listed(types)})")
    if differences:
        under = f" under {reading.label!r}" if reading.label else ""
        raise WeightsError(f"are of another model{under}: {'; '.join(differences)}")
    converted = dict.fromkeys(
        f"is {theirs[name].dtype}, the model {ours[name].dtype}: converted".replace("torch.", "")
        for name in common
        if theirs[name].dtype != ours[name].dtype
    )
    for name in common:
        theirs[name] = theirs[name].to(ours[name].dtype)
        # a constant, such as a mask, may have infinite values from the start
        if not theirs[name].isfinite().all() and not torch.equal(theirs[name], ours[name]):
            raise WeightsError(f"contain NaN or infinity in {name}")
    for first, *others in tied:
        for other in others:
            if not torch.equal(theirs[first], theirs[other]):
                raise WeightsError(f"have different values in {first} and {other}, which the model ties")
    return list(converted)


def _can_convert(their: Tensor, our: Tensor) -> bool:
    """Return whether a tensor can be converted to another's type. Only floating-point types are rounded."""
    if their.is_meta or their.is_quantized or their.layout != torch.strided:
        return False
    if their.is_floating_point() or our.is_floating_point():
        return their.is_floating_point() and our.is_floating_point()
    return their.dtype == our.dtype or torch.equal(their.to(our.dtype).to(their.dtype), their)


def _size(tensor: Tensor) -> str:
    return "x".join(map(str, tensor.shape)) or "a scalar"
