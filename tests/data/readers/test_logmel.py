"""Sounds are decoded to log-mel spectrograms."""

import io
import struct
import sys
from contextlib import suppress

import numpy as np
import pytest
import soundfile
import torch

from sheaf.core.errors import DataError
from sheaf.data.readers import logmel
from sheaf.data.readers.logmel import FLOOR, decode_sound, fit, log_mel


def wav(samples: np.ndarray, rate: int = 8000, subtype: str = "PCM_16") -> bytes:
    file = io.BytesIO()
    soundfile.write(file, samples, rate, format="WAV", subtype=subtype)
    return file.getvalue()


def tone(hz: float, rate: int = 8000, seconds: float = 1.0) -> np.ndarray:
    return 0.5 * np.sin(2 * np.pi * hz * np.arange(round(rate * seconds)) / rate)


@pytest.mark.parametrize("rate", [8000, 16000, 44100])
def test_a_second_has_about_63_frames_at_any_rate(rate: int) -> None:
    features = log_mel(torch.zeros(2, rate), rate)
    assert features.dtype == torch.float32
    assert features.shape[:3] == (2, 1, 40)
    assert features.shape[3] in (63, 64)
    assert torch.allclose(features, torch.tensor(FLOOR).log())


def test_a_higher_tone_is_loudest_in_a_higher_band() -> None:
    bands = [
        int(log_mel(torch.from_numpy(tone(hz)).float()[None], 8000)[0, 0, :, 30].argmax())
        for hz in (200, 500, 1000, 2000, 3500)
    ]
    assert bands == sorted(set(bands))


def test_a_tone_peaks_in_the_band_around_it() -> None:
    # Band centres are evenly spaced from mel(20) to mel(4000); 1000 Hz is 1000 mel, in the 19th of 40 gaps.
    step = (2595 * np.log10(1 + 4000 / 700) - 2595 * np.log10(1 + 20 / 700)) / 41
    expected = round((1000.0 - 2595 * np.log10(1 + 20 / 700)) / step) - 1
    features = log_mel(torch.from_numpy(tone(1000)).float()[None], 8000)
    assert int(features[0, 0, :, 30].argmax()) == expected


def test_stereo_is_averaged() -> None:
    left = tone(440)
    samples, rate = decode_sound("a", wav(np.stack([left, -left], axis=1)))
    assert rate == 8000
    assert np.abs(samples).max() < 1e-4


def test_fit_cuts_pads_and_resamples() -> None:
    ones = np.ones(100, np.float32)
    assert fit(ones, 100, 100, 0.5).shape == (50,)
    assert fit(ones, 100, 100, 2.0).tolist() == [1.0] * 100 + [0.0] * 100
    long = tone(440, 16000, 3.0).astype(np.float32)
    assert np.allclose(fit(long, 16000, 8000, 1.0)[100:-100], tone(440)[100:-100], atol=0.01)


@pytest.mark.parametrize(
    ("format", "subtype"), [("MP3", None), ("OGG", "VORBIS"), ("OGG", "OPUS"), ("AIFF", None)]
)
def test_compressed_sounds(format: str, subtype: str | None) -> None:
    file = io.BytesIO()
    soundfile.write(file, tone(440, 16000), 16000, format=format, subtype=subtype)
    samples, rate = decode_sound("a", file.getvalue())
    assert rate == 16000
    assert abs(np.corrcoef(samples[1000:15000], tone(440, 16000)[1000:15000])[0, 1]) > 0.95


@pytest.mark.parametrize("format", ["WAV", "AIFF", "AU", "FLAC", "MP3", "OGG"])
def test_half_a_file_is_an_error(format: str) -> None:
    file = io.BytesIO()
    soundfile.write(file, tone(440, 16000), 16000, format=format)
    with pytest.raises(DataError, match=r"u/1 (is cut off|cannot be read)"):
        decode_sound("u/1", file.getvalue()[: len(file.getvalue()) // 2])


@pytest.mark.parametrize("length", [0xFFFFFFFF, 0x7FFFF000])
def test_a_sound_from_a_pipe_has_no_length(length: int) -> None:
    content = wav(tone(440))
    position = content.index(b"data") + 4
    content = content[:position] + length.to_bytes(4, "little") + content[position + 4 :]
    assert len(decode_sound("a", content)[0]) == 8000


def test_float_samples_may_exceed_one_a_little() -> None:
    assert decode_sound("a", wav(4 * tone(440), subtype="FLOAT"))[0].max() > 1.5


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"no sound", "u/1.wav cannot be read"),
        (wav(np.zeros(0)), "u/1.wav is empty"),
        (wav(np.array([0.0, np.nan]), subtype="FLOAT"), "u/1.wav contains NaN or infinity"),
        (wav(np.array([[np.inf, -np.inf]]), subtype="FLOAT"), "u/1.wav contains NaN or infinity"),
        (wav(np.array([[3e38, 3e38]]), subtype="FLOAT"), r"u/1.wav has float samples up to 3e\+38"),
        (wav(32768 * tone(440), subtype="FLOAT"), "u/1.wav has float samples up to 16384, .* divide them"),
    ],
    ids=[
        "no sound",
        "empty",
        "not finite",
        "infinite mean",
        "huge",
        "integers",
    ],  # fixed ids: a float WAV file contains its time stamp
)
def test_an_invalid_sound_is_an_error(content: bytes, message: str) -> None:
    with pytest.raises(DataError, match=message):
        decode_sound("u/1.wav", content)


@pytest.mark.parametrize("rate", [1, 1999, 384_001, 2**31 - 1])
def test_an_unusual_sampling_rate_is_an_error(rate: int) -> None:
    content = bytearray(wav(np.zeros(100)))
    content[24:28] = struct.pack("<I", rate)
    with pytest.raises(DataError, match=f"a.wav has a sampling rate of {rate} Hz, but it must be 2000"):
        decode_sound("a.wav", bytes(content))


def test_a_header_that_states_too_many_samples_needs_no_memory() -> None:
    file = io.BytesIO()
    soundfile.write(file, tone(440), 8000, format="FLAC")
    content = bytearray(file.getvalue())
    content[21:26] = b"\x0f\xff\xff\xff\xff"  # the number of samples, in the STREAMINFO block
    with pytest.raises(DataError, match=r"a.flac is cut off|a.flac cannot be read"):
        decode_sound("a.flac", bytes(content))


def test_several_blocks_and_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    content = wav(tone(440, seconds=0.5))
    whole, _ = decode_sound("a.wav", content)
    monkeypatch.setattr(logmel, "BLOCK", 300)
    assert np.array_equal(decode_sound("a.wav", content)[0], whole)
    monkeypatch.setattr(logmel, "LONGEST", 3000)
    with pytest.raises(DataError, match=r"a.wav has more than 3,000 samples per channel; cut it into clips"):
        decode_sound("a.wav", content)


def test_a_seek_before_the_start_prints_no_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    file = io.BytesIO()
    soundfile.write(file, tone(440)[:1600], 16000, format="AIFF")
    content = file.getvalue()
    printed: list[object] = []
    monkeypatch.setattr(sys, "unraisablehook", printed.append)
    with suppress(DataError):
        decode_sound("a.aiff", content[:30] + content[12:])
    assert printed == []
