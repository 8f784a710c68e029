"""What an SVM and an HMM see of a clip: its real frames with deltas, and statistics of them."""

from collections.abc import Sequence

import numpy as np

from ser_jax.config import ClassicalConfig, FeaturesConfig
from ser_jax.features.batching import Dataset

_STATISTICS = {"mean": np.mean, "std": np.std, "min": np.min, "max": np.max}

Arrays = dict[str, np.ndarray]
"""A fitted classifier: its arrays by name."""


def compute_deltas(x_TF: np.ndarray, width: int) -> np.ndarray:
    """Slope of each feature by linear regression over `width` frames, the ends repeated.

    Source: S. Young et al., The HTK Book, 5.9, as `librosa.feature.delta(mode='nearest')`.
    """
    half = width // 2
    padded = np.pad(x_TF, ((half, half), (0, 0)), mode="edge")
    T = len(x_TF)
    slope_TF = np.zeros_like(x_TF)
    for lag in range(1, half + 1):
        slope_TF += lag * (padded[half + lag :][:T] - padded[half - lag :][:T])
    return slope_TF / (2 * sum(lag**2 for lag in range(1, half + 1)))


def find_loud_frames(db_T: np.ndarray, trim_db: float) -> slice:
    """From the first to the last frame within `trim_db` of the loudest."""
    (loud,) = np.nonzero(db_T >= db_T.max() - trim_db)
    return slice(int(loud[0]), int(loud[-1]) + 1)


def list_frames(
    dataset: Dataset, index: np.ndarray, settings: ClassicalConfig, features: FeaturesConfig
) -> list[np.ndarray]:
    """The real frames of the clips numbered `index`, normalised, with deltas, float64 [T, F]."""
    raw_BTF, frames_B = np.asarray(dataset.x_BTF), np.asarray(dataset.frames_B)
    mean_F = np.asarray(dataset.normaliser.mean_F, np.float64)
    std_F = np.asarray(dataset.normaliser.std_F, np.float64)
    clips = []
    for clip in index:
        raw_TF = raw_BTF[clip, : frames_B[clip]]
        orders = [(raw_TF - mean_F) / std_F]
        for _ in range(settings.deltas):
            orders.append(compute_deltas(orders[-1], settings.delta_width))
        x_TF = np.concatenate(orders, axis=1)
        if settings.trim_db is not None:
            # The first coefficient is the mean over the bands, but for the DCT's scale.
            if dataset.own is not None:  # loudness before normalisation by speaker
                mean_F, std_F = (np.asarray(x_BF[clip]) for x_BF in dataset.own)
                raw_TF = raw_TF * std_F + mean_F
            is_log_mel = features.kind == "logmel"
            db_T = raw_TF.mean(axis=1) if is_log_mel else raw_TF[:, 0] / features.n_mels**0.5
            x_TF = x_TF[find_loud_frames(db_T, settings.trim_db)]
        clips.append(x_TF)
    return clips


def compute_clip_statistics(clips: Sequence[np.ndarray], names: Sequence[str]) -> np.ndarray:
    """Each statistic of each feature over the frames of each clip, [B, F], statistic by statistic.

    Args:
      clips: frames [T, F] of each clip; their numbers may differ.
      names: of mean, std, min, max.
    """
    return np.stack(
        [np.concatenate([_STATISTICS[n](x_TF, axis=0) for n in names]) for x_TF in clips]
    )
