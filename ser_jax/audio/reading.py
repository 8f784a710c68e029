"""Sound files to waveforms at one rate, and FLAC bytes to samples; nothing else decodes audio."""

import contextlib
import io
import math
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from ser_jax.audio.decoding import BLOCK, open_sound
from ser_jax.audio.levels import Level
from ser_jax.audio.samples import FULL_SCALE, round_to_int16, to_float
from ser_jax.errors import FewWarnings, check

_LOUD = 4.0  # times full scale: more than lossy formats overshoot
_DELAY_S = 0.1  # the resampler's latency

_no_sound = FewWarnings(after="further files without sound are not named")
_loud = FewWarnings(after="further files beyond full scale are not named")


def stream_audio(
    path: str | Path,
    rate_hz: int,
    start_s: float = 0.0,
    block_s: float | None = None,
    advance: Callable[[float], None] = lambda share: None,
    tell: Callable[[str], None] | None = None,
) -> Iterator[np.ndarray]:
    """A sound file as one mono waveform, block by block; full scale is 1.

    Channels are averaged, and another rate is resampled with soxr's HQ, as librosa's soxr_hq does.
    Only some megabytes are in memory, however long the file is.

    Args:
      path: a file that libsndfile reads, such as wav, flac, ogg or mp3, or, if ffmpeg is on PATH,
        any that it reads; at any rate, with any number of channels.
      rate_hz: rate of the result, in Hz.
      start_s: where to start, in seconds.
      block_s: seconds to decode at a time, at most the default.
      advance: called with each block's share of the file, if the header gives its length.
      tell: called at the end with the reason, if the file has no audible sound; by default warns
        of the first such files.

    Yields:
      float32 [n].

    Raises:
      UserError: the file is missing, unreadable, not audio, truncated, empty, or has NaN or inf.
    """
    path = Path(path)
    with open_sound(path) as sound:
        resample, level = _make_resampler(sound.rate_hz, rate_hz), Level()
        n_read = n_made = 0
        block = BLOCK if block_s is None else math.ceil((block_s + _DELAY_S) * sound.rate_hz)
        for block_NC in sound.read(round(start_s * sound.rate_hz), min(block, BLOCK)):
            check(
                bool(np.isfinite(block_NC).all()),
                f"{path}: holds NaN or infinite samples; export it again or remove it",
            )
            mix_N = block_NC.mean(axis=1, dtype=np.float32)
            level.add(block_NC, mix_N)
            wave_N = resample(mix_N, False)
            n_read, n_made = n_read + len(block_NC), n_made + len(wave_N)
            if sound.n_frames:
                advance(len(block_NC) / sound.n_frames)
            yield wave_N
        check(n_read > 0, f"{path}: holds no samples; remove it or record it again")
        if said := level.describe():
            (tell or _no_sound.add)(f"{path}: {said}")
        if sound.rate_hz != rate_hz:
            # As many as librosa returns, which appends a zero if soxr returns one less.
            missing = math.ceil(n_read * (rate_hz / sound.rate_hz)) - n_made
            last_N = resample(np.zeros(0, np.float32), True)[:missing]
            yield np.pad(last_N, (0, missing - len(last_N)))


def _make_resampler(source_hz: int, rate_hz: int) -> Callable[[np.ndarray, bool], np.ndarray]:
    """A function (next samples, whether they are the last) -> samples at `rate_hz`."""
    if source_hz == rate_hz:
        return lambda wave_N, last: wave_N
    import soxr

    stream = soxr.ResampleStream(source_hz, rate_hz, 1, dtype="float32", quality="HQ")
    return lambda wave_N, last: stream.resample_chunk(wave_N, last=last)


