"""The cloud's checks of updates: forged headers, tensors and samples are refused."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from device_rig import SHAPE, Rig, Tamper, absent, samples, theta, train
from safetensors.torch import save

from sheaf.core.dataset import Samples
from sheaf.core.recipe import Share
from sheaf.core.task import Cost, Task, Update
from sheaf.core.tensor_file import Blob
from sheaf.fleets.remote.device import describe


def forged(change: Callable[[dict[str, Any], dict[str, Any]], None]) -> Tamper:
    """Changes a device's update: (header, header of its tensors)."""

    def tamper(kind: str, header: dict[str, Any], content: bytes) -> tuple[dict[str, Any], bytes]:
        if header.get("answer") and "metrics" in header["answer"]:
            change(header["answer"], header.get("blob") or {})
            return header, b""
        return header, content

    return tamper


def replaced(change: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor] | bytes]) -> Tamper:
    """Replaces a device's tensors, with matching hashes."""
    encoded = b""

    def tamper(kind: str, header: dict[str, Any], content: bytes) -> tuple[dict[str, Any], bytes]:
        nonlocal encoded
        if header.get("blob"):
            tensors = change(dict(theta()))
            encoded = tensors if isinstance(tensors, bytes) else save(tensors)
            blob = Blob(encoded, hashlib.sha256(encoded).hexdigest(), len(encoded))
            update = Update("left", header["answer"]["kind"], blob, (), {}, Cost())
            header["blob"] = describe(update, encoded).model_dump()
            return header, b""
        if kind == "get":
            return {}, encoded
        return header, content

    return tamper


@pytest.mark.parametrize(
    ("tamper", "message"),
    [
        (forged(lambda answer, blob: blob.update(size=10**10)), "update of 1e+04 MB exceeds the maximum"),
        (
            forged(lambda answer, blob: blob.update(sha256="0" * 64)),
            "no update has tensors with the hash",
        ),
        (forged(lambda answer, blob: answer.update(site="right")), "update is of 'right' for 'train'"),
        (
            forged(lambda answer, blob: answer.update(kind="share")),
            "expected 'left' for 'train'",
        ),
        (forged(lambda answer, blob: answer.update(counts=[1, 2])), "counts of 2 classes, expected 3"),
        (forged(lambda answer, blob: answer.update(counts=[-1, 2, 3])), "counts.0"),
        (forged(lambda answer, blob: answer.update(run="rm")), "malformed message: run"),
        (forged(lambda answer, blob: answer["cost"].update(seconds=-1.0)), "cost.seconds"),
        (replaced(lambda own: b"not tensors"), "update's tensors cannot be read"),
        (replaced(lambda own: b"\xff" * 8 + b"{}"), "update's tensors cannot be read"),
    ],
)
def test_a_forged_update_is_refused_and_the_other_one_is_used(
    tmp_path: Path, tamper: Tamper, message: str
) -> None:
    results = Rig(tmp_path, tamper={"left": tamper}).run(train())
    assert message in absent(results["left"])
    assert isinstance(results["right"], Update)


@pytest.mark.parametrize(
    ("shared", "message"),
    [
        (samples(1, 40), "40 shared samples exceed the maximum of 27"),
        (replace(samples(1, 4), targets=torch.tensor([0, 1, 2, 3])), "labels outside of 0 to 2"),
        (Samples.of(torch.zeros(4, 1, 5, 5, dtype=torch.uint8), torch.zeros(4).long()), "(1, 5, 5)"),
        (Samples.of(torch.zeros(4, *SHAPE), torch.zeros(4).long()), "float32"),
    ],
)
def test_impossible_samples_are_refused(tmp_path: Path, shared: Samples, message: str) -> None:
    tamper = replaced(lambda _: {"inputs": shared.inputs, "labels": shared.labels})
    rig = Rig(tmp_path, tamper={"left": tamper})
    results = rig.run(Task("share", 1, 5, share=Share(fraction=1.0)))
    assert message in absent(results["left"])
    assert [file.edge for file in rig.pool.files()] == ["right"]
