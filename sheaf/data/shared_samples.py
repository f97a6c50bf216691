"""The encoding of samples that an edge shares: image files where these are smaller, tensors otherwise.

A JPEG or PNG file leaves the edge as it is on the disk, but without metadata, if its decoding gives the bits
of the edge's sample. The receiver decodes it by the same function and compares a hash of all samples, because
another version of Pillow may give other pixels.

A message with files has the tensors ``inputs`` (the samples that are sent as tensors, in their order),
``labels`` (N), ``lengths`` (N: the bytes of each sample's file; 0: it is in ``inputs``), ``files`` (their
bytes, one after another) and ``digest`` (XXH3 of all N decoded samples). A message without files is that of
``encode_samples``.
"""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import torch
import xxhash
from torch import Tensor

from sheaf.core.dataset import Samples
from sheaf.core.errors import DataError
from sheaf.core.tensor_file import Blob, encoded_size
from sheaf.core.wire_format import decode_samples, encode_samples
from sheaf.data.readers.decode import THREADS
from sheaf.data.readers.image_metadata import strip_metadata
from sheaf.data.readers.images import Pixels, decode_image, image_size, pillow_warnings_ignored
from sheaf.data.settings import DataSettings

METADATA = 2**17
"""Bytes by which a file may exceed its sample's tensor before its metadata are removed."""
ENLARGED = 64
"""Maximum number of an image's pixels for each pixel that it is resized to."""

Shape = tuple[int, int, int]


def encode_shared(samples: Samples, bits: int | None, *, originals: bool = True) -> Blob:
    """Encode the samples, each as its file or as its tensor.

    Args:
        samples: N samples. Their tensors decide: a file that decodes to other pixels is not used.
        bits: bits per channel from which images of more than 8 are scaled; see ``DataSettings``.
        originals: also use the files of images that were resized or made grey, of which more than the sample
            leaves the edge.
    """
    channels, rows, columns = samples.inputs.shape[1:]
    if samples.read_file is None or samples.inputs.dtype != torch.uint8 or channels not in (1, 3):
        return encode_samples(samples)

    def usable(position: int) -> bytes:
        """Return the file of a sample without its metadata; empty if the tensor is to be sent."""
        if not (content := smaller_file(samples, position)):
            return b""
        try:
            pixels = decode_file(content, (channels, rows, columns), bits, convert=originals)
        except (ValueError, DataError):
            return b""
        return content if np.array_equal(pixels, samples.inputs[position].numpy()) else b""

    with ThreadPoolExecutor(THREADS) as threads:
        files = list(threads.map(usable, samples.positions.tolist()))
    if not any(files):
        return encode_samples(samples)
    lengths = torch.tensor([len(content) for content in files], dtype=torch.int32)
    tensors = {
        "inputs": samples.inputs[samples.positions[lengths == 0]],
        "labels": samples.labels,
        "lengths": lengths,
        "files": torch.frombuffer(bytearray(b"".join(files)), dtype=torch.uint8),
        "digest": _digest(samples.inputs[samples.positions]),
    }
    plain = {"inputs": samples.inputs[samples.positions], "labels": samples.labels}
    return Blob.of(tensors if encoded_size(tensors) < encoded_size(plain) else plain)


def smaller_file(samples: Samples, position: int) -> bytes:
    """Return the file of an example without its metadata; empty if it is not smaller than the tensor."""
    assert samples.read_file is not None
    nbytes = samples.inputs[:1].nbytes
    try:
        content = strip_metadata(samples.read_file(position, nbytes + METADATA))
    except ValueError:
        return b""
    return content if len(content) < nbytes else b""


