"""A device's record of its samples over all runs: which are held out, and which have left the device.

Samples are identified by a hash of their content, so that files can be renamed, added and removed.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import safetensors
import torch
from safetensors import SafetensorError
from safetensors.numpy import save
from torch import Tensor

from sheaf.core.atomic_io import write_durably
from sheaf.core.dataset import Samples
from sheaf.core.errors import DataError, FleetError
from sheaf.core.recipe import Share
from sheaf.data.held_out import hold_out
from sheaf.data.sample_selection import number_to_send, within_allowance
from sheaf.fleets.remote.device_settings import ShareSettings

Digests = npt.NDArray[np.uint64]

SAMPLES = "samples.safetensors"
"""The file of the split: hashes, and whether each is held out."""

SHARED = "shared.txt"
"""The file of the samples that have left the device, one hash per line."""

HASH = re.compile("[0-9a-f]{32}")
"""A line of that file, from ``content_hash``."""


@dataclass(frozen=True)
class Allowance:
    """How many distinct samples may leave a device, over all runs.

    Attributes:
        samples: number that the device has, or has had.
        held_out: number of these that are held out, which never leave.
        allowed: number that ``[share]`` allows to leave.
        used: number that have left.
    """

    samples: int
    held_out: int
    allowed: int
    used: int

    @property
    def left(self) -> int:
        """The number of further samples that may leave."""
        return max(0, self.allowed - self.used)


class SampleRecord:
    """The durable record of one device.

    A sample that was held out in one run is held out in all later ones, and so is its copy under another
    name. The first run draws the held-out samples as a run in one process does; later, the hash of a new
    sample decides. Only a change of ``[edge] held_out`` moves known samples.

    Args:
        folder: the device's folder.

    Raises:
        FleetError: a file of the record is damaged.
    """

    def __init__(self, folder: Path) -> None:
        self._split_file, self._shared_file = folder / SAMPLES, folder / SHARED
        self._shared = self._read_shared()
        self._digests = np.zeros(0, np.uint64)  # sorted
        self._since = np.zeros(0, np.int32)  # 0: training; else the draw in which it was held out
        self._draws, self._fraction, self._sample_bytes = 0, 0.0, 0
        self._own = np.zeros(0, np.uint64)  # of the current run's training samples, in their order
        if self._split_file.exists():
            self._read()

    def split(
        self, samples: Samples, fraction: float, seed: int, *, by_owner: bool
    ) -> tuple[Samples, Samples]:
        """Split a device's samples into (training part, held-out part), and record the split.

        Args:
            samples: all N samples of the device, without the test samples.
            fraction: of the samples to hold out, in [0, 1).
            seed: of the first draw.
            by_owner: the fraction is that of ``edge.toml``: if it has changed, known samples are moved.

        Raises:
            DataError: the training part is empty.
        """
        each = digests(samples)
        own, inverse = np.unique(each, return_inverse=True)
        since = self._known(own, fraction)
        if not self._draws:
            self._draws, self._fraction = 1, fraction
            if not self._shared:
                _, held = hold_out(samples, fraction, seed)
                training = ~np.isin(samples.positions.numpy(), held.positions.numpy())
                since[:] = 1
                since[inverse[training]] = 0
        elif by_owner and fraction != self._fraction:
            self._draws, self._fraction = self._draws + 1, fraction
            self._move(own, since, fraction)
        held_out = since[inverse] > 0
        if held_out.all():
            raise DataError(
                f"held_out = {fraction:g} holds out {len(samples)} of {len(samples)} samples and "
                "leaves none to train on; lower it or add samples"
            )
        self._own = each[~held_out]
        self._sample_bytes = samples.inputs[:1].nbytes + samples.targets[:1].nbytes
        self._write(own, since)
        mask = torch.from_numpy(held_out)
        return samples.select(~mask), samples.select(mask)

    def fair(self, held_out: Samples, draw: int) -> Samples:
        """Return the held-out samples on which no model of draw ``draw`` or later was trained."""
        since = self._known(digests(held_out), 0.0)
        return held_out.select(torch.from_numpy(since <= draw))

    @property
    def draw(self) -> int:
        """The number of times that the split was drawn: 1, and 1 more for each change by the owner."""
        return self._draws

    def allowance(self, limits: ShareSettings) -> Allowance:
        """Return the numbers of samples that may leave the device, that have left, and that it has."""
        shared = self._shared_digests()
        samples = len(np.union1d(self._digests, shared))
        allowed = round(limits.max_fraction * samples)
        if limits.max_mb is not None and self._sample_bytes:
            allowed = min(allowed, int(limits.max_mb * 1e6) // self._sample_bytes)
        return Allowance(samples, int((self._since > 0).sum()), allowed, len(shared))

    def check(self, share: Share, training: Samples, limits: ShareSettings) -> None:
        """Check that the samples of a share task may leave; those that have left before count no more.

        Args:
            training: the current run's training samples.

        Raises:
            FleetError: they may not.
        """
        count, allowance = number_to_send(training, share), self.allowance(limits)
        shared = np.isin(self._own, self._shared_digests())
        new = len(np.unique(self._own[~shared]))
        if count <= int(shared.sum()) + allowance.left or new <= allowance.left:
            return
        limit = f"max_fraction = {limits.max_fraction:g} ({100 * limits.max_fraction:.4g} %)"
        if limits.max_mb is not None:
            limit += f" and max_mb = {limits.max_mb:g}"
        raise FleetError(
            f"sharing {100 * share.fraction:.4g} % of its samples ({count:,}) exceeds [share] {limit}: "
            f"{allowance.allowed:,} of its {allowance.samples:,} samples may leave it over all runs, "
            f"{allowance.used:,} have left; set a smaller method.share in the experiment, or raise the limit "
            "in the device's edge.toml"
        )

    def may_leave(self, order: Tensor, limits: ShareSettings) -> Tensor:
        """Return ``order`` without the samples that would exceed the allowance.

        Args:
            order: indices of training samples, the most wanted first.
        """
        shared = self._shared_digests()
        return within_allowance(order, self._own, shared, self.allowance(limits).left)

    def record_shared(self, samples: Samples, limits: ShareSettings) -> None:
        """Record the samples of an update, durably, before it is sent.

        Raises:
            FleetError: they exceed the allowance; nothing is recorded.
        """
        shared = self._shared | {content_hash(samples.inputs[position]) for position in samples.positions}
        new = len(shared) - len(self._shared)
        if new > (left := self.allowance(limits).left):
            raise FleetError(f"{new} new samples exceed the {left} that [share] still allows to leave")
        write_durably(self._shared_file, "\n".join(sorted(shared)).encode())
        self._shared = shared

    def _known(self, own: Digests, fraction: float) -> npt.NDArray[np.int32]:
        """Return since when each of the samples is held out; for new ones, their hash decides."""
        place = np.minimum(np.searchsorted(self._digests, own), max(0, len(self._digests) - 1))
        known = self._digests[place] == own if len(self._digests) else np.zeros(len(own), bool)
        new = ((own / 2.0**64 < fraction) & ~np.isin(own, self._shared_digests())).astype(np.int32)
        return np.where(known, self._since[place], new) if len(self._digests) else new

    def _move(self, own: Digests, since: npt.NDArray[np.int32], fraction: float) -> None:
        """Move samples, in the order of their hashes, until ``fraction`` of them is held out; in place."""
        excess = int((since > 0).sum()) - round(fraction * len(own))
        if excess > 0:
            since[np.flatnonzero(since > 0)[-excess:]] = 0
        elif excess < 0:
            movable = np.flatnonzero((since == 0) & ~np.isin(own, self._shared_digests()))
            since[movable[:-excess]] = self._draws

    def _shared_digests(self) -> Digests:
        return np.array(sorted(int(text[:16], 16) for text in self._shared), np.uint64)

    def _read_shared(self) -> set[str]:
        if not self._shared_file.exists():
            return set()
        shared = set(self._shared_file.read_text(errors="replace").split())
        if damaged := [text for text in shared if not HASH.fullmatch(text)]:
            raise FleetError(
                f"{self._shared_file} is damaged: {damaged[0][:40]!r} is no hash of 32 hexadecimal digits; "
                "restore it from a backup, or remove it to start a new allowance"
            )
        return shared

    def _read(self) -> None:
        try:
            with safetensors.safe_open(self._split_file, "np") as file:
                self._digests, self._since = file.get_tensor("digests"), file.get_tensor("since")
                metadata = file.metadata()
                self._draws, self._sample_bytes = int(metadata["draws"]), int(metadata["sample_bytes"])
                self._fraction = float(metadata["fraction"])
        except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
            raise FleetError(
                f"{self._split_file} is damaged ({error}); remove it to draw the held-out samples again"
            ) from error

    def _write(self, own: Digests, since: npt.NDArray[np.int32]) -> None:
        """Add the samples to the record, and write it durably."""
        absent = ~np.isin(self._digests, own)  # keeps samples that the device no longer has
        all_digests = np.concatenate([self._digests[absent], own])
        order = np.argsort(all_digests)
        all_since = np.concatenate([self._since[absent], since])[order]
        self._digests, self._since = all_digests[order], all_since
        metadata = {
            "draws": str(self._draws),
            "fraction": repr(self._fraction),
            "sample_bytes": str(self._sample_bytes),
        }
        write_durably(self._split_file, save({"digests": self._digests, "since": self._since}, metadata))


def digests(samples: Samples) -> Digests:
    """Return the first 64 bits of the ``content_hash`` of each of the N samples: (N,)."""
    return np.array(
        [int(content_hash(samples.inputs[position])[:16], 16) for position in samples.positions], np.uint64
    )


def content_hash(sample: Tensor) -> str:
    """Return the BLAKE2b hash of a sample's input, 128 bits in hexadecimal."""
    return hashlib.blake2b(sample.contiguous().numpy().tobytes(), digest_size=16).hexdigest()
