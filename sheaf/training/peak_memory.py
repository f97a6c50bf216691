"""Measured peak memory of what a site does."""

from __future__ import annotations

from pathlib import Path

import psutil
import torch


class PeakMemory:
    """Measures the peak memory of a block, in bytes.

    On CUDA: what torch had allocated on the device at most. Elsewhere: the largest resident memory of the
    process during the block, where the system can say so (Linux), else at its end. A fleet in one process
    shares that process, so there it is an upper bound for one site.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self.bytes = 0

    def __enter__(self) -> PeakMemory:
        if self._device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self._device)
        else:
            _reset_resident_peak()
        return self

    def __exit__(self, *error: object) -> None:
        if self._device.type == "cuda":
            self.bytes = torch.cuda.max_memory_allocated(self._device)
        else:
            self.bytes = _resident_peak()


def _reset_resident_peak() -> None:
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return  # not Linux, or not allowed: the peak since the process began is the next best


def _resident_peak() -> int:
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        return int(psutil.Process().memory_info().rss)
    peaks = [int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM")]
    return peaks[0] * 1024 if peaks else int(psutil.Process().memory_info().rss)
