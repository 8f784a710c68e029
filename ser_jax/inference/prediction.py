"""The emotion in sound files, as a run hears it."""

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from ser_jax.audio import find_sound, load_int16
from ser_jax.batching import Dataset, compute_features
from ser_jax.errors import check
from ser_jax.features import count_feature_frames, count_least_samples
from ser_jax.inference.loading import LoadedRun, load_run
from ser_jax.inputs import make_fast_front_end
from ser_jax.precision import in_32_bits
from ser_jax.progress import progress

_BATCH = 32  # windows at a time


@dataclass(frozen=True)
class Prediction:
    """What a run hears in one window of one file."""

    file: str
    start_s: float
    end_s: float
    label: str
    """The most probable emotion."""
    probabilities: dict[str, float]
    """By emotion; they sum to 1."""


class _Window(NamedTuple):
    """A part of a file: its name, first and last sample, and the samples, int16 [n]."""

    file: str
    start: int
    end: int
    wave_n: np.ndarray


@in_32_bits
def predict(run_dir: str | Path, files: Iterable[str | Path]) -> list[Prediction]:
    """Tell the emotion in sound files, in windows of the run's clip length.

    A file no longer than that is one window. Of a longer file, what is left after the last full
    window is one more if it is at least half a window; if it is shorter, one more window ends with
    the file and overlaps the one before; less than one analysis window (n_fft) is left out.

    Of a run with `data.trim_db` the windows begin and end where the file sounds.

    Args:
      run_dir: a run directory.
      files: wav, flac, ogg or mp3 files of any rate and any number of channels.

    Returns:
      The windows of all files in order. Nothing is returned if one file is bad.

    Raises:
      UserError: as `load_run`; a file that is missing, a folder, unreadable, no sound, or shorter
        than one analysis window.
    """
    names = [str(file) for file in files]
    for name in names:  # what is cheap to see is seen before the first second of work
        check(not Path(name).is_dir(), f"{name}: is a folder; name the files in it, as {name}/*")
        check(Path(name).exists(), f"{name}: no such file; check the path")
    run = load_run(run_dir)
    predictions = []
    with progress("predicting", len(names), "files") as advance:
        windows = _cut_files(run, names, advance)
        while batch := list(itertools.islice(windows, _BATCH)):
            predictions += _predict_batch(run, batch)
    return predictions


def _cut_files(
    run: LoadedRun, names: Sequence[str], advance: Callable[[float], None]
) -> Iterator[_Window]:
    """The windows of all files; one file is in memory at a time."""
    data, least = run.config.data, count_least_samples(run.config.features)
    rate_hz = data.rate_hz
    for name in names:
        wave_N = load_int16(name, rate_hz)
        check(
            len(wave_N) >= least,
            f"{name}: {len(wave_N) / rate_hz:.3f} s long; the least is one analysis window, "
            f"{least / rate_hz:.3f} s ({least} samples); give a longer recording",
        )
        sound = find_sound(wave_N, rate_hz, data.trim_db, data.trim_margin_s)
        bounds = list_windows(sound.stop - sound.start, run.n_samples, least=least)
        for start, end in bounds:
            first, last = sound.start + start, sound.start + end
            yield _Window(name, first, last, wave_N[first:last])
            advance(1 / len(bounds))


def list_windows(length: int, window: int, *, least: int) -> list[tuple[int, int]]:
    """First and last sample (exclusive) of the windows of a file; see `predict`.

    Args:
      length: samples of the file.
      window: samples of a window.
      least: a remainder shorter than this is left out.
    """
    if length <= window:
        return [(0, length)]
    n_full, rest = divmod(length, window)
    bounds = [(number * window, (number + 1) * window) for number in range(n_full)]
    if rest >= window / 2:
        bounds.append((length - rest, length))
    elif rest >= least:
        bounds.append((length - window, length))
    return bounds


def _predict_batch(run: LoadedRun, windows: Sequence[_Window]) -> Iterator[Prediction]:
    config, rate_hz = run.config, run.config.data.rate_hz
    wave_BN = np.zeros((_BATCH, run.n_samples), np.int16)  # full, so that one shape is compiled
    for row_N, window in zip(wave_BN, windows, strict=False):
        row_N[: len(window.wave_n)] = window.wave_n
    length_B = np.zeros(_BATCH, np.int32)
    length_B[: len(windows)] = [len(window.wave_n) for window in windows]
    front_end = make_fast_front_end(config.features, rate_hz)
    x_BTF = compute_features(front_end, wave_BN, chunk=_BATCH)
    dataset = Dataset(
        x_BTF=jnp.asarray(x_BTF),
        frames_B=jnp.asarray(count_feature_frames(config.features, length_B), jnp.int32),
        label_B=jnp.zeros(_BATCH, jnp.int32),
        normaliser=run.normaliser,
        draw=jnp.zeros((), jnp.int32),
    )
    index_SB = np.arange(_BATCH, dtype=np.int32)[None, :]
    logits_BC = run.programs.predict(run.variables, dataset, index_SB)[: len(windows)]
    check(
        bool(np.isfinite(logits_BC).all()),
        f"{run.run_dir}: the network gives no finite numbers; train again with a smaller "
        "train.learning_rate",
    )
    for window, probability_C in zip(windows, _compute_softmax(logits_BC), strict=True):
        yield Prediction(
            file=window.file,
            start_s=round(window.start / rate_hz, 3),
            end_s=round(window.end / rate_hz, 3),
            label=run.labels[int(probability_C.argmax())],
            probabilities=dict(zip(run.labels, probability_C.tolist(), strict=True)),
        )


def _compute_softmax(logits_BC: np.ndarray) -> np.ndarray:
    """Probabilities in float64, so that they sum to 1 as printed."""
    shifted_BC = logits_BC.astype(np.float64) - logits_BC.max(axis=1, keepdims=True)
    power_BC = np.exp(shifted_BC)
    return power_BC / power_BC.sum(axis=1, keepdims=True)
