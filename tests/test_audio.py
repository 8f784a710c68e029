"""Decoding: equal to librosa's, lossless through FLAC, strict about files that are not whole."""

import struct
from pathlib import Path

import librosa
import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from ser_jax.audio import decode_flac, encode_flac, find_sound, load_audio, load_int16
from ser_jax.errors import UserError


def make_tone(n_samples: int, rate_hz: int, channels: int = 1) -> np.ndarray:
    time_N = np.arange(n_samples) / rate_hz
    tones = [0.3 * np.sin(2 * np.pi * 200 * (k + 1) * time_N) for k in range(channels)]
    return np.stack(tones, axis=1).astype(np.float32)


# On Python 3.11 librosa.load imports modules that 3.13 removed.
@pytest.mark.filterwarnings("ignore:'(aifc|audioop|sunau)' is deprecated:DeprecationWarning")
@pytest.mark.parametrize("suffix", ["wav", "flac", "ogg", "mp3"])
@pytest.mark.parametrize("rate_hz", [16000, 44100])
@pytest.mark.parametrize("channels", [1, 2])
def test_every_format_rate_and_channel_count_equals_librosa(tmp_path, suffix, rate_hz, channels):
    path = tmp_path / f"clip.{suffix}"
    soundfile.write(path, make_tone(rate_hz // 2, rate_hz, channels), rate_hz)
    wave_N = load_audio(path, 16000)
    expected_N, _ = librosa.load(path, sr=16000, mono=True, res_type="soxr_hq")
    assert wave_N.dtype == np.float32
    assert np.abs(wave_N).max() > 0.1
    np.testing.assert_allclose(wave_N, expected_N, atol=1e-6)


@pytest.mark.parametrize("rate_hz", [8000, 22050, 44100, 48000])
def test_a_tone_stays_the_same_tone_at_another_rate(tmp_path, rate_hz):
    soundfile.write(tmp_path / "a.flac", make_tone(rate_hz, rate_hz), rate_hz, subtype="PCM_24")
    wave_N = load_audio(tmp_path / "a.flac", 16000)
    assert len(wave_N) == 16000
    middle = slice(1000, 15000)  # the filter rings at both ends
    np.testing.assert_allclose(wave_N[middle], make_tone(16000, 16000)[middle, 0], atol=1e-4)


def test_channels_are_averaged(tmp_path):
    soundfile.write(tmp_path / "a.wav", np.array([[0.5, 0.0], [0.25, -0.25]]), 16000)
    np.testing.assert_array_equal(load_audio(tmp_path / "a.wav", 16000), [0.25, 0.0])


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.integers(-32768, 32767), min_size=1, max_size=6000),
    st.sampled_from([8000, 16000, 22050]),
)
def test_flac_gives_back_every_sample(samples, rate_hz):
    wave_N = np.array(samples, np.int16)
    np.testing.assert_array_equal(decode_flac(encode_flac(wave_N, rate_hz)), wave_N)


def test_sixteen_bit_files_at_the_right_rate_keep_every_sample(tmp_path):
    wave_N = np.array([-32768, -1, 0, 1, 32767], np.int16)
    soundfile.write(tmp_path / "a.wav", wave_N, 16000)
    np.testing.assert_array_equal(load_int16(tmp_path / "a.wav", 16000), wave_N)


def test_samples_beyond_full_scale_are_clipped_not_wrapped(tmp_path):
    soundfile.write(tmp_path / "a.wav", np.array([2.0, -2.0, 0.5]), 16000, subtype="FLOAT")
    np.testing.assert_array_equal(load_int16(tmp_path / "a.wav", 16000), [32767, -32768, 16384])


def write_text(path: Path) -> None:
    path.write_text("this is a letter, not a sound\n" * 50)


def write_empty(path: Path) -> None:
    path.touch()


def write_no_samples(path: Path) -> None:
    soundfile.write(path, np.zeros(0, np.float32), 16000)


def write_nan(path: Path) -> None:
    soundfile.write(path, np.array([0.1, np.nan, 0.1]), 16000, subtype="FLOAT")


def write_inf(path: Path) -> None:
    soundfile.write(path, np.array([0.1, np.inf, 0.1]), 16000, subtype="FLOAT")


