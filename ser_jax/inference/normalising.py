"""Files for a run that normalises by its input: by window, or over all windows of a call."""

import dataclasses
import itertools
from collections.abc import Container, Iterable

import numpy as np

from ser_jax.features.batching import compute_features
from ser_jax.features.cmvn import normalise_clips
from ser_jax.features.corpus_features import make_fast_front_end
from ser_jax.features.frontend import count_feature_frames
from ser_jax.features.normaliser import Normaliser
from ser_jax.inference.load import LoadedRun

_CHUNK = 32  # windows at a time


def fit_to_windows(
    run: LoadedRun, windows: Iterable[tuple[int, np.ndarray]], bad: Container[int]
) -> LoadedRun:
    """The run, normalising over these windows where training did so by speaker or corpus.

    The speakers are unknown: all windows count as one speaker, and as one corpus.

    Args:
      run: any; with another normalisation it is returned as it is, and no window is read.
      windows: of every window the number of its file and its samples, int16, no longer than the
        run's clips.
      bad: numbers of files that do not count; called once the windows are read, since some files
        turn out bad only at their end.
    """
    if run.config.features.normalise not in ("speaker", "corpus"):
        return run
    front_end = make_fast_front_end(run.config.features, run.config.data.rate_hz)
    by_file: dict[int, np.ndarray] = {}  # frames, sums and sums of squares, [3, F]
    windows = iter(windows)
    while chunk := list(itertools.islice(windows, _CHUNK)):
        wave_BN = np.zeros((len(chunk), run.n_samples), np.int16)
        for row_N, (_, wave_n) in zip(wave_BN, chunk, strict=True):
            row_N[: len(wave_n)] = wave_n
        x_BTF = compute_features(front_end, wave_BN, chunk=_CHUNK).astype(np.float64)
        frames_B = count_real(run, np.array([len(wave_n) for _, wave_n in chunk]), x_BTF.shape[1])
        for (file, _), x_TF, n_frames in zip(chunk, x_BTF, frames_B, strict=True):
            x_TF = x_TF[:n_frames]
            sums_3F = np.stack([np.ones_like(x_TF), x_TF, np.square(x_TF)]).sum(axis=1)
            by_file[file] = by_file.get(file, 0) + sums_3F
    good = [sums_3F for file, sums_3F in by_file.items() if file not in bad]
    if not good:
        return run
    count_F, sum_F, square_F = np.sum(good, axis=0)
    mean_F = sum_F / count_F
    std_F = np.sqrt(np.maximum(square_F / count_F - np.square(mean_F), 0))
    std_F = np.where(std_F > 1e-5, std_F, 1)
    normaliser = Normaliser(mean_F.astype(np.float32), std_F.astype(np.float32))  # pyright: ignore
    return dataclasses.replace(run, normaliser=normaliser)


def normalise_windows(run: LoadedRun, x_BTF: np.ndarray, length_B: np.ndarray) -> np.ndarray:
    """Features of windows, each normalised by itself where training did so.

    Args:
      run: any.
      x_BTF: features.
      length_B: samples of each window.
    """
    if run.config.features.normalise != "clip":
        return x_BTF
    return np.asarray(normalise_clips(x_BTF, count_real(run, length_B, x_BTF.shape[1])))


def count_real(run: LoadedRun, length_B: np.ndarray, n_frames: int) -> np.ndarray:
    """Frames of each window that statistics are taken over."""
    if not run.is_masked:
        return np.full(len(length_B), n_frames)
    return np.asarray(count_feature_frames(run.config.features, length_B))
