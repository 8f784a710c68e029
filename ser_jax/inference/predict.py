"""The emotion that a run predicts for sound files."""

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from ser_jax.audio.reading import find_sound, stream_int16
from ser_jax.errors import UserError, check
from ser_jax.features.batching import Dataset, compute_features
from ser_jax.features.corpus_features import make_fast_front_end
from ser_jax.features.frontend import count_feature_frames, count_least_samples
from ser_jax.inference.load import LoadedRun, load_run
from ser_jax.inference.normalising import fit_to_windows, normalise_windows
from ser_jax.inference.sound_files import Files, list_names
from ser_jax.machine.jax_defaults import with_jax_defaults
from ser_jax.progress import progress

_BATCH = 32  # windows at a time
_Path = str | bytes | Path


@dataclass(frozen=True)
class Prediction:
    """The prediction for one window of one file."""

    file: str
    start_s: float
    end_s: float
    label: str
    """The most probable emotion."""
    probabilities: dict[str, float]
    """By emotion; they sum to 1."""


class _Window(NamedTuple):
    """A part of a file: the file's number, first and last sample, and the samples, int16 [n]."""

    file: int
    start: int
    end: int
    wave_n: np.ndarray


@with_jax_defaults
def predict(
    run_dir: str | Path,
    files: _Path | Iterable[_Path],
    on_error: Callable[[UserError], None] | None = None,
) -> list[Prediction]:
    """Predict the emotion in sound files, in windows of the run's clip length.

    A file no longer than that is one window. Of a longer file, what is left after the last full
    window is one more if it is at least half a window; if it is shorter, one more window ends with
    the file and overlaps the one before; less than one analysis window (n_fft) is left out.
    However long a file is, only some megabytes of it are in memory.

    For a run with `data.trim_db`, windows begin and end where the file sounds; since that is known
    only at its end, the whole file is in memory, 115 MB for an hour at 16 kHz.

    For a run with `features.normalise` speaker or corpus, all files count as one speaker's, and are
    read twice.

    Args:
      run_dir: a run directory.
      files: one file or several, of any rate and any number of channels: what libsndfile reads,
        such as wav, flac, ogg and mp3, and what ffmpeg reads, where it is on PATH.
      on_error: called for each bad file, in order, with what is wrong; such files are left out.
        `None`: the error of the first is raised, and nothing is returned.

    Returns:
      The windows of all good files in order.

    Raises:
      UserError: as `load_run`; and, unless `on_error` is told, a file that is missing, a folder,
        unreadable, no sound, truncated, or shorter than one analysis window; samples or an open
        file in place of a name.
    """
    found = Files(list_names(files), on_error)
    run = load_run(run_dir)
    windows = ((w.file, w.wave_n) for w in _cut_files(run, found, lambda part: None))
    run = fit_to_windows(run, windows, bad=found.errors)
    predictions: list[tuple[int, Prediction]] = []
    with progress("predicting", len(found.names), "files") as advance:
        windows = _cut_files(run, found, advance)
        while batch := list(itertools.islice(windows, _BATCH)):
            numbers = [window.file for window in batch]
            predictions += zip(numbers, _predict_batch(run, batch, found.names), strict=True)
    found.tell()
    return [p for number, p in predictions if number not in found.errors]


def _cut_files(run: LoadedRun, files: Files, advance: Callable[[float], None]) -> Iterator[_Window]:
    """The windows of all files that can be read."""
    for number in range(len(files.names)):
        if number not in files.errors:
            with files.expecting_errors(number):
                yield from _cut_file(run, files, number, advance)


def _cut_file(
    run: LoadedRun, files: Files, number: int, advance: Callable[[float], None]
) -> Iterator[_Window]:
    data, least = run.config.data, count_least_samples(run.config.features)
    blocks, lead = _read(files, number, data.rate_hz, least, advance), 0
    if data.trim_db is not None:
        wave_N = np.concatenate(list(blocks))
        sound = find_sound(wave_N, data.rate_hz, data.trim_db, data.trim_margin_s)
        blocks, lead = iter([wave_N[sound]]), sound.start
    for start, wave_n in cut_windows(blocks, run.n_samples, least=least):
        yield _Window(number, lead + start, lead + start + len(wave_n), wave_n)


def _read(
    files: Files, number: int, rate_hz: int, least: int, advance: Callable[[float], None]
) -> Iterator[np.ndarray]:
    """The samples of a file block by block, int16 [n]; at its end, whether they will do."""
    name, n_samples, shares = files.names[number], 0, [0.0]

    def count(share: float) -> None:
        shares.append(share)
        advance(share)

    def keep(warning: str) -> None:
        files.warnings[number] = warning

    for wave_N in stream_int16(name, rate_hz, advance=count, tell=keep):
        n_samples += len(wave_N)
        yield wave_N
    check(
        n_samples >= least,
        f"{name}: {n_samples / rate_hz:.3f} s long; the least is one analysis window, "
        f"{least / rate_hz:.3f} s ({least} samples); give a longer recording",
    )
    advance(1 - sum(shares))


def cut_windows(
    blocks: Iterable[np.ndarray], window: int, *, least: int
) -> Iterator[tuple[int, np.ndarray]]:
    """The windows of `list_windows` of a sound read in blocks, each as soon as it is complete.

    Args:
      blocks: its samples, int16 [n], at least one in all.
      window, least: as for `list_windows`.

    Yields:
      The number of a window's first sample, and its samples, int16 [n].
    """
    held_N = np.zeros(0, np.int16)  # the last window yielded, and what follows it
    first = end = 0  # of `held_N`; of the last window
    for block_N in blocks:
        held_N = np.concatenate([held_N, block_N])
        while first + len(held_N) >= end + window:
            yield end, held_N[end - first : end - first + window]
            end += window
        kept = max(end - window, first)
        held_N, first = held_N[kept - first :].copy(), kept
    for start, stop in list_windows(first + len(held_N), window, least=least):
        if stop > end:
            yield start, held_N[start - first : stop - first]


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


def _predict_batch(
    run: LoadedRun, windows: Sequence[_Window], names: Sequence[str]
) -> Iterator[Prediction]:
    config, rate_hz = run.config, run.config.data.rate_hz
    wave_BN = np.zeros((_BATCH, run.n_samples), np.int16)  # full, so that one shape is compiled
    for row_N, window in zip(wave_BN, windows, strict=False):
        row_N[: len(window.wave_n)] = window.wave_n
    length_B = np.zeros(_BATCH, np.int32)
    length_B[: len(windows)] = [len(window.wave_n) for window in windows]
    front_end = make_fast_front_end(config.features, rate_hz)
    x_BTF = normalise_windows(run, compute_features(front_end, wave_BN, chunk=_BATCH), length_B)
    dataset = Dataset(
        x_BTF=jnp.asarray(x_BTF),
        frames_B=jnp.asarray(count_feature_frames(config.features, length_B), jnp.int32),
        label_B=jnp.zeros(_BATCH, jnp.int32),
        normaliser=run.normaliser,
        draw=jnp.zeros((), jnp.int32),
    )
    logits_BC = run.compute_logits(dataset, np.arange(_BATCH, dtype=np.int32), len(windows))
    for window, probability_C in zip(windows, _compute_softmax(logits_BC), strict=True):
        yield Prediction(
            file=names[window.file],
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
