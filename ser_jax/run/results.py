"""What a run leaves beside its log: scores, predictions, metrics.json, facts, a spectrogram."""

import csv
import dataclasses
import functools
import importlib.metadata
import io
import platform
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np

from ser_jax import __version__
from ser_jax.audio.samples import to_float
from ser_jax.config import Config, FeaturesConfig, compute_identity
from ser_jax.data.corpus import Corpus
from ser_jax.data.cross_corpus import record_pair
from ser_jax.data.splits import Split
from ser_jax.features.frontend import make_front_end
from ser_jax.features.normaliser import Normaliser
from ser_jax.files.atomic import write_atomic
from ser_jax.machine.accelerator import jit
from ser_jax.machine.cores import name_processor
from ser_jax.metrics import compute_report
from ser_jax.run.file_names import PREDICTIONS_FILE
from ser_jax.systems.system import Fitted

_PACKAGES = ("jax", "jaxlib", "flax", "optax", "numpy", "scipy", "scikit-learn")


def describe_run(
    corpus: Corpus, split: Split, normaliser: Normaliser, config: Config
) -> dict[str, Any]:
    """What a checkpoint holds besides the state, so that it can be used alone and is resumed on its
    own clips."""
    return {
        "identity": compute_identity(config),
        "checksum": corpus.checksum,
        "split": split.checksum,
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
    fitted: Fitted,
    scores: dict[str, Any],
    *,
    seconds: float,
) -> dict[str, Any]:
    """What metrics.json holds.

    Args:
      config: of the run.
      corpus, split: its clips.
      fitted: how training ended.
      scores: metrics of val and test.
      seconds: that training took.
    """
    return {
        "protocol": split.protocol, "fold": split.fold, "seed": config.seed,
        **record_pair(config.data), **_name_test_speakers(corpus, split),
        "corpus": corpus.name, "model": config.model.name, "identity": compute_identity(config),
        "checksum": corpus.checksum, "epochs": fitted.epochs, "best_epoch": fitted.best_epoch,
        "seconds": round(seconds, 1), "parameters": fitted.parameters,
        "trained_parameters": fitted.trained_parameters,
        "device": name_device(), "versions": collect_versions(), **scores,
    }  # fmt: skip


def _name_test_speakers(corpus: Corpus, split: Split) -> dict[str, Any]:
    """The test speakers, where a fold is a choice of speakers."""
    if split.protocol == "study":
        return {}
    return {"test_speakers": np.unique(name_speakers(corpus)[split.test]).tolist()}


def name_speakers(corpus: Corpus) -> np.ndarray:
    """The speaker of each clip by the corpus's own name; RAVDESS's actors by their numbers."""
    if corpus.speakers:
        return np.asarray(corpus.speakers)[corpus.actor_B - 1]
    return corpus.actor_B


def write_predictions(
    folder: Path,
    corpus: Corpus,
    index: np.ndarray,
    predicted_B: np.ndarray,
    probability_BC: np.ndarray | None = None,
) -> None:
    """Write the class predicted for each of the clips numbered `index`, with what is known of it.

    One row per clip: file, actor (by the corpus's own name), the corpus' attributes, emotion,
    predicted and, where given, the probability of each class. Statistics that resample speakers or
    pair systems clip by clip are computed from these.

    Raises:
      UserError: the file cannot be written.
    """
    labels = np.asarray(corpus.labels)
    columns = {
        "file": np.asarray(corpus.file_names)[index],
        "actor": name_speakers(corpus)[index],
        **{name: values[index] for name, values in corpus.attributes.items()},
        "emotion": labels[corpus.emotion_B[index]],
        "predicted": labels[np.asarray(predicted_B)],
    }
    if probability_BC is not None:
        columns |= dict(zip(corpus.labels, probability_BC.T, strict=True))
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(zip(*(values.tolist() for values in columns.values()), strict=True))
    write_atomic(folder / PREDICTIONS_FILE, text.getvalue())


@functools.cache
def name_device() -> str:
    """The hardware: the name of the accelerators, or of the processor and its cores."""
    devices = jax.devices()
    if devices[0].platform != "cpu":
        count = f"{len(devices)} x " if len(devices) > 1 else ""
        return count + devices[0].device_kind
    return name_processor()


@functools.cache
def collect_versions() -> dict[str, str]:
    """Hardware and versions; `revision` where the package runs from a checkout."""
    versions = {name: importlib.metadata.version(name) for name in _PACKAGES}
    versions |= {"python": platform.python_version(), "ser_jax": __version__}
    revision = _find_revision()
    return versions | ({"revision": revision} if revision else {})


def _find_revision() -> str | None:
    """The checkout's commit, if this package runs from one."""
    root = Path(__file__).parents[2]
    if not (root / ".git").exists():
        return None
    command = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        found = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return found.stdout.strip()


@functools.cache
def _make_log_mel(features: FeaturesConfig, rate_hz: int) -> Callable[..., jax.Array]:
    return jit(make_front_end(features, rate_hz))


def save_spectrogram(run_dir: Path, features: FeaturesConfig, corpus: Corpus, clip: int) -> None:
    """Write one clip's log-mel spectrogram for the report, whatever features the network takes."""
    wave_N = to_float(corpus.wave_BN[clip])
    features = dataclasses.replace(features, kind="logmel")
    db_TF = _make_log_mel(features, corpus.rate_hz)(wave_N)
    path = run_dir / "figures" / "spectrogram.npz"
    buffer = io.BytesIO()
    np.savez_compressed(
        buffer, db_TF=np.asarray(db_TF), rate_hz=corpus.rate_hz, hop_length=features.hop_length,
        file_name=corpus.file_names[clip],
    )  # fmt: skip
    write_atomic(path, buffer.getvalue())
