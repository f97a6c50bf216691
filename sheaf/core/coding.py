"""The encoding of a message's parameters: the interface of a codec, and the codecs of one task."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Protocol

import torch
from pydantic import Field
from torch import Tensor

from sheaf.core.lazy_blob import LazyBlob
from sheaf.core.settings import plugin_field, settings
from sheaf.core.tensor_file import Blob

Layout = dict[str, tuple[torch.dtype, tuple[int, ...]]]
"""Names, types and shapes of the tensors in which a codec stores a matrix."""


class Codec(Protocol):
    """Encodes matrices. A tensor of a model is a matrix with a row for each entry of its first dimension.

    Attributes:
        feedback: whether an encoding omits values. Then only differences are encoded, whole models are sent
            as float32, and a device adds the error of an encoding to its next difference (error feedback).
    """

    feedback: ClassVar[bool]

    def layout(self, rows: int, columns: int) -> Layout:
        """Return the layout of an encoded matrix. It depends only on the size of the matrix."""
        ...

    def encode(self, values: Tensor, draws: torch.Generator) -> dict[str, Tensor]:
        """Encode a (rows, columns) float32 matrix; random numbers come from ``draws`` only."""
        ...

    def decode(self, parts: Mapping[str, Tensor], rows: int, columns: int) -> Tensor:
        """Return the (rows, columns) float32 matrix of an encoding that has the right layout.

        The same on every machine. The values of ``parts`` can come from an attacker.

        Raises:
            ValueError: no matrix has this encoding.
        """
        ...


AnyCodec = Annotated[Any, plugin_field("codecs"), Field(validate_default=True)]
"""A setting that names a codec: ``"int8"``, or a table ``{name = "topk", …}`` if the codec has settings."""

CallNumber = Annotated[int, Field(ge=0, lt=10**6)]


@settings
class Coding:
    """The codecs of a task's parameters and of those of its answer.

    Attributes:
        download: the codec of the task's parameters.
        base: the call with the model to which the task's parameters are differences, of those that the site
            received; from 0, which stands for whole parameters. With float32, the parameters that differ.
        digest: XXH3 of the decoded parameters, 32 hexadecimal digits; empty for whole float32.
        upload: the codec of the answer's parameters.
        reference: the call with the model to which the answer's parameters are differences; as ``base``.
        feedback: the call whose encoding error is added to the answer's difference; from 0, which stands for
            no error.
    """

    download: AnyCodec = "float32"
    base: CallNumber = 0
    digest: Annotated[str, Field(pattern=r"^([0-9a-f]{32})?$")] = ""
    upload: AnyCodec = "float32"
    reference: CallNumber = 0
    feedback: CallNumber = 0


class CodedBlob(LazyBlob):
    """Encoded parameters with the parameters that their receiver decodes.

    A site in the process of the cloud uses the decoded ones, so nothing decodes them a second time.

    Args:
        encoded: the encoded parameters, or those that differ.
        decoded: the parameters in float32.
        key: identifies the content.
    """

    def __init__(self, encoded: LazyBlob, decoded: Blob, key: str) -> None:
        super().__init__(lambda: encoded, encoded.size, key)
        vars(self)["decoded"] = decoded

    @property
    def decoded(self) -> Blob:
        """The parameters in float32."""
        blob: Blob = vars(self)["decoded"]
        return blob


def decoded_blob(blob: Blob | None) -> Blob | None:
    """Return the float32 parameters of a message that was encoded in this process."""
    return blob.decoded if isinstance(blob, CodedBlob) else blob