def decode_shared(blob: Blob, shape: Shape, bits: int | None) -> Samples:
    """Decode the samples from ``encode_shared``.

    Args:
        blob: may come from an attacker.
        shape: (C, H, W) of a sample.
        bits: as in ``encode_shared``.

    Raises:
        DataError: the blob is malformed, or a file decodes to other pixels than on the edge.
    """
    tensors = blob.open()
    if "files" not in tensors:
        return decode_samples(blob)
    files, inputs = _split(tensors, shape), torch.empty((len(tensors["labels"]), *shape), dtype=torch.uint8)
    is_file = tensors["lengths"] > 0
    inputs[~is_file] = tensors["inputs"]

    def decode(number: int) -> None:
        try:
            inputs[number] = torch.from_numpy(decode_file(files[number], shape, bits).copy())
        except (ValueError, DataError) as error:
            raise DataError(f"shared image {number + 1} of {len(files)}: {error}") from error

    with ThreadPoolExecutor(THREADS) as threads:
        list(threads.map(decode, is_file.nonzero()[:, 0].tolist()))
    if not torch.equal(_digest(inputs), tensors["digest"]):
        raise DataError(
            "the shared image files decode to other pixels than on the edge; install the same version of "
            "Pillow on both, or set [share] files = 'none' in the device's edge.toml to share tensors"
        )
    return Samples.of(inputs, tensors["labels"])


def shared_files(blob: Blob) -> list[bytes]:
    """Return the N files in a blob that ``decode_shared`` accepts; empty for a sample that is a tensor."""
    tensors = blob.open(lambda name: name != "inputs")
    if "files" not in tensors:
        return [b""] * len(tensors["labels"])
    return _files(tensors)


def decode_file(content: bytes, shape: Shape, bits: int | None, *, convert: bool = True) -> Pixels:
    """Decode the file of a shared sample to (C, H, W), or to its own shape without ``convert``.

    Raises:
        ValueError: the file has metadata, or is not JPEG or PNG, or has too many pixels for the shape.
        DataError: it cannot be decoded.
    """
    channels, rows, columns = shape
    if strip_metadata(content) != content:
        raise ValueError("it has metadata, which an edge removes")
    with pillow_warnings_ignored():
        height, width = image_size(content) or (0, 0)
    if height * width > ENLARGED * rows * columns:
        raise ValueError(
            f"its {height}x{width} pixels exceed {ENLARGED} times the {rows}x{columns} of a sample"
        )
    form = DataSettings(name="", size=(rows, columns), channels=1 if channels == 1 else 3, bits=bits)
    return decode_image("it", content, form if convert else replace(form, size=None, channels=None))


def _split(tensors: dict[str, Tensor], shape: Shape) -> list[bytes]:
    """Return the files of a message after checking its tensors.

    Raises:
        DataError: names, types, shapes or lengths are wrong.
    """
    names = {"inputs", "labels", "lengths", "files", "digest"}
    if tensors.keys() != names:
        raise DataError(f"shared samples have the tensors {sorted(tensors)} instead of {sorted(names)}")
    lengths, files = tensors["lengths"], tensors["files"]
    count = len(tensors["labels"]) if tensors["labels"].dim() == 1 else -1
    layout = [(lengths, torch.int32, (count,)), (files, torch.uint8, (files.numel(),))]
    layout += [(tensors["digest"], torch.uint8, (16,))]
    if any(tensor.dtype != dtype or tensor.shape != size for tensor, dtype, size in layout):
        raise DataError("the lengths, files or digest of shared samples have a wrong type or shape")
    largest = math.prod(shape)
    if count and not (0 <= int(lengths.min()) <= int(lengths.max()) < largest):
        raise DataError(f"a shared file is not smaller than its sample, which has {largest} bytes")
    if int(lengths.sum()) != len(files):
        raise DataError(f"shared files have {len(files)} bytes instead of {int(lengths.sum())}")
    expected = (int((lengths == 0).sum()), *shape)
    if tuple(tensors["inputs"].shape) != expected or tensors["inputs"].dtype != torch.uint8:
        raise DataError(
            f"shared samples are {tuple(tensors['inputs'].shape)} {tensors['inputs'].dtype}, "
            f"not {expected} {torch.uint8}"
        )
    return _files(tensors)


def _files(tensors: dict[str, Tensor]) -> list[bytes]:
    content, stops = tensors["files"].numpy().tobytes(), tensors["lengths"].cumsum(0).tolist()
    return [content[start:stop] for start, stop in zip([0, *stops], stops, strict=False)]


def _digest(inputs: Tensor) -> Tensor:
    digest = xxhash.xxh3_128_digest(inputs.contiguous().numpy().data)
    return torch.frombuffer(bytearray(digest), dtype=torch.uint8)
