"""Parameters encoded by a codec, as differences to parameters that the receiver holds.

Only float32 parameters of two or more dimensions are encoded. Vectors, buffers and integers, such as biases
and the statistics and counters of batch norm, are sent exactly: they are few, and a variance must not become
negative. So are statistics for merges, whose names begin with a dot.

A message has one flat tensor for each type, because names and shapes follow from the model: with a tensor for
each part of each parameter, the names would take 5 % of a small model's message.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from sheaf.codecs.float32 import Float32
from sheaf.core.coding import Codec
from sheaf.core.lazy_blob import LazyBlob, TensorBlob
from sheaf.core.seeds import generator
from sheaf.core.tensor_file import Blob
from sheaf.core.types import Params
from sheaf.submodels.block_diagonal import BLOCK
from sheaf.training.network import Network


def is_exact(codec: Codec) -> bool:
    """Return whether a codec leaves parameters as they are."""
    return isinstance(codec, Float32)


def encodable(network: Network) -> frozenset[str]:
    """Return the names of the parameters that codecs encode."""
    parameters = network.model.named_parameters(remove_duplicate=False)
    return frozenset(name for name, value in parameters if value.dim() > 1 and value.dtype == torch.float32)


def layout(shapes: Params, codec: Codec, names: Collection[str]) -> dict[str, Tensor]:
    """Return the tensors of a message for parameters of these shapes, on the meta device."""
    sizes: dict[torch.dtype, int] = {}
    for piece in _pieces(shapes, codec, names):
        sizes[piece.dtype] = sizes.get(piece.dtype, 0) + math.prod(piece.shape)
    return {_group(dtype): torch.empty(size, dtype=dtype, device="meta") for dtype, size in sizes.items()}


class _Piece(NamedTuple):
    """A run of values in a message.

    Attributes:
        name: of the parameter.
        part: of its encoding; None: the parameter itself.
    """

    name: str
    part: str | None
    dtype: torch.dtype
    shape: tuple[int, ...]


def _pieces(shapes: Params, codec: Codec, names: Collection[str]) -> Iterator[_Piece]:
    """Yield the pieces of a message in the order of their values."""
    for name in sorted(shapes):
        value = shapes[name]
        if _is_encoded(name, value, names):
            for part, (dtype, shape) in codec.layout(*_matrix(value)).items():
                yield _Piece(name, part, dtype, shape)
        else:
            yield _Piece(name, None, value.dtype, tuple(value.shape))


def _group(dtype: torch.dtype) -> str:
    """Return the name of the tensor with the values of a type."""
    return str(dtype).removeprefix("torch.")


def encode(
    params: Params,
    codec: Codec,
    names: Collection[str],
    seed: int,
    base: Params | None = None,
    error: Params | None = None,
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Encode parameters.

    Args:
        params: the parameters.
        codec: their codec.
        names: those that it encodes; see ``encodable``.
        seed: of the codec's draws.
        base: parameters that the receiver holds, from which the differences are encoded; None: whole.
        error: the error of an earlier encoding, which is added to the differences; by name.

    Returns:
        The tensors of the message, and the error of each parameter if the codec has feedback.
    """
    draws = generator(seed)
    encoded: dict[str, list[Tensor]] = {}
    statistics = {name: value for name, value in params.items() if name.startswith(".")}
    errors: dict[str, Tensor] = {}
    for name in sorted(params.keys() - statistics.keys()):
        value = params[name]
        if not _is_encoded(name, value, names):
            encoded.setdefault(_group(value.dtype), []).append(value)
            continue
        difference = value if base is None else value - base[name]
        if error is not None:
            difference = difference + error[name]
        rows, columns = _matrix(value)
        matrix = difference.reshape(rows, columns)
        parts = codec.encode(matrix, draws)
        for part in codec.layout(rows, columns):
            encoded.setdefault(_group(parts[part].dtype), []).append(parts[part])
        if codec.feedback:
            errors[name] = (matrix - codec.decode(parts, rows, columns)).view(value.shape)
    flat = {name: torch.cat([value.reshape(-1) for value in values]) for name, values in encoded.items()}
    return flat | statistics, errors


