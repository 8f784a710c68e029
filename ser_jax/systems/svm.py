"""A support vector machine on statistics of a clip's MFCC, fitted by scikit-learn.

Sources: Y. Chavhan, M. L. Dhore, P. Yesaware, Speech Emotion Recognition Using Support Vector
Machine, Int. J. Computer Applications 1(20), 2010 (MFCC, RBF kernel, LIBSVM); P. Chandrasekar,
S. Chapaneri, D. Jayaswal, Emotion Recognition from Speech using Discriminative Features,
Int. J. Computer Applications 101(16), 2014 (mean, variance, minimum, maximum of MFCC over a clip).
"""

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np

from ser_jax.config import ClassicalConfig, Config
from ser_jax.data.splits import Split
from ser_jax.features.batching import Dataset
from ser_jax.systems.frames import Arrays, compute_clip_statistics, list_frames
from ser_jax.systems.method import Method, read_shapes
from ser_jax.training.loop import OnEvent


def fit_svm(
    x_BF: np.ndarray, label_B: np.ndarray, settings: ClassicalConfig, penalty: float
) -> Arrays:
    """Fit by LIBSVM, one class against another, with the statistics scaled by these clips.

    Returns:
      mean_F, std_F: of the statistics. support_VF: the support vectors, scaled. weight_VP,
      intercept_P: of each pair of classes, in the order of `itertools.combinations`; positive is
      the first. gamma.
    """
    from sklearn.svm import SVC

    mean_F, std_F = x_BF.mean(axis=0), x_BF.std(axis=0)
    std_F = np.where(std_F > 1e-8, std_F, 1.0)
    gamma: Any = 1 / x_BF.shape[1] if settings.gamma is None else settings.gamma
    weight: Any = "balanced" if settings.balanced else None
    svc = SVC(C=penalty, kernel=settings.kernel, gamma=gamma, class_weight=weight)
    svc.fit((x_BF - mean_F) / std_F, label_B)
    n_classes = len(svc.classes_)
    # A vector of class k has its weight against class j in row j, or j - 1 if j > k.
    rows_CV: Any = svc.dual_coef_
    class_V = np.repeat(np.arange(n_classes), svc.n_support_)
    pairs = list(itertools.combinations(range(n_classes), 2))
    weight_VP = np.zeros((len(class_V), len(pairs)))
    for place, (first, second) in enumerate(pairs):
        weight_VP[class_V == first, place] = rows_CV[second - 1, class_V == first]
        weight_VP[class_V == second, place] = rows_CV[first, class_V == second]
    sign = -1 if n_classes == 2 else 1  # there scikit-learn's positive is the second
    return {
        "mean_F": mean_F, "std_F": std_F, "support_VF": np.asarray(svc.support_vectors_),
        "weight_VP": sign * weight_VP, "intercept_P": sign * np.asarray(svc.intercept_),
        "gamma": np.array(gamma),
    }  # fmt: skip


def score_svm(arrays: Arrays, x_BF: np.ndarray, kernel: str) -> np.ndarray:
    """Votes of the pairs for each class, their margins breaking ties, float64 [B, C].

    With more than two classes, scikit-learn's one-against-rest decision function."""
    from sklearn.metrics.pairwise import pairwise_kernels

    scaled_BF = (x_BF - arrays["mean_F"]) / arrays["std_F"]
    more = {"rbf": {}, "poly": {"degree": 3, "coef0": 0.0}, "linear": None}[kernel]
    width = {} if more is None else {"gamma": float(arrays["gamma"])} | more
    kernel_BV = pairwise_kernels(scaled_BF, arrays["support_VF"], metric=kernel, **width)
    margin_BP = kernel_BV @ arrays["weight_VP"] + arrays["intercept_P"]
    n_classes = round((1 + (1 + 8 * margin_BP.shape[1]) ** 0.5) / 2)
    vote_BC = np.zeros((len(x_BF), n_classes))
    sum_BC = np.zeros_like(vote_BC)
    for place, (first, second) in enumerate(itertools.combinations(range(n_classes), 2)):
        margin_B = margin_BP[:, place]
        vote_BC[:, first] += margin_B >= 0
        vote_BC[:, second] += margin_B < 0
        sum_BC[:, first] += margin_B
        sum_BC[:, second] -= margin_B
    return vote_BC + sum_BC / (3 * (np.abs(sum_BC) + 1))


def choose_svm(
    config: Config, dataset: Dataset, split: Split, labels: Sequence[str], on_event: OnEvent
) -> Arrays:
    """Fit with each of `classical.penalty`; the one best on validation."""
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


def _score_clips(
    arrays: Arrays, clips: Sequence[np.ndarray], settings: ClassicalConfig
) -> np.ndarray:
    return score_svm(arrays, compute_clip_statistics(clips, settings.statistics), settings.kernel)


def _list_shapes(
    arrays: Arrays, settings: ClassicalConfig, C: int, frame: int
) -> dict[str, tuple[int, ...]]:
    names = "mean_F std_F support_VF weight_VP intercept_P gamma"
    sizes = {
        "C": C, "P": C * (C - 1) // 2, "F": frame * len(settings.statistics),
        "V": len(arrays["support_VF"]),
    }  # fmt: skip
    return read_shapes(names, sizes)


SVM = Method(choose_svm, _score_clips, lambda: None, _list_shapes)