def stream_int16(
    path: str | Path,
    rate_hz: int,
    start_s: float = 0.0,
    block_s: float | None = None,
    advance: Callable[[float], None] = lambda share: None,
    tell: Callable[[str], None] | None = None,
) -> Iterator[np.ndarray]:
    """`stream_audio` rounded to int16 [n].

    Samples beyond full scale are clipped, with a warning if they are far beyond: most likely
    integers written as floats.
    """
    warned = False
    for wave_N in stream_audio(path, rate_hz, start_s, block_s, advance, tell):
        peak = float(np.abs(wave_N).max(initial=0))
        if peak > _LOUD and not warned:
            warned = True
            _loud.add(
                f"{path}: samples reach {peak:.0f} times full scale and are clipped; if they are "
                "integers written as floats, divide them by the largest of their type, such as "
                "32768"
            )
        yield round_to_int16(wave_N * FULL_SCALE)


def load_audio(
    path: str | Path, rate_hz: int, start_s: float = 0.0, length_s: float | None = None
) -> np.ndarray:
    """`stream_audio` in one array, float32 [N].

    Args:
      path, rate_hz, start_s: as for `stream_audio`.
      length_s: seconds to read at most; None reads to the end of the file. No more is decoded, and
        the result equals the start of the whole.

    Raises:
      UserError: as `stream_audio`.
    """
    most = None if length_s is None else round(length_s * rate_hz)
    return _collect(stream_audio(path, rate_hz, start_s, length_s), most)


def load_int16(
    path: str | Path, rate_hz: int, length_s: float | None = None, start_s: float = 0.0
) -> np.ndarray:
    """`stream_int16` in one array, int16 [N]; arguments as for `load_audio`."""
    most = None if length_s is None else round(length_s * rate_hz)
    return _collect(stream_int16(path, rate_hz, start_s, length_s), most)


def load_clip(
    path: str | Path, rate_hz: int, length_s: float | None = None, start_s: float = 0.0
) -> np.ndarray:
    """`load_int16` without the warning if all samples are 0: the caller reports silent clips."""
    most = None if length_s is None else round(length_s * rate_hz)
    said: list[str] = []
    wave_N = _collect(stream_int16(path, rate_hz, start_s, length_s, tell=said.append), most)
    if wave_N.any():
        for message in said:
            _no_sound.add(message)
    return wave_N


def _collect(blocks: Iterator[np.ndarray], most: int | None) -> np.ndarray:
    """The first `most` samples of all blocks."""
    with contextlib.closing(blocks):  # pyright: ignore[reportArgumentType]
        found = []
        n_samples = 0
        for block_N in blocks:
            found.append(block_N)
            n_samples += len(block_N)
            if most is not None and n_samples >= most:
                break
    return np.concatenate(found)[:most]


def find_sound(wave_N: np.ndarray, rate_hz: int, trim_db: float | None, margin_s: float) -> slice:
    """A clip without silent ends: from its first to its last frame within `trim_db` of the loudest.

    Args:
      wave_N: samples, int16.
      rate_hz: their rate.
      trim_db: how far a frame's RMS may be below the loudest; None keeps all.
      margin_s: seconds to keep on either side, if there are any.

    Returns:
      The samples to keep; all of them if the clip is silent.

    Source: `librosa.effects.trim`, frames of 2048 samples every 512.
    """
    if trim_db is None or not wave_N.any():
        return slice(0, len(wave_N))
    import librosa

    _, (start, end) = librosa.effects.trim(to_float(wave_N), top_db=trim_db)
    margin = round(margin_s * rate_hz)
    return slice(max(int(start) - margin, 0), min(int(end) + margin, len(wave_N)))


def import_decoders() -> None:
    """Import what `load_audio` needs: threads that import it at once may see a partial module."""
    import soundfile  # noqa: F401
    import soxr  # noqa: F401


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
    """Length of a sound file in seconds.

    Taken from the header; a file whose header does not say is decoded.

    Raises:
      UserError: as `stream_audio`.
    """
    with open_sound(Path(path)) as sound:
        n_frames = sound.n_frames
        if n_frames is None:
            n_frames = sum(map(len, sound.read(0, BLOCK)))
        return n_frames / sound.rate_hz