class DecodedBlob(LazyBlob):
    """Parameters that are decoded when they are read.

    Args:
        encoded: the message, which may come from an attacker: it is read only if its tensors have the names,
            types and shapes that the codec gives them.
        shapes: the parameters' names, types and shapes.
        codec: the codec of the message.
        names: the parameters that it encodes; see ``encodable``.
        base: the parameters to which the message contains differences; None: whole.
    """

    def __init__(
        self, encoded: Blob, shapes: Params, codec: Codec, names: Collection[str], base: Blob | None
    ) -> None:
        # No function that refers to this object: a reference cycle would keep the journal's files.
        vars(self).update(
            encoded=encoded, shapes=shapes, codec=codec, names=names, base=base, digest=None, lease=None
        )

    def found(self) -> Blob:
        """Return the parameters."""
        return TensorBlob(self.open())

    def open(self, select: Callable[[str], bool] = lambda name: True) -> dict[str, Tensor]:
        """Decode the parameters whose names ``select`` accepts; all by default.

        Raises:
            ValueError: the message does not have the layout of its codec, or a value is not finite.
        """
        own = vars(self)
        tensors, codec = own["encoded"].open(), own["codec"]
        _check_layout(tensors, layout(own["shapes"], codec, own["names"]))
        base: Params = {} if own["base"] is None else own["base"].open(select)
        decoded = {name: value for name, value in tensors.items() if name.startswith(".") and select(name)}
        parts: dict[str, dict[str, Tensor]] = {}
        starts: dict[str, int] = {}
        for piece in _pieces(own["shapes"], codec, own["names"]):
            group = _group(piece.dtype)
            start = starts.get(group, 0)
            starts[group] = stop = start + math.prod(piece.shape)
            if not select(piece.name):
                continue
            values = tensors[group][start:stop].view(piece.shape)
            if piece.part is None:
                decoded[piece.name] = values
            else:
                parts.setdefault(piece.name, {})[piece.part] = values
        for name, of_name in parts.items():
            decoded[name] = _decode(name, of_name, own["shapes"][name], codec, base.get(name))
        return decoded

    def rows(self, name: str, start: int, stop: int) -> Tensor:
        """Return rows ``start`` to ``stop`` of one tensor; a scalar whole."""
        value = self.open(lambda other: other == name)[name]
        return value[start:stop] if value.dim() else value


def _decode(
    name: str, parts: Mapping[str, Tensor], shape: Tensor, codec: Codec, base: Tensor | None
) -> Tensor:
    """Decode one parameter. Each operation is rounded by itself, so that every machine gets the same bits."""
    try:
        value = codec.decode(parts, *_matrix(shape)).view(shape.shape)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error
    value = value if base is None else base + value
    if not value.isfinite().all():
        raise ValueError(f"{name} has values that are not finite")
    return value


def _check_layout(tensors: Params, expected: Params) -> None:
    """Check names, types and shapes of a message's tensors.

    Raises:
        ValueError: they differ.
    """
    own = {name: value for name, value in tensors.items() if not name.startswith(".")}
    if names := sorted(expected.keys() ^ own.keys()):
        raise ValueError(f"{names[0]} is {'missing' if names[0] in expected else 'no tensor of the message'}")
    for name, value in own.items():
        if value.shape != expected[name].shape or value.dtype != expected[name].dtype:
            raise ValueError(
                f"{name} is {tuple(value.shape)} {value.dtype} instead of "
                f"{tuple(expected[name].shape)} {expected[name].dtype}"
            )


def _is_encoded(name: str, value: Tensor, names: Collection[str]) -> bool:
    return (name in names or name.partition(BLOCK)[0] in names) and value.numel() > 0


def _matrix(value: Tensor) -> tuple[int, int]:
    """Return the rows and columns of a tensor as a matrix."""
    return len(value), value.numel() // len(value)
