"""What a run leaves beside its log: scores, metrics.json, facts of checkpoints, a spectrogram."""

import io
from pathlib import Path
from typing import Any

import numpy as np

from ser_jax.config import Config, FeaturesConfig, compute_identity
from ser_jax.corpora import Corpus
from ser_jax.errors import check
from ser_jax.features import Normaliser, compute_log_mel
from ser_jax.files import write_atomic
from ser_jax.metrics import compute_report
from ser_jax.splits import Split


def describe(corpus: Corpus, normaliser: Normaliser, config: Config) -> dict[str, Any]:
    """What a checkpoint must carry besides the state, so that it can be used alone."""
    return {
        "identity": compute_identity(config),
        "checksum": corpus.checksum,
        "labels": list(corpus.labels),
        "n_samples": int(corpus.wave_BN.shape[1]),
        "mean_F": np.asarray(normaliser.mean_F).tolist(),
        "std_F": np.asarray(normaliser.std_F).tolist(),
    }


def compute_scores(corpus: Corpus, index: np.ndarray, predicted_B: np.ndarray) -> dict[str, Any]:
    """Metrics of the clips numbered `index`, over all and by group, from the predicted classes."""
    attributes = {name: values[index] for name, values in corpus.attributes.items()}
    return compute_report(corpus.labels, corpus.emotion_B[index], predicted_B, attributes)


def make_metrics(
    config: Config,
    corpus: Corpus,
    split: Split,
    *,
    epochs: int,
    best_epoch: int,
    seconds: float,
    scores: dict[str, Any],
) -> dict[str, Any]:
    """What metrics.json holds; `scores` are the metrics of val and test."""
    return {
        "protocol": split.protocol, "fold": split.fold, "seed": config.seed,
        "corpus": corpus.name, "model": config.model.name, "identity": compute_identity(config),
        "checksum": corpus.checksum, "epochs": epochs, "best_epoch": best_epoch,
        "seconds": round(seconds, 1), **scores,
    }  # fmt: skip


def check_frames(config: Config, n_frames: int, n_features: int) -> None:
    """Each convolution block halves both axes, and something must be left."""
    if config.model.name in ("lstm", "wav2vec2"):
        return
    least = 2 ** len(config.model.channels)
    check(
        n_frames >= least and n_features >= least,
        f"model.channels={list(config.model.channels)}: {len(config.model.channels)} poolings need "
        f"at least {least} frames and features, not {n_frames} and {n_features}; take fewer "
        "blocks, longer clips (data.clip_s) or a shorter features.hop_length",
    )


def save_spectrogram(run_dir: Path, features: FeaturesConfig, corpus: Corpus, clip: int) -> None:
    """Keep one clip's log-mel spectrogram for the report, whatever features the network takes."""
    wave_N = corpus.wave_BN[clip].astype(np.float32) / 32768
    db_TF = compute_log_mel(
        wave_N, rate_hz=corpus.rate_hz, n_fft=features.n_fft, hop_length=features.hop_length,
        n_mels=features.n_mels, fmin_hz=features.fmin_hz, fmax_hz=features.fmax_hz,
        top_db=features.top_db,
    )  # fmt: skip
    path = run_dir / "figures" / "spectrogram.npz"
    buffer = io.BytesIO()
    np.savez_compressed(
        buffer, db_TF=np.asarray(db_TF), rate_hz=corpus.rate_hz, hop_length=features.hop_length,
        file_name=corpus.file_names[clip],
    )  # fmt: skip
    write_atomic(path, buffer.getvalue())
