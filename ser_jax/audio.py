"""Sound files to waveforms at one rate, and FLAC bytes to samples; nothing else decodes audio."""

import io
import struct
from pathlib import Path
from typing import Any

import numpy as np

from ser_jax.errors import UserError, check

FULL_SCALE = 32768  # int16 samples per unit of a float waveform
_SOURCE_RATES_HZ = (1000, 768000)  # a damaged header must not ask for gigabytes when resampled


def load_audio(
    path: str | Path, rate_hz: int, start_s: float = 0.0, length_s: float | None = None
) -> np.ndarray:
    """A sound file as one mono waveform, full scale being 1.

    Channels are averaged, and another rate is resampled with librosa's soxr_hq.

    Args:
      path: wav, flac, ogg or mp3 file of any rate and any number of channels.
      rate_hz: rate of the result, in Hz.
      start_s, length_s: part of the file to read, in seconds; None: to its end.

    Returns:
      float32 [N].

    Raises:
      UserError: the file is missing, unreadable, no audio, truncated, empty, or holds NaN or inf.
    """
    path = Path(path)
    wave_NC, source_hz = _read(path, start_s, length_s)
    _check_complete_wav(path)
    check(len(wave_NC) > 0, f"{path}: holds no samples; remove it or record it again")
    check(
        bool(np.isfinite(wave_NC).all()),
        f"{path}: holds NaN or infinite samples; export it again or remove it",
    )
    wave_N = wave_NC.mean(axis=1, dtype=np.float32)
    if source_hz == rate_hz:
        return wave_N
    import librosa

    wave_N = librosa.resample(wave_N, orig_sr=source_hz, target_sr=rate_hz, res_type="soxr_hq")
    check(len(wave_N) > 0, f"{path}: too short to resample to {rate_hz} Hz; remove it")
    return np.ascontiguousarray(wave_N, dtype=np.float32)


def load_int16(path: str | Path, rate_hz: int) -> np.ndarray:
    """`load_audio` rounded to int16 [N]; what lies beyond full scale is clipped."""
    scaled_N = np.rint(load_audio(path, rate_hz) * FULL_SCALE)
    return np.clip(scaled_N, -FULL_SCALE, FULL_SCALE - 1).astype(np.int16)


def find_sound(wave_N: np.ndarray, rate_hz: int, trim_db: float | None, margin_s: float) -> slice:
    """Where a clip sounds: from its first to its last frame within `trim_db` of the loudest.

    Args:
      wave_N: samples, int16.
      rate_hz: their rate.
      trim_db: by how much a frame's RMS may lie below that of the loudest; None: by any.
      margin_s: what is kept on either side, as far as there is any.

    Returns:
      The samples to keep; all of a clip of nothing but zeros, or where `trim_db` is None.

    Source: `librosa.effects.trim`, frames of 2048 samples every 512.
    """
    if trim_db is None or not wave_N.any():
        return slice(0, len(wave_N))
    import librosa

    _, (start, end) = librosa.effects.trim(wave_N / np.float32(FULL_SCALE), top_db=trim_db)
    margin = round(margin_s * rate_hz)
    return slice(max(int(start) - margin, 0), min(int(end) + margin, len(wave_N)))


def import_decoders() -> None:
    """Import what `load_audio` needs; threads that do so at once may see half a module."""
    import librosa
    import soundfile  # noqa: F401

    _ = librosa.resample  # librosa imports its parts when they are named


def encode_flac(wave_N: np.ndarray, rate_hz: int) -> bytes:
    """Mono int16 samples [N] as FLAC bytes, lossless."""
    import soundfile

    file = io.BytesIO()
    soundfile.write(file, wave_N, rate_hz, format="FLAC", subtype="PCM_16")
    return file.getvalue()


def decode_flac(flac: bytes) -> np.ndarray:
    """FLAC bytes of `encode_flac` as mono int16 samples [N]."""
    import soundfile

    return soundfile.read(io.BytesIO(flac), dtype="int16")[0]


def measure_audio(path: str | Path) -> float:
    """Length of a sound file in seconds, by its header.

    Raises:
      UserError: the file is missing, unreadable, or no audio.
    """
    import soundfile

    try:
        return soundfile.info(str(path)).duration
    except (soundfile.LibsndfileError, RuntimeError, OSError) as error:
        raise UserError(f"{path}: cannot be decoded; give a wav, flac, ogg or mp3 file") from error


def _read(path: Path, start_s: float = 0.0, length_s: float | None = None) -> tuple[Any, int]:
    """Samples, float32 [N, channels], and rate in Hz."""
    import soundfile

    try:
        size = path.stat().st_size
        with path.open("rb") as file:  # soundfile would hide the system's own reason
            file.read(1)
    except OSError as error:
        reason = "no such file" if isinstance(error, FileNotFoundError) else error.strerror
        raise UserError(f"{path}: {reason}; check the path and the permissions") from error
    check(size > 0, f"{path}: the file is empty (0 bytes); copy or download it again")
    try:
        with soundfile.SoundFile(path) as file:
            low, high = _SOURCE_RATES_HZ
            check(
                low <= file.samplerate <= high,
                f"{path}: its header says {file.samplerate} Hz; "
                f"needs a file between {low} and {high} Hz",
            )
            start = round(start_s * file.samplerate)
            wanted = -1 if length_s is None else round(length_s * file.samplerate)
            expected = 0 if start_s or wanted >= 0 else file.frames
            file.seek(min(start, file.frames))
            wave_NC = file.read(wanted, dtype="float32", always_2d=True)
            lossless = file.format in ("FLAC", "WAV", "WAVEX", "RF64")
            rate_hz = file.samplerate
    except (soundfile.LibsndfileError, RuntimeError) as error:
        reason = getattr(error, "error_string", str(error)).strip().rstrip(".")
        raise UserError(
            f"{path}: cannot be decoded: {reason}; give a whole wav, flac, ogg or mp3 file"
        ) from error
    # The frame count of mp3 and ogg is an estimate; that of flac and wav is a promise.
    if lossless and len(wave_NC) < expected:
        _raise_truncated(path, f"{len(wave_NC)} of {expected} samples")
    return wave_NC, rate_hz


def _raise_truncated(path: Path, found: str) -> None:
    raise UserError(f"{path}: truncated: holds {found}; copy or download it again")


def _check_complete_wav(path: Path) -> None:
    """Raise where a wav's data chunk promises more bytes than the file holds.

    libsndfile returns what is there without a word, so a clip cut short would pass for a whole one.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        riff, _, wave = struct.unpack("<4sI4s", file.read(12).ljust(12, b"\0"))
        if riff != b"RIFF" or wave != b"WAVE":
            return
        while len(header := file.read(8)) == 8:
            name, n_bytes = struct.unpack("<4sI", header)
            if name == b"data":
                left = size - file.tell()
                # Written to a pipe, a wav does not know its length and says the greatest.
                if n_bytes < 0xFFFFFF00 and n_bytes > left:
                    _raise_truncated(path, f"{left} of {n_bytes} bytes")
                return
            file.seek(n_bytes + n_bytes % 2, 1)
