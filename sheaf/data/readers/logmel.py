"""Decoding of sound files to log-mel spectrograms, which a CNN reads like grey images.

Windows of 32 ms every 16 ms; 40 mel bands from 20 Hz to half the sampling rate. These are about the sizes
used for keyword spotting on small devices: Zhang et al., Hello Edge, 2017, https://arxiv.org/abs/1711.07128,
use 40 ms and 20 ms. One second gives 63 frames at 8 kHz and at 16 kHz. Stereo is averaged to mono.
"""

from __future__ import annotations

import functools
import io
import math
import re
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from sheaf.core.errors import DataError
from sheaf.core.optional_imports import needs

if TYPE_CHECKING:
    import soundfile

SUFFIXES = frozenset({".wav", ".flac", ".mp3", ".ogg", ".oga", ".opus", ".aif", ".aiff", ".au"})
MELS = 40
WINDOW_SECONDS = 0.032
HOP_SECONDS = 0.016
LOWEST_HZ = 20.0
RATES = (2000, 384_000)  # in Hz, as for data.rate
BLOCK = 1 << 18  # samples per channel that are read at a time
LONGEST = 1 << 28  # samples per channel: 1.5 hours at 48 kHz
LOUDEST = 16.0  # overshoots of float samples are below, integers stored as floats above
FLOOR = 1e-6  # added before the logarithm, so that silence is -13.8, not minus infinity

Wave = npt.NDArray[np.float32]


def decode_sound(location: str, content: bytes) -> tuple[Wave, int]:
    """Return the waveform, (L,) float32 in -1..1, and the sampling rate in Hz.

    Args:
        location: where the sound comes from, for messages.
        content: the encoded file.

    Raises:
        DataError: the sound cannot be read, is cut off, empty or not finite, is too long, has an unusual
            sampling rate, or exceeds -1..1 by far.
    """
    with needs("audio"):
        import soundfile
    try:
        with soundfile.SoundFile(_Content(content)) as file:
            wave, loudest = _read(file)
            rate, expected, log = file.samplerate, file.frames, file.extra_info
    except (soundfile.SoundFileError, RuntimeError, ValueError, TypeError) as error:
        raise DataError(
            f"{location} cannot be read: it is damaged or in no supported format "
            "(WAV, FLAC, MP3, OGG, AIFF, AU)"
        ) from error
    if not np.isfinite(loudest):
        raise DataError(f"{location} contains NaN or infinity; its samples must be finite")
    if loudest > LOUDEST:
        raise DataError(
            f"{location} has float samples up to {loudest:g}, which must be in -1..1; "
            "divide them by the integer range, such as 32768, or store them as 16-bit integers"
        )
    if len(wave) > LONGEST:
        raise DataError(f"{location} has more than {LONGEST:,} samples per channel; cut it into clips")
    if _is_cut_off(log) or len(wave) < 0.9 * expected:
        raise DataError(f"{location} is cut off: its header states more samples than it contains")
    if not RATES[0] <= rate <= RATES[1]:
        raise DataError(
            f"{location} has a sampling rate of {rate} Hz, but it must be {RATES[0]} to {RATES[1]} Hz; "
            "correct its header, or resample it"
        )
    if len(wave) == 0:
        raise DataError(f"{location} is empty: its length is 0; remove it")
    return wave, int(rate)


class _Content(io.BytesIO):
    """An encoded file. libsndfile seeks before the start of damaged ones, and cannot receive an exception."""

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        try:
            return super().seek(offset, whence)
        except ValueError:
            return self.tell()


def _read(file: soundfile.SoundFile) -> tuple[Wave, float]:
    """Return the mean of the channels, (L,), and the largest absolute sample, NaN if a sample is.

    Reads block by block, because a damaged header can state any length. Stops at a sample above ``LOUDEST``.
    """
    blocks, loudest, length = [], 0.0, 0
    while length <= LONGEST and len(block := file.read(BLOCK, dtype="float32", always_2d=True)):
        loudest = float(np.maximum(loudest, np.abs(block).max()))
        if not loudest <= LOUDEST:  # NaN, or values whose mean may overflow
            break
        blocks.append(block.mean(axis=1, dtype=np.float32))
        length += len(block)
    return np.concatenate(blocks) if blocks else np.empty(0, np.float32), loudest


def _is_cut_off(log: str) -> bool:
    """Return whether libsndfile's log of a file says that its samples end early.

    Programs that write to a pipe set the length to about 2**31 or more. An excess of a header's length is a
    common error of writers.
    """
    lengths = re.findall(r"(?:data|SSND|Data Size)\s*: (\d+) \(should be (\d+)\)", log)
    return any(int(actual) + 64 < int(stated) < 0x7FFF0000 for stated, actual in lengths)


def fit(wave: Wave, rate: int, to_rate: int, seconds: float) -> Wave:
    """Resample a waveform from ``rate`` to ``to_rate`` (Hz), then cut it or pad it with silence.

    Returns:
        (round(seconds * to_rate),) float32.
    """
    length = round(seconds * to_rate)
    if rate != to_rate:
        with needs("audio"):
            from scipy.signal import resample_poly  # takes 0.4 s to import, and few datasets contain sound

        common = math.gcd(rate, to_rate)
        # Resample only what is used, plus a margin in which the filter settles.
        wave = wave[: math.ceil((seconds + 0.1) * rate)]
        wave = resample_poly(wave, to_rate // common, rate // common).astype(np.float32)
    return np.pad(wave[:length], (0, max(0, length - len(wave))))


def log_mel(waves: Tensor, rate: int) -> Tensor:
    """Return the spectrograms, (N, 1, 40, 1 + L // hop) float32, of N waveforms (N, L) at ``rate`` Hz."""
    window = round(WINDOW_SECONDS * rate)
    hop = round(HOP_SECONDS * rate)
    size = 1 << (window - 1).bit_length()
    spectrum = torch.stft(
        waves,
        size,
        hop_length=hop,
        win_length=window,
        window=torch.hann_window(window),
        pad_mode="constant",
        return_complex=True,
    )
    power = spectrum.real.square() + spectrum.imag.square()
    return torch.log(_filters(rate, size) @ power + FLOOR).unsqueeze(1)


@functools.lru_cache(maxsize=8)
def _filters(rate: int, size: int) -> Tensor:
    """Return the mel filter bank, (40, size // 2 + 1): triangles of height 1, evenly spaced in mel."""
    edges = _to_hz(torch.linspace(_to_mel(LOWEST_HZ), _to_mel(rate / 2), MELS + 2, dtype=torch.float64))
    left, centre, right = (edges[start : start + MELS, None] for start in range(3))
    hz = torch.linspace(0, rate / 2, size // 2 + 1, dtype=torch.float64)
    rising = (hz - left) / (centre - left)
    falling = (right - hz) / (right - centre)
    return torch.minimum(rising, falling).clamp(min=0).float()


def _to_mel(hz: float) -> float:
    return 2595 * math.log10(1 + hz / 700)


def _to_hz(mel: Tensor) -> Tensor:
    return 700 * (10 ** (mel / 2595) - 1)
