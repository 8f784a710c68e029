"""A fitted SVM or HMM as arrays: made on a split, run like a network's programs, kept in a file."""

import io
import json
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ser_jax.config import Config
from ser_jax.data.splits import Split
from ser_jax.errors import UserError, check
from ser_jax.features.batching import Dataset
from ser_jax.files.atomic import write_atomic
from ser_jax.systems.frames import Arrays, compute_clip_statistics, list_frames
from ser_jax.systems.hmm import fit_hmm, score_hmm
from ser_jax.systems.svm import fit_svm, score_svm
from ser_jax.training.loop import OnEvent
from ser_jax.training.programs import Programs

FITTED_FILE = "fitted.npz"


def fit_classical(
    config: Config, dataset: Dataset, split: Split, labels: Sequence[str], on_event: OnEvent
) -> Arrays:
    """Fit `config.model.name` to the training clips; a choice that is left is made on validation.

    Args:
      config: all settings.
      dataset: the corpus, and the normaliser of the training clips.
      split: its parts.
      labels: the emotions.
      on_event: told of each fit: of the svm for each penalty, of the hmm for each emotion.

    Returns:
      What `make_programs(config).predict` takes as variables.

    Raises:
      UserError: an emotion without training clips, or with too few frames.
    """
    from threadpoolctl import threadpool_limits

    label_B = np.asarray(dataset.label_B)
    for number, label in enumerate(labels):
        check(
            bool((label_B[split.train] == number).any()),
            f"model.name={config.model.name}: no training clip of {label}; take another split, or "
            "recordings of it",
        )
    with threadpool_limits(1):  # sums in another order are other sums
        choose = _fit_svm if config.model.name == "svm" else _fit_hmm
        arrays = choose(config, dataset, split, labels, on_event)
        score_BC = _score(config, arrays, dataset, split.val)
    return arrays | {"temperature": _fit_temperature(score_BC, label_B[split.val])}


def _fit_svm(
    config: Config, dataset: Dataset, split: Split, labels: Sequence[str], on_event: OnEvent
) -> Arrays:
    del labels
    settings, label_B = config.classical, np.asarray(dataset.label_B)
    x = {
        part: compute_clip_statistics(
            list_frames(dataset, index, settings, config.features), settings.statistics
        )
        for part, index in (("train", split.train), ("val", split.val))
    }
    best, best_accuracy = {}, -1.0
    for number, penalty in enumerate(settings.penalty, 1):
        arrays = fit_svm(x["train"], label_B[split.train], settings, penalty)
        accuracy = {
            part: float((score_svm(arrays, x[part], settings.kernel).argmax(1) == truth_B).mean())
            for part, truth_B in (("train", label_B[split.train]), ("val", label_B[split.val]))
        }
        on_event({
            "event": "fit", "number": number, "of": len(settings.penalty), "penalty": penalty,
            "train_accuracy": accuracy["train"], "val_accuracy": accuracy["val"],
        })  # fmt: skip
        if accuracy["val"] > best_accuracy:
            best, best_accuracy = arrays, accuracy["val"]
    return best


def _fit_hmm(
    config: Config, dataset: Dataset, split: Split, labels: Sequence[str], on_event: OnEvent
) -> Arrays:
    label_B = np.asarray(dataset.label_B)
    models = []
    for number, label in enumerate(labels):
        own = split.train[label_B[split.train] == number]
        clips = list_frames(dataset, own, config.classical, config.features)
        fitted = fit_hmm(clips, config.classical, config.seed, label)
        models.append(fitted.arrays)
        on_event({
            "event": "fit", "number": number + 1, "of": len(labels), "emotion": label,
            "iterations": fitted.iterations, "converged": fitted.converged,
            "train_log_likelihood": fitted.log_likelihood,
        })  # fmt: skip
    return {
        name.replace("_", "_C", 1): np.stack([arrays[name] for arrays in models])
        for name in models[0]
    }


def _score(config: Config, arrays: Arrays, dataset: Dataset, index: np.ndarray) -> np.ndarray:
    """How well each emotion fits the clips numbered `index`, [B, C]."""
    settings = config.classical
    clips = list_frames(dataset, index, settings, config.features)
    if config.model.name == "hmm":
        return score_hmm({k: v for k, v in arrays.items() if k != "temperature"}, clips, settings)
    return score_svm(arrays, compute_clip_statistics(clips, settings.statistics), settings.kernel)


