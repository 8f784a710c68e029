"""Where the fit of a hidden Markov model starts: clusters of the frames."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from ser_jax.config import ClassicalConfig
from ser_jax.systems.frames import Arrays


def init_hmm(
    clips: Sequence[np.ndarray], settings: ClassicalConfig, seed: int, floor_F: np.ndarray
) -> Arrays:
    """Initial values: equal parts of each clip (left to right) or clusters (ergodic) as states."""
    K = settings.states
    x_TF = np.concatenate(clips)
    if settings.topology == "left_to_right":
        state_T = np.concatenate([np.arange(len(clip)) * K // len(clip) for clip in clips])
        start_K = np.eye(K)[0]
        transition_KK = 0.5 * (np.eye(K) + np.eye(K, k=1))
        transition_KK[-1, -1] = 1
    else:
        state_T = _cluster(x_TF, K, seed)
        start_K, transition_KK = np.full(K, 1 / K), np.full((K, K), 1 / K)
    parts = [_init_of_state(x_TF[state_T == state], settings, seed, floor_F) for state in range(K)]
    weight, mean, covariance = (np.stack(part) for part in zip(*parts, strict=True))
    return {
        "start_K": start_K, "transition_KK": transition_KK, "weight_KM": weight,
        "mean_KMF": mean, name_covariance(settings): covariance,
    }  # fmt: skip


def _init_of_state(
    x_TF: np.ndarray, settings: ClassicalConfig, seed: int, floor_F: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Weights [M], means [M, F] and covariances of the Gaussians of one state."""
    M, F = settings.mixtures, x_TF.shape[1]
    cluster_T = _cluster(x_TF, M, seed)
    groups = [x_TF[cluster_T == number] for number in range(M)]
    groups = [group if len(group) else x_TF for group in groups]
    weight_M = np.array([len(group) for group in groups], np.float64)
    if settings.covariance == "full":
        covariance = np.stack([np.cov(g.T, bias=True).reshape(F, F) for g in groups])
        covariance += np.diag(floor_F)[None]
    else:
        covariance = np.stack([group.var(axis=0) for group in groups]) + floor_F[None]
    return weight_M / weight_M.sum(), np.stack([g.mean(axis=0) for g in groups]), covariance


def _cluster(x_TF: np.ndarray, n_clusters: int, seed: int) -> np.ndarray:
    if n_clusters == 1 or len(x_TF) < n_clusters:
        return np.zeros(len(x_TF), int)
    from sklearn.cluster import KMeans

    once: Any = 1
    return KMeans(n_clusters, n_init=once, random_state=seed).fit_predict(x_TF)


def name_covariance(settings: ClassicalConfig) -> str:
    """The name of the covariances of one emotion, whose last letters are their axes."""
    return "covariance_KMFF" if settings.covariance == "full" else "covariance_KMF"
