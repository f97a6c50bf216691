"""Profiles of devices and links: how fast a device computes, how fast a link transfers, how much they draw.

``NAME.toml`` in this folder is a shipped profile. A file has a table ``[device]``, ``[link]`` or both.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from sheaf.core import toml
from sheaf.core.errors import SettingError, UnknownNameError, first_line
from sheaf.core.settings import parse, settings
from sheaf.profiles.shipped import FOLDER, shipped_profiles

DEFAULT_LINK = "ethernet"
"""The link of a device whose name and file give none."""

Precision = Literal["float32", "bfloat16"]
Amount = Annotated[float, Field(gt=0)]
Watts = Annotated[float, Field(ge=0)]
Seconds = Annotated[float, Field(ge=0)]


@settings
class DeviceProfile:
    """The speed, memory and power of a device.

    Attributes:
        macs_per_second: precision (``float32``, ``bfloat16``) -> multiply-adds per second that training
            reaches, above 0; ``float32`` is required, and stands for a precision that is missing. Forward
            passes run at the same speed.
        memory: bytes that training can use, above 0.
        watts_idle: power of the idle device, at least 0; None: unknown, and so are its joules.
        watts_busy: power while it computes, at least 0; None: unknown.
    """

    macs_per_second: dict[Precision, Amount]
    memory: Amount
    watts_idle: Watts | None = None
    watts_busy: Watts | None = None

    def __post_init__(self) -> None:
        if "float32" not in self.macs_per_second:
            raise ValueError("macs_per_second needs float32, as in macs_per_second = { float32 = 5e9 }")

    def speed(self, precision: str) -> float:
        """Return the multiply-adds per second; ``auto`` is bfloat16 if the device has it."""
        speeds = self.macs_per_second
        return speeds["float32"] if precision == "float32" else speeds.get("bfloat16", speeds["float32"])


@settings
class LinkProfile:
    """The bandwidth, delay, loss and power of a device's link to the cloud.

    Attributes:
        up: bytes per second from the device to the cloud, above 0.
        down: bytes per second from the cloud to the device, above 0.
        delay_up: seconds that a message to the cloud takes beside its bytes, at least 0.
        delay_down: the same for a message to the device.
        loss: fraction of the packets that are lost and sent again, at least 0 and below 1.
        watts_sending: power while the device sends, beyond its idle power, at least 0.
        watts_receiving: power while the device receives, beyond its idle power, at least 0.
    """

    up: Amount
    down: Amount
    delay_up: Seconds = 0.0
    delay_down: Seconds = 0.0
    loss: Annotated[float, Field(ge=0, lt=1)] = 0.0
    watts_sending: Watts = 0.0
    watts_receiving: Watts = 0.0

    def seconds_up(self, size: int) -> float:
        """Return the duration of a message of ``size`` bytes to the cloud; lost packets are sent again."""
        return self.delay_up + size / (self.up * (1 - self.loss))

    def seconds_down(self, size: int) -> float:
        """Return the duration of a message of ``size`` bytes to the device."""
        return self.delay_down + size / (self.down * (1 - self.loss))


@settings
class ProfileFile:
    """The content of a profile's file.

    Attributes:
        title: a description of one line.
        device: the device, if the file describes one.
        link: the link, if the file describes one.
        sources: key -> where its figure comes from: measured, from a data sheet, or derived and how.
    """

    title: str = ""
    device: DeviceProfile | None = None
    link: LinkProfile | None = None
    sources: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Profile:
    """A device with its link.

    Attributes:
        name: as the settings name it, ``DEVICE+LINK``.
        device: the device.
        link: its link; None for the cloud, which sends itself nothing.
    """

    name: str
    device: DeviceProfile
    link: LinkProfile | None

    @property
    def watts_idle(self) -> float | None:
        """Power of the idle device; None if either power of the device is unknown."""
        return None if self.device.watts_busy is None else self.device.watts_idle

    def joules(self, download: float, work: float, upload: float) -> float | None:
        """Return the energy of a task from the durations of its steps, or None if it is unknown."""
        device, link = self.device, self.link
        if device.watts_idle is None or device.watts_busy is None:
            return None
        joules = device.watts_idle * (download + upload) + device.watts_busy * work
        return (
            joules
            if link is None
            else (joules + link.watts_receiving * download + link.watts_sending * upload)
        )


def read_profile(source: str) -> ProfileFile:
    """Read a profile.

    Args:
        source: the name of a shipped profile, or a TOML file.

    Raises:
        UnknownNameError: neither a shipped profile nor a file.
        SettingError: the file is not TOML, or a key or value is wrong.
    """
    shipped = FOLDER / f"{source}.toml"
    path = shipped if "/" not in source and shipped.exists() else Path(source)
    try:
        table = toml.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UnknownNameError("profile", source, shipped_profiles()) from error
    except (OSError, UnicodeDecodeError, toml.DecodeError) as error:
        raise SettingError(f"{path} cannot be read as TOML: {first_line(error)}") from error
    try:
        return parse(ProfileFile, table)
    except SettingError as error:
        raise SettingError(f"{path}: {error}") from error


def find_profile(name: str) -> Profile:
    """Return the profile ``DEVICE``, or ``DEVICE+LINK``; each is a shipped name or a TOML file.

    Without a link, it is that of the device's file, or ``DEFAULT_LINK``.

    Raises:
        UnknownNameError: neither a shipped profile nor a file.
        SettingError: a file is wrong, or it has no such table.
    """
    device_name, plus, link_name = name.partition("+")
    device_file = read_profile(device_name)
    if device_file.device is None:
        raise SettingError(f"profile {device_name!r} has no [device]; write DEVICE or DEVICE+LINK")
    if not plus and device_file.link is not None:
        return Profile(name, device_file.device, device_file.link)
    link = read_profile(link_name if plus else DEFAULT_LINK).link
    if link is None:
        raise SettingError(f"profile {link_name!r} has no [link]; write DEVICE+LINK, as in {device_name}+lte")
    return Profile(name, device_file.device, link)