def write_truncated_wav(path: Path) -> None:
    soundfile.write(path, make_tone(8000, 16000), 16000)
    path.write_bytes(path.read_bytes()[:5000])


def write_truncated_wav_with_odd_chunk(path: Path) -> None:
    write_truncated_wav(path)
    whole = path.read_bytes()
    path.write_bytes(whole[:36] + b"note" + struct.pack("<I", 3) + b"abc\0" + whole[36:])


def write_header_alone(path: Path) -> None:
    soundfile.write(path, make_tone(8000, 16000), 16000)
    path.write_bytes(path.read_bytes()[:30])


def write_truncated_flac(path: Path) -> None:
    noise_N = np.random.default_rng(0).uniform(-0.5, 0.5, 50000)
    soundfile.write(path, noise_N, 16000, format="FLAC")
    path.write_bytes(path.read_bytes()[:40000])


def write_absurd_rate(path: Path) -> None:
    soundfile.write(path, make_tone(100, 16000), 3)


def write_nothing(path: Path) -> None:
    pass


def write_folder(path: Path) -> None:
    path.mkdir()


@pytest.mark.parametrize(
    ("write", "said"),
    [
        (write_text, "cannot be decoded"),
        (write_empty, "empty"),
        (write_no_samples, "no samples"),
        (write_nan, "NaN"),
        (write_inf, "infinite"),
        (write_truncated_wav, "truncated"),
        (write_truncated_wav_with_odd_chunk, "truncated"),
        (write_header_alone, "cannot be decoded"),
        (write_truncated_flac, "(truncated|cannot be decoded)"),
        (write_absurd_rate, "3 Hz"),
        (write_nothing, "no such file"),
        (write_folder, "is a folder; name the files in it"),
    ],
)
def test_a_bad_file_is_named_in_one_line_with_a_remedy(tmp_path, write, said):
    path = tmp_path / "clip.wav"
    write(path)
    with pytest.raises(UserError, match=said) as caught:
        load_audio(path, 16000)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert ";" in message
    assert "\n" not in message


@pytest.mark.parametrize("n_bytes", [0xFFFFFFFF, 0xFFFFFFFF - 36])
def test_a_wav_written_to_a_pipe_is_whole_though_its_header_promises_more(tmp_path, n_bytes):
    path = tmp_path / "piped.wav"
    soundfile.write(path, make_tone(8000, 16000), 16000)
    raw = bytearray(path.read_bytes())
    raw[40:44] = struct.pack("<I", n_bytes)
    path.write_bytes(raw)
    assert len(load_audio(path, 16000)) == 8000


def test_chunks_after_the_samples_do_not_look_truncated(tmp_path):
    path = tmp_path / "tagged.wav"
    soundfile.write(path, make_tone(8000, 16000), 16000)
    path.write_bytes(path.read_bytes() + b"LIST" + struct.pack("<I", 4) + b"INFO")
    assert len(load_audio(path, 16000)) == 8000


def make_sound_between_silences(lead: int, length: int, trail: int) -> np.ndarray:
    tone_N = 0.5 * np.sin(2 * np.pi * 440 * np.arange(length) / 16000)
    quiet_N = 1e-3 * np.random.default_rng(0).standard_normal(lead + length + trail)
    quiet_N[lead : lead + length] += tone_N
    return np.rint(quiet_N * 32767).astype(np.int16)


def test_sound_is_found_between_silences_to_within_a_frame_and_keeps_its_margin():
    wave_N = make_sound_between_silences(8000, 16000, 12000)
    sound = find_sound(wave_N, 16000, 35, 0.0)
    assert abs(sound.start - 8000) <= 2048
    assert abs(sound.stop - 24000) <= 2048
    wider = find_sound(wave_N, 16000, 35, 0.1)
    assert (sound.start - wider.start, wider.stop - sound.stop) == (1600, 1600)
    assert find_sound(wave_N, 16000, 35, 9.0) == slice(0, len(wave_N))
    assert find_sound(wave_N, 16000, 90, 0.0) == slice(0, len(wave_N))


def test_a_clip_of_nothing_but_zeros_is_kept_whole():
    assert find_sound(np.zeros(5000, np.int16), 16000, 35, 0.0) == slice(0, 5000)
