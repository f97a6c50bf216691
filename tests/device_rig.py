"""A remote fleet whose devices run in the test's own process, over a link that tests can disturb."""

from __future__ import annotations

import functools
import json
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from sheaf.core.dataset import Samples
from sheaf.core.recipe import Recipe
from sheaf.core.seeds import generator
from sheaf.core.task import Absence, Task, Update
from sheaf.core.tensor_file import Blob
from sheaf.core.types import Params
from sheaf.data.device_data import save_device_data
from sheaf.fleets.remote.device import EdgeSite
from sheaf.fleets.remote.device_settings import EdgeFile, ShareSettings
from sheaf.fleets.remote.fleet import RemoteFleet
from sheaf.fleets.remote.link import LinkDownError, LinkError
from sheaf.fleets.remote.messages import DataForm, Setup
from sheaf.fleets.remote.sample_pool import Pool
from sheaf.models.build import ModelSettings, build_model

SHAPE = (1, 4, 4)
CLASSES = ("a", "b", "c")
SITES = ("left", "right")
SHARES_ALL = EdgeFile(share=ShareSettings(max_fraction=1.0))
Tamper = Callable[[str, dict[str, Any], bytes], tuple[dict[str, Any], bytes]]
"""(kind of the message, header and payload of the reply) -> the reply that the fleet receives."""


def samples(seed: int, count: int = 30) -> Samples:
    inputs = torch.randint(256, (count, *SHAPE), generator=generator(seed), dtype=torch.uint8)
    return Samples.of(inputs, torch.arange(count) % 3)


class FakeLink:
    """A link to devices in this process.

    Args:
        tamper: site -> function that changes its replies.

    Attributes:
        sent: (site, kind, header, payload size) of each message.
        dead: sites that do not reply.
        gone: sites that are not connected.
        down: number of messages for which the cloud's side of the link fails.
    """

    def __init__(self, sites: Mapping[str, EdgeSite], tamper: Mapping[str, Tamper] | None = None) -> None:
        self.sites = dict(sites)
        self.tamper = dict(tamper or {})
        self.sent: list[tuple[str, str, dict[str, Any], int]] = []
        self.dead: set[str] = set()
        self.gone: set[str] = set()
        self.down = 0
        self.job = 0

    def gather(self, sites: Sequence[str]) -> set[str]:
        return {site for site in sites if site in self.sites and site not in self.gone}

    def call(
        self, site: str, kind: str, header: Mapping[str, Any], payload: bytes, timeout: float
    ) -> tuple[dict[str, Any], bytes]:
        self.sent.append((site, kind, dict(header), len(payload)))
        if self.down:
            self.down -= 1
            raise LinkDownError("the relay is gone")
        if site in self.dead:
            raise LinkError("no answer")
        reply, content = self.sites[site].handle(kind, json.dumps(header).encode(), payload)
        return self.tamper.get(site, lambda _, *same: same)(kind, json.loads(reply), content)

    def lose(self, site: str) -> None:
        self.gone.add(site)


class Rig:
    """A fleet of two devices, each with 30 samples in its folder, or with the images of ``pictures``."""

    def __init__(
        self,
        folder: Path,
        own: Mapping[str, EdgeFile] | None = None,
        tamper: Mapping[str, Tamper] | None = None,
        deadline: float = 20.0,
        setup: Mapping[str, Any] | None = None,
        pictures: Path | None = None,
        shape: tuple[int, int, int] = SHAPE,
    ) -> None:
        sites = {}
        for number, site in enumerate(SITES):
            (folder / site).mkdir(parents=True, exist_ok=True)
            save_device_data(folder / site / "own.safetensors", samples(number), samples(9, 6), CLASSES)
            file = (own or {}).get(site, SHARES_ALL)
            data = pictures or folder / site / "own.safetensors"
            sites[site] = EdgeSite(site, data, file, folder / site / "state")
        self.link = FakeLink(sites, tamper)
        run = {"model": "mlp", "options": {"hidden": 8}, "held_out": 0.1, "form": DataForm()}
        run |= {"run": uuid.uuid4().hex} | dict(setup or {})
        self.setup = Setup(
            seed=3,
            classes=list(CLASSES),
            shape=shape,
            mean=[0.5] * shape[0],
            std=[0.25] * shape[0],
            **run,  # type: ignore[arg-type]
        )
        self.steps: list[tuple[str, int]] = []
        self.pool = Pool(folder / "pool")
        self.folder = folder
        self.fleet = RemoteFleet(
            SITES,
            self.link,
            self.setup,
            lambda _: Blob.of(theta()).size,
            (shape, torch.uint8),
            deadline,
            folder / "incoming",
            lambda site, done, *_: self.steps.append((site, done)),
            self.pool.add,
        )

    def run(self, task: Task) -> dict[str, Update | Absence]:
        return {result.site: result for result in self.fleet.run(dict.fromkeys(SITES, task))}


@functools.cache
def theta() -> Params:
    return build_model(ModelSettings(name="mlp", options={"hidden": 8}), 3, SHAPE, 1).state_dict()


def train(call: int = 1, **changes: Any) -> Task:
    return replace(Task("train", call, 5, Blob.of(theta()), Recipe(epochs=2, batch_size=8)), **changes)


def absent(result: Any) -> str:
    """The reason of an absence."""
    assert isinstance(result, Absence), result
    assert "\n" not in result.why
    return result.why
