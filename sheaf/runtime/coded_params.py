"""Parameters encoded by a codec, as differences to parameters that the receiver holds.

Only float32 parameters of two or more dimensions are encoded. Vectors, buffers and integers, such as biases
and the statistics and counters of batch norm, are sent exactly: they are few, and a variance must not become
negative. So are statistics for merges, whose names begin with a dot.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

import torch
from torch import Tensor

from sheaf.codecs.float32 import Float32
from sheaf.core.coding import Codec
from sheaf.core.lazy_blob import LazyBlob, TensorBlob
from sheaf.core.seeds import generator
from sheaf.core.tensor_file import Blob
from sheaf.core.types import Params
from sheaf.training.network import Network


def is_exact(codec: Codec) -> bool:
    """Return whether a codec leaves parameters as they are."""
    return isinstance(codec, Float32)


def encodable(network: Network) -> frozenset[str]:
    """Return the names of the parameters that codecs encode."""
    parameters = network.model.named_parameters(remove_duplicate=False)
    return frozenset(name for name, value in parameters if value.dim() > 1 and value.dtype == torch.float32)


def layout(shapes: Params, codec: Codec, names: Collection[str]) -> dict[str, Tensor]:
    """Return the encoded tensors of parameters of these shapes, on the meta device."""
    tensors = {}
    for name, value in shapes.items():
        if _is_encoded(name, value, names):
            for part, (dtype, shape) in codec.layout(*_matrix(value)).items():
                tensors[f"{name}:{part}"] = torch.empty(shape, dtype=dtype, device="meta")
        else:
            tensors[name] = value.to("meta")
    return tensors


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
        The encoded tensors, and the error of each if the codec has feedback.
    """
    draws = generator(seed)
    encoded: dict[str, Tensor] = {}
    errors: dict[str, Tensor] = {}
    for name in sorted(params):
        value = params[name]
        if not _is_encoded(name, value, names):
            encoded[name] = value
            continue
        difference = value if base is None else value - base[name]
        if error is not None:
            difference = difference + error[name]
        rows, columns = _matrix(value)
        matrix = difference.reshape(rows, columns)
        parts = codec.encode(matrix, draws)
        encoded |= {f"{name}:{part}": tensor for part, tensor in parts.items()}
        if codec.feedback:
            errors[name] = (matrix - codec.decode(parts, rows, columns)).view(value.shape)
    return encoded, errors


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
        super().__init__(lambda: TensorBlob(self.open()))
        vars(self).update(encoded=encoded, shapes=shapes, codec=codec, names=names, base=base, checked=False)

    def open(self, select: Callable[[str], bool] = lambda name: True) -> dict[str, Tensor]:
        """Decode the parameters whose names ``select`` accepts; all by default.

        Raises:
            ValueError: the message does not have the layout of its codec, or a value is not finite.
        """
        own = vars(self)
        if not own["checked"]:
            _check_layout(own["encoded"].open(), layout(own["shapes"], own["codec"], own["names"]))
            own["checked"] = True
        tensors = own["encoded"].open(lambda name: select(_owner(name, own["shapes"])))
        base: Params = {} if own["base"] is None else own["base"].open(select)
        decoded = {name: value for name, value in tensors.items() if name.startswith(".")}
        for name, shape in own["shapes"].items():
            if not select(name):
                continue
            if name in tensors:
                decoded[name] = tensors[name]
            else:
                decoded[name] = _decode(name, tensors, shape, own["codec"], base.get(name))
        return decoded

    def rows(self, name: str, start: int, stop: int) -> Tensor:
        """Return rows ``start`` to ``stop`` of one tensor; a scalar whole."""
        value = self.open(lambda other: other == name)[name]
        return value[start:stop] if value.dim() else value


def _owner(name: str, shapes: Params) -> str:
    """Return the name of the parameter to which a tensor of a message belongs."""
    return name if name in shapes else name.rpartition(":")[0] or name


def _decode(
    name: str, tensors: Mapping[str, Tensor], shape: Tensor, codec: Codec, base: Tensor | None
) -> Tensor:
    """Decode one parameter. Each operation is rounded by itself, so that every machine gets the same bits."""
    rows, columns = _matrix(shape)
    parts = {part: tensors[f"{name}:{part}"] for part in codec.layout(rows, columns)}
    try:
        value = codec.decode(parts, rows, columns).view(shape.shape)
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
    return name in names and value.numel() > 0


def _matrix(value: Tensor) -> tuple[int, int]:
    """Return the rows and columns of a tensor as a matrix."""
    return len(value), value.numel() // len(value)
