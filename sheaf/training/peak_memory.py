"""Measure the peak memory of a block of code."""

from __future__ import annotations

from pathlib import Path

import psutil
import torch


class PeakMemory:
    """A context manager that measures the peak memory of its block.

    On CUDA it is the peak that torch allocated on the device. Elsewhere it is the peak resident memory of the
    process during the block (Linux), or the resident memory at its end (other systems). Sites of an
    in-process fleet share the process, so there it is an upper bound for one site.

    Attributes:
        bytes: the peak, once the block has ended.
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
        return  # not Linux, or not permitted: VmHWM is then the peak since the process began


def _resident_peak() -> int:
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        return int(psutil.Process().memory_info().rss)
    peaks = [int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM")]
    return peaks[0] * 1024 if peaks else int(psutil.Process().memory_info().rss)