def _fit_temperature(score_BC: np.ndarray, label_B: np.ndarray) -> np.ndarray:
    """What scores are divided by so that their softmax predicts validation best, a scalar.

    Source: C. Guo et al., On Calibration of Modern Neural Networks, ICML 2017.
    """
    from scipy.optimize import minimize_scalar
    from scipy.special import log_softmax

    if len(score_BC) == 0:
        return np.array(1.0)
    rows = np.arange(len(score_BC))

    def compute_loss(log_temperature: float) -> float:
        return -float(log_softmax(score_BC / np.exp(log_temperature), axis=1)[rows, label_B].mean())

    found: Any = minimize_scalar(compute_loss, bounds=(-7.0, 7.0), method="bounded")
    return np.array(np.exp(found.x))


def make_fitted_programs(config: Config) -> Programs:
    """What stands in for a network's programs; its variables are the arrays of `fit`."""

    def predict(variables: Arrays, dataset: Dataset, index_SB: np.ndarray) -> np.ndarray:
        index_B = np.asarray(index_SB).reshape(-1)
        real_B = index_B >= 0
        score_BC = _score(config, variables, dataset, index_B[real_B])
        logits_BC = np.zeros((len(index_B), score_BC.shape[1]), np.float32)
        logits_BC[real_B] = score_BC / variables["temperature"]
        return logits_BC

    def train_epoch(*_: Any) -> Any:
        raise TypeError(f"{config.model.name}: is fitted at once, not by epochs")

    return Programs(train_epoch, train_epoch, predict)


def save_fitted(run_dir: Path, config: Config, arrays: Arrays, facts: dict[str, Any]) -> None:
    """Write the arrays and JSON-able `facts`.

    Raises:
      UserError: the file cannot be written.
    """
    buffer = io.BytesIO()
    text = json.dumps(facts | {"model": config.model.name})
    kept: dict[str, Any] = {"facts": np.array(text), **arrays}
    np.savez_compressed(buffer, **kept)
    write_atomic(run_dir / FITTED_FILE, buffer.getvalue())


def load_fitted(run_dir: Path, config: Config) -> tuple[Arrays, dict[str, Any]]:
    """The arrays and facts that `save_fitted` has written; nothing in the file is executed.

    Raises:
      UserError: the file is missing, damaged, of another program, or does not fit the settings.
    """
    path = run_dir / FITTED_FILE
    check(
        path.exists(),
        f"{run_dir}: holds no fitted {config.model.name} yet; train it with the same ser-jax train "
        "command",
    )
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as kept:
            arrays = {name: kept[name] for name in kept.files}
        facts = json.loads(str(arrays.pop("facts")))
        is_ours = facts["model"] == config.model.name and _fits(arrays, config, facts)
    except OSError as error:  # the system's own; the file may be whole
        raise UserError(f"{path}: cannot read: {error.strerror or error}; check it") from error
    except (EOFError, KeyError, TypeError, ValueError, zipfile.BadZipFile, zlib.error):
        is_ours, arrays, facts = False, {}, {}
    if not is_ours:
        raise UserError(
            f"{path}: damaged, or no {config.model.name} of these settings; delete it and "
            "metrics.json, and the same ser-jax train command fits it anew"
        )
    return arrays, facts


def _fits(arrays: Arrays, config: Config, facts: dict[str, Any]) -> bool:
    """Whether the arrays are those of the settings: their names, and by the letters there their
    shapes."""
    settings = config.classical
    C, frame = len(facts["labels"]), len(facts["mean_F"]) * (1 + settings.deltas)
    sizes = {"C": C, "P": C * (C - 1) // 2, "K": settings.states, "M": settings.mixtures}
    if config.model.name == "svm":
        sizes |= {"F": frame * len(settings.statistics), "V": len(arrays["support_VF"])}
        names = "mean_F std_F support_VF weight_VP intercept_P gamma temperature"
    else:
        sizes |= {"F": frame}
        covariance = "covariance_CKMFF" if settings.covariance == "full" else "covariance_CKMF"
        names = f"start_CK transition_CKK weight_CKM mean_CKMF {covariance} temperature"
    return set(arrays) == set(names.split()) and all(
        array.dtype == np.float64
        and array.shape == tuple(sizes[letter] for letter in name.partition("_")[2])
        and np.isfinite(array).all()
        for name, array in arrays.items()
    )
