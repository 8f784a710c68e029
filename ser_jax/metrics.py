"""Sums over clips on the device; on the host, accuracy, F1 and UAR that equal scikit-learn's."""

from __future__ import annotations

import functools
import operator
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from ser_jax.errors import check

GROUPED_BY = ("gender", "intensity", "statement", "corpus")
_MOST_GROUPS = 20  # with more, such as the words of TESS, a group is hardly more than a clip


@struct.dataclass
class Sums:
    """The result of a step: sums, never means, so that batches and devices add up exactly.

    Attributes:
      loss: total loss of the real clips, scalar float32.
      count: number of real clips, scalar float32.
      confusion_CC: number of clips by [true class, predicted class], float32.
    """

    loss: jax.Array
    count: jax.Array
    confusion_CC: jax.Array

    @classmethod
    def zeros(cls, n_classes: int) -> Sums:
        """The sums over zero clips."""
        zeros: Any = functools.partial(np.zeros, dtype=np.float32)  # compiles nothing
        return cls(zeros(()), zeros(()), zeros((n_classes, n_classes)))

    def __add__(self, other: Sums) -> Sums:
        return jax.tree.map(operator.add, self, other)


def compute_sums(
    loss_B: jax.Array, logits_BC: jax.Array, label_B: jax.Array, weight_B: jax.Array
) -> Sums:
    """Sums over a batch; rows of weight 0 (padding) are ignored, even if they are NaN."""
    weight_B = weight_B.astype(jnp.float32)
    n_classes = logits_BC.shape[-1]
    pair_B = label_B * n_classes + jnp.argmax(logits_BC, axis=-1)
    flat = jnp.zeros(n_classes * n_classes).at[pair_B].add(weight_B)
    return Sums(
        loss=jnp.sum(jnp.where(weight_B > 0, loss_B.astype(jnp.float32) * weight_B, 0.0)),
        count=jnp.sum(weight_B),
        confusion_CC=flat.reshape(n_classes, n_classes),
    )


def compute_loss(sums: Sums) -> Any:
    """Mean loss per clip; 0 over no clips. Keeps leading axes (runs), and NumPy arrays as such."""
    return sums.loss / _find_numpy(sums).maximum(sums.count, 1)


def compute_accuracy(sums: Sums) -> Any:
    """Share of clips recognised; 0 over no clips. Treats axes and arrays like `compute_loss`."""
    numpy = _find_numpy(sums)
    hits = numpy.trace(sums.confusion_CC, axis1=-2, axis2=-1)
    return hits / numpy.maximum(sums.count, 1)


def _find_numpy(sums: Sums) -> Any:
    return jnp if isinstance(sums.count, jax.Array) else np


def compute_metrics(confusion_CC: Any) -> dict[str, Any]:
    """Metrics of one confusion matrix [true, predicted], in NumPy.

    Each equals scikit-learn's with zero_division=0: `accuracy_score`, weighted and macro `f1_score`
    (over classes that occur as truth or prediction) and, for `uar`, `balanced_accuracy_score` (mean
    recall over classes that occur as truth).

    Raises:
      UserError: the matrix is empty.
    """
    confusion_CC = np.asarray(confusion_CC, np.float64)
    hit_C = np.diag(confusion_CC)
    true_C, pred_C = confusion_CC.sum(1), confusion_CC.sum(0)
    n = true_C.sum()
    check(n > 0, "metrics: no clips to score; choose a split or folder that has some")
    f1_C = 2 * hit_C / np.maximum(true_C + pred_C, 1)
    in_truth_C, seen_C = true_C > 0, true_C + pred_C > 0
    return {
        "accuracy": float(hit_C.sum() / n),
        "weighted_f1": float((f1_C * true_C).sum() / n),
        "macro_f1": float(f1_C[seen_C].mean()),
        "uar": float((hit_C[in_truth_C] / true_C[in_truth_C]).mean()),
        "n": round(n),
    }


def compute_confusion(n_classes: int, true_B: Any, pred_B: Any) -> np.ndarray:
    """Number of clips by [true class, predicted class], int64."""
    confusion_CC = np.zeros((n_classes, n_classes), np.int64)
    np.add.at(confusion_CC, (np.asarray(true_B), np.asarray(pred_B)), 1)
    return confusion_CC


def compute_class_figures(labels: Sequence[str], confusion_CC: Any) -> dict[str, dict[str, Any]]:
    """Metrics of each class that occurs as truth or prediction, from the whole matrix, in NumPy.

    `accuracy` is the share of the class's clips that are recognised, i.e. its recall, or `None` for
    a class without clips. `precision` and `f1` equal scikit-learn's `precision_score` and
    `f1_score` with average=None and zero_division=0. `n` counts the clips of the class, and
    `predicted` the clips predicted as that class.
    """
    confusion_CC = np.asarray(confusion_CC, np.float64)
    figures = zip(labels, np.diag(confusion_CC), confusion_CC.sum(1), confusion_CC.sum(0),
                  strict=True)  # fmt: skip
    return {
        name: {
            "accuracy": float(hit / n_true) if n_true else None,
            "precision": float(hit / n_pred) if n_pred else 0.0,
            "f1": float(2 * hit / (n_true + n_pred)),
            "n": round(n_true),
            "predicted": round(n_pred),
        }
        for name, hit, n_true, n_pred in figures
        if n_true + n_pred
    }


def compute_report(
    labels: Sequence[str], true_B: Any, pred_B: Any, attributes: Mapping[str, np.ndarray]
) -> dict[str, Any]:
    """The object under "val" and "test" in metrics.json: metrics over all clips and by group.

    Those of a group equal scikit-learn's on the group's clips. Those of an emotion come from the
    confusion matrix over all clips, since its own clips show no false positives; see
    `compute_class_figures`.

    Args:
      labels: names of the classes, by index.
      true_B, pred_B: true and predicted class of each clip.
      attributes: a string per clip, empty if unknown; of these `gender`, `intensity`, `statement`
        and `corpus` are reported.
    """
    true_B, pred_B = np.asarray(true_B), np.asarray(pred_B)
    confusion_CC = compute_confusion(len(labels), true_B, pred_B)
    found = compute_class_figures(labels, confusion_CC)
    by = {"emotion": {name: figures for name, figures in found.items() if figures["n"]}}
    for name in GROUPED_BY:
        value_B = np.asarray(attributes.get(name, ()))
        present = sorted(set(value_B.tolist()) - {""})
        if not 0 < len(present) <= _MOST_GROUPS:
            continue
        by[name] = {
            value: compute_metrics(
                compute_confusion(len(labels), true_B[value_B == value], pred_B[value_B == value])
            )
            for value in present
        }
    return {
        **compute_metrics(confusion_CC),
        "labels": list(labels),
        "confusion": confusion_CC.tolist(),
        "by": by,
    }


FIGURES = ("accuracy", "weighted_f1", "uar")
