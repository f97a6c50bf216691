"""Which device and link each edge of a simulated fleet has."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from pydantic import Field

from sheaf.core.errors import SettingError, UnknownNameError
from sheaf.core.seeds import seed_for
from sheaf.core.settings import plain, settings
from sheaf.core.types import CLOUD
from sheaf.profiles.presence import Presence, read_trace
from sheaf.profiles.profile import Profile, find_profile

Amount = Annotated[float, Field(gt=0)]


@settings
class DevicesSettings:
    """The keys under ``[fleet.devices]``: the devices that the edges of one process stand for.

    With them, the run has a virtual clock: each task takes the seconds and joules of its device and its link.
    A profile is ``DEVICE`` or ``DEVICE+LINK``, where each is a shipped name (``sheaf list profiles``) or a
    TOML file; a device without a link is on Ethernet. Ignored on a real fleet.

    Attributes:
        edges: edge -> its profile.
        mix: profile -> its weight, above 0; the profiles of the other edges are drawn from these.
        cloud: the profile of the cloud, which has no link.
        jitter: standard deviation of the logarithm of each duration, at least 0 and at most 1.
        trace: a CSV file with the columns device, seconds and state (``on`` or ``off``): when devices leave
            and return. None: see ``on``.
        on: mean seconds that a device stays connected, at least 0; the durations are exponential. 0: devices
            are always connected.
        off: mean seconds that a device stays away, above 0.
        evaluation: whether evaluations and the collection of the final models, which serve only the record,
            take time and energy.
    """

    edges: dict[str, str] = field(default_factory=dict)
    mix: dict[str, Amount] = field(default_factory=dict)
    cloud: str = "cloud-gpu"
    jitter: Annotated[float, Field(ge=0, le=1)] = 0.1
    trace: str | None = None
    on: Annotated[float, Field(ge=0)] = 0.0
    off: Amount = 600.0
    evaluation: bool = True

    def __post_init__(self) -> None:
        if self.trace is not None and self.on:
            raise ValueError("trace and on are both set; remove one of them")


@dataclass(frozen=True)
class Devices:
    """The devices of a simulated fleet.

    Attributes:
        profiles: site, the cloud included -> its profile.
        presence: when edges are connected.
        settings: from which they come.
        digest: hash of the content of the profiles and of the trace, which files can change.
    """

    profiles: dict[str, Profile]
    presence: Presence
    settings: DevicesSettings
    digest: str = ""


def assign_devices(given: DevicesSettings, sites: Collection[str], seed: int) -> Devices:
    """Return the device of each edge, and that of the cloud.

    Args:
        given: names and mix of the profiles.
        sites: names of the edges.
        seed: of the run; it draws profiles from the mix, and the on/off trace.

    Raises:
        UnknownNameError: a profile or an edge does not exist.
        SettingError: a file is wrong, or an edge has no profile.
    """
    for site in given.edges:
        if site not in sites:
            raise UnknownNameError("edge", site, sites)
    without = [site for site in sites if site not in given.edges]
    if without and not given.mix:
        raise SettingError(
            f"fleet.devices gives {without[0]} no profile; add it to fleet.devices.edges, or set "
            "fleet.devices.mix, as in mix = { 'raspberry-pi-4+lte' = 1 }"
        )
    names = dict(given.edges)
    for site in without:
        draws = random.Random(seed_for(seed, "device", site))
        (names[site],) = draws.choices(list(given.mix), list(given.mix.values()))
    found = {name: find_profile(name) for name in {*names.values(), *given.mix}}
    profiles = {site: found[names[site]] for site in sites}
    cloud = find_profile(given.cloud)
    profiles[CLOUD] = Profile(cloud.name, cloud.device, None)
    changes = {} if given.trace is None else read_trace(Path(given.trace), sites)
    content = [plain([profile.device, profile.link]) for profile in profiles.values()]
    digest = hashlib.sha256(repr((content, sorted(changes.items()))).encode()).hexdigest()
    return Devices(profiles, Presence(changes, given.on, given.off, seed), given, digest)
