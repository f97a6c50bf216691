"""Sound files' bytes to log-mel spectrograms, which a CNN reads as grey images.

Windows of 32 ms every 16 ms and 40 mel bands from 20 Hz to half the sampling rate: the sizes in
which keyword spotting is done on small devices (Zhang et al., Hello Edge, 2017,
https://arxiv.org/abs/1711.07128, use 40 ms and 20 ms). One second gives 63 frames at 8 kHz as at 16
kHz. Stereo is averaged to mono.
"""

from __future__ import annotations

import functools
import io
import math

import numpy as np
import numpy.typing as npt
import soundfile
import torch
from scipy.signal import resample_poly
from torch import Tensor

from sheaf.core.errors import DataError

SUFFIXES = frozenset({".wav", ".flac"})
MELS = 40
WINDOW_SECONDS = 0.032
HOP_SECONDS = 0.016
LOWEST_HZ = 20.0
FLOOR = 1e-6  # added before the logarithm: silence is -13.8, not minus infinity

Wave = npt.NDArray[np.float32]


def decode_sound(where: str, data: bytes) -> tuple[Wave, int]:
    """The samples (N,) in -1..1 and how many make a second.

    Raises:
        DataError: it cannot be read, is empty or not finite; ``where`` is named.
    """
    try:
        samples, rate = soundfile.read(io.BytesIO(data), dtype="float32", always_2d=True)
    except (soundfile.SoundFileError, RuntimeError, ValueError, TypeError) as error:
        raise DataError(f"{where} cannot be read: it is not a sound that sheaf reads") from error
    if len(samples) == 0:
        raise DataError(f"{where} holds no sound: its length is 0")
    if not np.isfinite(samples).all():
        raise DataError(f"{where} holds samples that are not finite")
    return samples.mean(axis=1, dtype=np.float32), int(rate)


def fit(wave: Wave, rate: int, to_rate: int, seconds: float) -> Wave:
    """Resampled, then cut or padded with silence: (round(seconds * to_rate),) float32."""
    length = round(seconds * to_rate)
    if rate != to_rate:
        common = math.gcd(rate, to_rate)
        # No more is resampled than is kept; the margin lets the filter settle.
        wave = wave[: math.ceil((seconds + 0.1) * rate)]
        wave = resample_poly(wave, to_rate // common, rate // common).astype(np.float32)
    return np.pad(wave[:length], (0, max(0, length - len(wave))))


def log_mel(waves: Tensor, rate: int) -> Tensor:
    """(N, L) float32 samples to (N, 1, 40, 1 + L // hop) float32."""
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
    """(40, size // 2 + 1): triangles, evenly spaced on the mel scale, that each peak at 1."""
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
