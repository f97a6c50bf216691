"""The baseline of ``fleet.py``: NVIDIA FLARE sends tensors to devices and receives them back."""

from __future__ import annotations

import json
import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from nvflare.collab import collab
from nvflare.collab.api.context import get_call_context, set_call_context

RESULT = "SHEAF_BENCHMARK"
"""The environment variable with the folder of ``plan.json``, a list of (bytes, rounds), and of the times."""


class EchoCloud:
    """Sends each device the same tensors and receives them back, round after round."""

    @collab.main  # type: ignore[untyped-decorator]
    def run(self) -> None:
        """Write the seconds of every round."""
        path = Path(os.environ[RESULT])
        seconds: dict[str, list[float]] = {}
        for size, rounds in json.loads((path / "plan.json").read_text()):
            sent = {"w": torch.rand(max(1, size // 4))}
            seconds[str(size)] = [self._round(sent) for _ in range(rounds)]
        (path / "floor.part").write_text(json.dumps(seconds))
        (path / "floor.part").replace(path / "floor.json")

    def _round(self, sent: dict[str, Any]) -> float:
        context, began = get_call_context(), time.perf_counter()

        def one(proxy: Any) -> None:
            set_call_context(context)
            back = proxy(timeout=120.0).echo(sent)
            assert back["w"].shape == sent["w"].shape

        with ThreadPoolExecutor() as pool:
            list(pool.map(one, collab.clients))
        return time.perf_counter() - began


class EchoEdge:
    """Sends back what it gets."""

    @collab.publish  # type: ignore[untyped-decorator]
    def echo(self, sent: dict[str, Any]) -> dict[str, Any]:
        """The same tensors."""
        return {name: value.contiguous() for name, value in sent.items()}
