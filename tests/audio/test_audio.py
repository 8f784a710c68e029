"""Decoding: equal to librosa's, lossless through FLAC, strict about files that are not whole."""

import os
import shutil
import struct
import subprocess
import zipfile
from pathlib import Path

import librosa
import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from ser_jax.audio.reading import (
    decode_flac,
    encode_flac,
    find_sound,
    load_audio,
    load_int16,
    measure_audio,
    stream_audio,
)
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
def test_flac_keeps_every_sample(samples, rate_hz):
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


def write_lfs_pointer(path: Path) -> None:
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:12ab\nsize 1024\n")


def write_web_page(path: Path) -> None:
    path.write_text("\n<!DOCTYPE html><html><title>404</title></html>")


def write_server_error(path: Path) -> None:
    path.write_text('{"error": "rate limit"}')


def write_companion(path: Path) -> None:
    path.write_bytes(b"\0\5\x16\7\0\2\0\0Mac OS X        " + bytes(200))


def write_zip(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.wav", b"RIFF")


def write_pipe(path: Path) -> None:
    os.mkfifo(path)


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
        (write_lfs_pointer, "a Git LFS pointer, .*; run git lfs pull"),
        (write_web_page, "a web page"),
        (write_server_error, "a server sends"),
        (write_companion, "is what macOS keeps beside a file"),
        (write_zip, "a zip archive"),
        (write_pipe, "a pipe or device"),
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


def write_wav(path: Path, n_bytes: int, *, riff: int | None = None, after: bytes = b"") -> bytes:
    """A wav of 8000 samples whose header says `n_bytes` of them; `after` follows."""
    soundfile.write(path, make_tone(8000, 16000), 16000, subtype="PCM_16")
    raw = bytearray(path.read_bytes())
    assert (raw[36:40], len(raw)) == (b"data", 16044)
    raw[40:44] = struct.pack("<I", n_bytes)
    if riff is not None:
        raw[4:8] = struct.pack("<I", riff)
    path.write_bytes(raw + after)
    return bytes(raw)


PLACEHOLDERS = {
    "4 GiB": 0xFFFFFFFF,
    "4 GiB but for the header": 0xFFFFFFFF - 36,
    "2 GiB": 0x7FFFFFFF,
    "sox and espeak": 0x7FFFF000,
    "the header added": 0x80000000 + 36,
    "a thousand million samples": 2_000_000_000,
    "none": 0,
    "the file's own size": 16044,
    "half a sample too many": 16001,
}


@pytest.mark.parametrize("n_bytes", PLACEHOLDERS.values(), ids=PLACEHOLDERS)
def test_a_wav_whose_header_cannot_mean_its_size_is_read_whole(tmp_path, n_bytes):
    path = tmp_path / "piped.wav"
    write_wav(path, 16000)
    expected_N = load_audio(path, 16000)
    for riff in (None, 0, 36, (n_bytes + 36) % 2**32):
        write_wav(path, n_bytes, riff=riff)
        np.testing.assert_array_equal(load_audio(path, 16000), expected_N)
        assert measure_audio(path) == 0.5


@pytest.mark.parametrize("n_bytes", [16100, 20000, 10**6, 123456789, 1_234_567_890, 3 * 2**30])
def test_a_wav_that_states_more_than_it_holds_is_truncated(tmp_path, n_bytes):
    write_wav(tmp_path / "cut.wav", n_bytes, riff=n_bytes + 36)
    for read in (lambda path: load_audio(path, 16000), measure_audio):
        with pytest.raises(UserError, match=f"truncated: holds 16000 of {n_bytes} bytes"):
            read(tmp_path / "cut.wav")


def test_a_billion_samples_are_a_placeholder_beyond_32_bits_too(tmp_path):
    path = tmp_path / "a.wav"
    soundfile.write(path, make_tone(8000, 16000, 2), 16000, subtype="PCM_24")
    raw = path.read_bytes()
    place = raw.index(b"data") + 4
    path.write_bytes(raw[:place] + struct.pack("<I", 6 * 10**9 % 2**32) + raw[place + 4 :])
    assert len(load_audio(path, 16000)) == 8000


def test_a_stale_size_is_corrected_if_most_samples_follow(tmp_path):
    write_wav(tmp_path / "killed.wav", 4000)
    assert len(load_audio(tmp_path / "killed.wav", 16000)) == 8000


LIST = b"LIST" + struct.pack("<I", 4) + b"INFO"


@pytest.mark.parametrize(
    "after",
    [LIST * 2000, b"TAG" + bytes(range(1, 126)) * 200, bytes(20000), bytes(range(99))],
    ids=["chunks", "a tag", "zeros", "less than is promised"],
)
def test_what_follows_the_samples_is_ignored(tmp_path, after):
    write_wav(tmp_path / "a.wav", 16000, after=after)
    assert len(load_audio(tmp_path / "a.wav", 16000)) == 8000


def test_a_wav_of_no_samples_and_a_chunk_holds_no_samples(tmp_path):
    path = tmp_path / "empty.wav"
    soundfile.write(path, np.zeros(0, np.int16), 16000)
    path.write_bytes(path.read_bytes() + LIST)
    with pytest.raises(UserError, match="holds no samples"):
        load_audio(path, 16000)


@pytest.mark.parametrize("n_bytes", [0, 2**64 - 1, 16000])
def test_an_rf64_written_to_a_pipe_is_whole(tmp_path, n_bytes):
    path = tmp_path / "a.wav"
    raw = write_wav(path, 16000)
    sizes = struct.pack("<4sIQQQI", b"ds64", 28, 0, n_bytes, 0, 0)
    head = b"RF64" + struct.pack("<I", 0xFFFFFFFF) + b"WAVE" + sizes
    path.write_bytes(head + raw[12:40] + struct.pack("<I", 0xFFFFFFFF) + raw[44:])
    assert len(load_audio(path, 16000)) == 8000
    os.truncate(path, 9000)
    if n_bytes == 16000:
        with pytest.raises(UserError, match="truncated"):
            load_audio(path, 16000)


def test_a_streamed_flac_that_counts_no_samples_is_whole(tmp_path):
    path = tmp_path / "streamed.flac"
    soundfile.write(path, make_tone(40000, 16000), 16000)
    expected_N = load_audio(path, 16000)
    raw = bytearray(path.read_bytes())
    raw[21:26] = bytes([raw[21] & 0xF0, 0, 0, 0, 0])  # STREAMINFO's 36 bits of total samples
    path.write_bytes(raw)
    np.testing.assert_array_equal(load_audio(path, 16000), expected_N)
    assert measure_audio(path) == 2.5
    np.testing.assert_array_equal(load_audio(path, 16000, 1.0, 0.5), expected_N[16000:24000])


def test_gsm_in_wav_which_cannot_seek_is_read(tmp_path):
    path = tmp_path / "voicemail.wav"
    soundfile.write(path, make_tone(8000, 8000), 8000, subtype="GSM610")
    wave_N = load_audio(path, 8000)
    assert len(wave_N) / 8000 == measure_audio(path) >= 1.0
    assert np.corrcoef(wave_N[:8000], make_tone(8000, 8000)[:, 0])[0, 1] > 0.9
    np.testing.assert_array_equal(load_audio(path, 8000, 0.5, 0.25), wave_N[4000:6000])


def test_an_mp3_without_a_count_is_read_to_its_end(tmp_path):
    """A loud beginning makes libsndfile guess a length that is far too short."""
    path = tmp_path / "a.mp3"
    wave_N = np.zeros(20 * 16000, np.float32)
    wave_N[:16000] = np.random.default_rng(0).uniform(-0.5, 0.5, 16000)
    soundfile.write(
        path, wave_N, 16000, format="MP3", bitrate_mode="VARIABLE", compression_level=0.0
    )
    raw = path.read_bytes()
    assert raw[:200].count(b"Xing\0\0\0") == 1
    place = raw.index(b"Xing")
    for name, tag in {"none": bytes(8), "of nothing": b"Xing" + bytes(4)}.items():
        path.write_bytes(raw[:place] + tag + raw[place + 8 :])
        assert measure_audio(path) == pytest.approx(20, abs=0.3), name
        assert len(load_int16(path, 16000)) == pytest.approx(20 * 16000, abs=4000), name
    path.write_bytes(raw[: place + 8] + bytes(4) + raw[place + 12 :])  # it counts no frames
    assert measure_audio(path) == pytest.approx(20, abs=0.3)


def test_mp3s_that_were_joined_are_read_to_the_end_of_the_last(tmp_path):
    soundfile.write(tmp_path / "a.mp3", make_tone(160000, 16000), 16000)
    (tmp_path / "b.mp3").write_bytes((tmp_path / "a.mp3").read_bytes() * 3)
    assert measure_audio(tmp_path / "b.mp3") == pytest.approx(30, abs=0.5)
    (tmp_path / "c.mp3").write_bytes((tmp_path / "a.mp3").read_bytes() + b"TAG" + bytes(125))
    assert measure_audio(tmp_path / "c.mp3") == 10


@pytest.mark.parametrize("subtype", ["VORBIS", "OPUS"])
def test_an_ogg_that_ends_within_a_page_is_truncated(tmp_path, subtype):
    noise_N = np.random.default_rng(0).uniform(-0.5, 0.5, 160000)
    soundfile.write(tmp_path / "a.ogg", noise_N, 16000, format="OGG", subtype=subtype)
    assert measure_audio(tmp_path / "a.ogg") == pytest.approx(10, abs=0.1)
    os.truncate(tmp_path / "a.ogg", 10000)
    with pytest.raises(UserError, match="truncated: its last page holds"):
        load_audio(tmp_path / "a.ogg", 16000)


SIZES = {"AIFF": (4, ">I", 0x7F000000), "AU": (8, ">I", 2**32 - 1), "W64": (16, "<Q", 2**63 - 1)}


@pytest.mark.parametrize("form", SIZES)
def test_aiff_au_and_w64_are_checked_against_their_size_unless_it_is_a_placeholder(tmp_path, form):
    path = tmp_path / "a"
    soundfile.write(path, make_tone(8000, 16000), 16000, format=form)
    raw = bytearray(path.read_bytes())
    assert len(load_audio(path, 16000)) == 8000
    path.write_bytes(raw[:9000])
    with pytest.raises(UserError, match="truncated: holds 9000 of"):
        load_audio(path, 16000)
    place, kind, greatest = SIZES[form]
    struct.pack_into(kind, raw, place, greatest)
    path.write_bytes(raw)
    assert len(load_audio(path, 16000)) == 8000


@pytest.mark.parametrize("says", [0xFFFFFFFF, 9_000_000_000 % 2**32], ids=["most", "the rest"])
def test_a_wav_beyond_4_gib_is_refused_and_not_cut(tmp_path, says):
    write_wav(tmp_path / "long.wav", says)
    os.truncate(tmp_path / "long.wav", 44 + 9_000_000_000)  # takes no room on most file systems
    with pytest.raises(UserError, match=r"more than the 4 GiB .*; save it as flac"):
        measure_audio(tmp_path / "long.wav")


def test_a_truncated_mp3_is_an_error(tmp_path):
    soundfile.write(tmp_path / "a.mp3", make_tone(320000, 16000), 16000)
    os.truncate(tmp_path / "a.mp3", (tmp_path / "a.mp3").stat().st_size // 2)
    with pytest.raises(UserError, match="truncated: holds"):
        load_audio(tmp_path / "a.mp3", 16000)


@pytest.mark.parametrize("source_hz", [8000, 16000, 44100])
@pytest.mark.parametrize("channels", [1, 2])
def test_a_beginning_equals_that_of_the_whole_and_blocks_equal_librosas_one(
    tmp_path, monkeypatch, source_hz, channels
):
    rng = np.random.default_rng(0)
    wave_NC = rng.uniform(-0.5, 0.5, (3 * source_hz + 17, channels)).astype(np.float32)
    path = tmp_path / "a.wav"
    soundfile.write(path, wave_NC, source_hz, subtype="FLOAT")
    expected_N = librosa.resample(
        wave_NC.mean(axis=1), orig_sr=source_hz, target_sr=16000, res_type="soxr_hq"
    )
    monkeypatch.setattr("ser_jax.audio.reading.BLOCK", 1000)
    np.testing.assert_array_equal(load_audio(path, 16000), expected_N)
    assert len(list(stream_audio(path, 16000))) > 2
    np.testing.assert_array_equal(load_audio(path, 16000, 0.0, 0.7), expected_N[:11200])
    whole_N = load_int16(path, 16000)
    np.testing.assert_array_equal(load_int16(path, 16000, 1.2345), whole_N[:19752])
    np.testing.assert_array_equal(load_int16(path, 16000, 99.0), whole_N)


def test_no_more_is_decoded_than_was_asked_for(tmp_path):
    noise_N = np.random.default_rng(0).uniform(-0.5, 0.5, 320000)
    soundfile.write(tmp_path / "a.flac", noise_N, 16000)
    os.truncate(tmp_path / "a.flac", (tmp_path / "a.flac").stat().st_size // 2)
    assert len(load_int16(tmp_path / "a.flac", 16000, 3.0)) == 48000
    with pytest.raises(UserError, match=r"(truncated|cannot be decoded)"):
        load_int16(tmp_path / "a.flac", 16000)


def test_integers_written_as_floats_are_warned_of_once(tmp_path, capsys):
    path = tmp_path / "loud.wav"
    soundfile.write(path, make_tone(8000, 16000) * 32768, 16000, subtype="FLOAT")
    for _ in range(2):
        load_int16(path, 16000)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"warning: {path}: samples reach 9830 times full scale")
    soundfile.write(tmp_path / "hot.wav", make_tone(8000, 16000) * 5, 16000, subtype="FLOAT")
    load_int16(tmp_path / "hot.wav", 16000)
    assert capsys.readouterr().err == ""


@pytest.mark.skipif(os.name == "nt", reason="names are text there")
def test_an_impossible_name_is_an_error(tmp_path):
    with pytest.raises(UserError, match=r"embedded null .*; check the path"):
        load_audio(tmp_path / "a\0b.wav", 16000)


@pytest.mark.skipif(os.name == "nt", reason="names are text there")
def test_a_name_that_is_not_utf8_is_opened(tmp_path):
    path = tmp_path / os.fsdecode(b"caf\xe9.wav")
    soundfile.write(tmp_path / "a.wav", make_tone(8000, 16000), 16000)
    (tmp_path / "a.wav").rename(path)
    assert len(load_audio(path, 16000)) == 8000


def make_by_ffmpeg(path: Path, *options: str) -> None:
    program = shutil.which("ffmpeg")
    if program is None:
        pytest.skip("needs ffmpeg on PATH")
    soundfile.write(path.with_name("plain.wav"), make_tone(32000, 16000), 16000)
    line = [program, "-v", "error", "-i", path.with_name("plain.wav"), *options, path]
    subprocess.run(line, check=True)


FOREIGN = {
    "m4a": [], "webm": [], "wma": [], "aac": [], "mp4": ["-c:a", "aac"],
    "mp3": ["-c:a", "aac", "-f", "mp4"], "wav": ["-c:a", "aac", "-f", "mp4"],
    "caf": ["-c:a", "pcm_s16be"],
}  # fmt: skip


@pytest.mark.parametrize("suffix", FOREIGN)
def test_what_libsndfile_does_not_read_is_read_by_ffmpeg(tmp_path, capfd, suffix):
    path = tmp_path / f"it's [a] %d.{suffix}"
    make_by_ffmpeg(path, *FOREIGN[suffix])
    wave_N = load_audio(path, 16000)
    assert measure_audio(path) == pytest.approx(2.0, abs=0.2)
    delay = int(np.argmax(np.correlate(wave_N[:4000], make_tone(2000, 16000)[:, 0])))
    assert np.corrcoef(wave_N[delay : delay + 8000], make_tone(8000, 16000)[:, 0])[0, 1] > 0.9
    part_N = load_audio(path, 16000, 1.0, 0.5)
    assert len(part_N) == 8000
    inner = slice(200, -200)  # opus is at 48 kHz, and the resampler rings where it begins
    np.testing.assert_allclose(part_N[inner], wave_N[16000:24000][inner], atol=1e-3)
    assert capfd.readouterr().err == ""  # libmpg123 prints where it sees what is no mp3


def test_without_ffmpeg_the_error_names_the_format(tmp_path, monkeypatch, capfd):
    (tmp_path / "a.mp3").write_bytes(struct.pack(">I", 24) + b"ftypM4A " + bytes(5000))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match=r"an MP4, M4A or 3GP file, which needs ffmpeg; install"):
        load_audio(tmp_path / "a.mp3", 16000)
    assert capfd.readouterr().err == ""


def test_ffmpegs_reason_is_one_line(tmp_path):
    if shutil.which("ffmpeg") is None:
        pytest.skip("needs ffmpeg on PATH")
    (tmp_path / "a.m4a").write_bytes(struct.pack(">I", 24) + b"ftypM4A " + bytes(5000))
    with pytest.raises(UserError, match=r"a\.m4a: cannot be decoded by ffmpeg: ") as caught:
        load_audio(tmp_path / "a.m4a", 16000)
    assert "\n" not in str(caught.value)
    assert " @ 0x" not in str(caught.value)


def test_a_truncated_recording_is_an_error_by_ffmpeg_too(tmp_path):
    path = tmp_path / "a.m4a"
    make_by_ffmpeg(path, "-movflags", "+faststart")
    os.truncate(path, path.stat().st_size * 3 // 4)
    with pytest.raises(UserError, match="truncated"):
        load_audio(path, 16000)


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


def test_a_silent_clip_is_kept_whole():
    assert find_sound(np.zeros(5000, np.int16), 16000, 35, 0.0) == slice(0, 5000)


LEVELS = {
    "zeros": (lambda tone_N: 0 * tone_N, "holds only zeros"),
    "inverse": (lambda tone_N: np.stack([tone_N, -tone_N], 1), "its channels cancel each other"),
    "faint": (lambda tone_N: 1e-5 * tone_N, "its loudest sample is 3e-06 of full scale"),
    "one channel": (lambda tone_N: np.stack([tone_N, 0 * tone_N], 1), None),
    "quiet": (lambda tone_N: 1e-2 * tone_N, None),
}


@pytest.mark.parametrize("case", LEVELS)
def test_a_file_without_audible_sound_is_warned_of_with_the_reason(tmp_path, capsys, case):
    make, said = LEVELS[case]
    path = tmp_path / "a.wav"
    soundfile.write(path, make(make_tone(16000, 16000)[:, 0]), 16000, subtype="FLOAT")
    load_int16(path, 16000)
    warning = capsys.readouterr().err
    assert f"{path}: {said}" in warning if said else not warning


def test_unrelated_channels_do_not_cancel(tmp_path, capsys):
    noise_NC = 0.1 * np.random.default_rng(0).normal(size=(16000, 32))
    soundfile.write(tmp_path / "a.wav", noise_NC, 16000)
    load_int16(tmp_path / "a.wav", 16000)
    assert not capsys.readouterr().err


@pytest.mark.parametrize("suffix", ["wav", "aiff", "flac"])
def test_recordings_joined_by_cat_are_refused_and_not_cut(tmp_path, suffix):
    path = tmp_path / f"a.{suffix}"
    soundfile.write(path, make_tone(4001, 16000), 16000)
    whole = path.read_bytes()
    assert len(load_audio(path, 16000)) == 4001
    path.write_bytes(whole + whole)
    with pytest.raises(UserError, match=f"another recording from byte {len(whole)} on.*join them"):
        load_audio(path, 16000)


@pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="needs ffmpeg")
def test_mp4s_joined_by_cat_are_refused_and_not_cut(tmp_path):
    make_by_ffmpeg(tmp_path / "a.m4a")
    whole = (tmp_path / "a.m4a").read_bytes()
    (tmp_path / "a.m4a").write_bytes(whole + whole)
    with pytest.raises(UserError, match=f"another recording from byte {len(whole)} on"):
        load_audio(tmp_path / "a.m4a", 16000)


@pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="needs ffmpeg")
@pytest.mark.parametrize("subtype", ["VORBIS", "OPUS"])
def test_a_chain_of_oggs_is_read_to_the_end_of_the_last(tmp_path, subtype):
    path = tmp_path / "a.ogg"
    soundfile.write(path, make_tone(16000, 16000), 16000, format="OGG", subtype=subtype)
    path.write_bytes(2 * path.read_bytes())
    assert len(load_audio(path, 16000)) == pytest.approx(32000, abs=400)


def test_a_chain_of_oggs_is_refused_without_ffmpeg(tmp_path, monkeypatch):
    path = tmp_path / "a.ogg"
    soundfile.write(path, make_tone(16000, 16000), 16000)
    path.write_bytes(2 * path.read_bytes())
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match="is a chain of ogg streams, which needs ffmpeg"):
        load_audio(path, 16000)


@pytest.mark.parametrize("after", [b"TAG" + bytes(125), bytes(4096), b"ID3junk" * 99])
def test_a_tag_after_the_sound_of_a_flac_is_ignored(tmp_path, after):
    path = tmp_path / "a.flac"
    soundfile.write(path, make_tone(5000, 16000), 16000)
    path.write_bytes(path.read_bytes() + after)
    assert len(load_audio(path, 16000)) == 5000


@pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="needs ffmpeg")
@pytest.mark.parametrize("suffix", ["wav", "flac", "aiff", "ogg", "mp3"])
def test_a_tag_before_the_sound_is_skipped_whatever_the_kind(tmp_path, suffix):
    path = tmp_path / f"a.{suffix}"
    soundfile.write(path, make_tone(16000, 16000), 16000)
    tag = b"ID3\x03\0\0\0\0\x01\0" + bytes(128)
    path.write_bytes(tag + path.read_bytes())
    assert len(load_audio(path, 16000)) == pytest.approx(16000, abs=300)


@pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="needs ffmpeg")
def test_an_mp3_that_begins_with_zeros_is_read(tmp_path):
    path = tmp_path / "a.mp3"
    soundfile.write(path, make_tone(16000, 16000), 16000)
    path.write_bytes(bytes(5000) + path.read_bytes())
    assert len(load_audio(path, 16000)) == pytest.approx(16000, abs=2000)
    path.write_text("no sound at all\n" * 100)
    with pytest.raises(UserError, match="cannot be decoded: Format not recognised; give a compl"):
        load_audio(path, 16000)
