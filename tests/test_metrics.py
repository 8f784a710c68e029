"""Sums add up on the device; every figure equals scikit-learn's."""

import warnings
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as reference

from ser_jax.errors import UserError
from ser_jax.metrics import (
    Sums,
    compute_accuracy,
    compute_class_figures,
    compute_confusion,
    compute_loss,
    compute_metrics,
    compute_report,
    compute_sums,
)
from tests.tolerance import assert_near

LABELS = ("neutral", "calm", "happy", "sad")


def make_pairs(max_classes=8):
    """Lists of (true, predicted) in which classes are often absent on one side or on both."""
    one = st.integers(0, max_classes - 1)
    return st.lists(st.tuples(one, one), min_size=1, max_size=60)


def compute_expected(true_B, pred_B):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # balanced accuracy warns of classes absent from the truth
        uar = reference.balanced_accuracy_score(true_B, pred_B)
    options: Any = {"zero_division": 0}
    return {
        "accuracy": reference.accuracy_score(true_B, pred_B),
        "weighted_f1": reference.f1_score(true_B, pred_B, average="weighted", **options),
        "macro_f1": reference.f1_score(true_B, pred_B, average="macro", **options),
        "uar": uar,
        "n": len(true_B),
    }


@settings(max_examples=60, deadline=None)
@given(make_pairs())
def test_figures_equal_scikit_learns(pairs):
    true_B, pred_B = np.array(pairs).T
    confusion_CC = compute_confusion(8, true_B, pred_B)
    np.testing.assert_array_equal(
        confusion_CC, reference.confusion_matrix(true_B, pred_B, labels=range(8))
    )
    assert compute_metrics(confusion_CC) == pytest.approx(
        compute_expected(true_B, pred_B), abs=1e-12
    )


@settings(max_examples=20, deadline=None)
@given(make_pairs(4), st.integers(0, 2**31 - 1))
def test_figures_of_each_group_equal_scikit_learns_on_its_clips(pairs, seed):
    true_B, pred_B = np.array(pairs).T
    rng = np.random.default_rng(seed)
    attributes = {
        "gender": rng.choice(["female", "male"], len(pairs)),
        "intensity": rng.choice(["normal", "strong"], len(pairs)),
        "repetition": rng.choice(["1", "2"], len(pairs)),
    }
    report = compute_report(LABELS, true_B, pred_B, attributes)
    assert list(report["by"]) == ["emotion", "gender", "intensity"]
    for name in ("gender", "intensity"):
        assert set(report["by"][name]) == set(attributes[name])
        for value, figures in report["by"][name].items():
            here_B = attributes[name] == value
            expected = compute_expected(true_B[here_B], pred_B[here_B])
            assert figures == pytest.approx(expected, abs=1e-12)
    overall = {key: report[key] for key in ("accuracy", "weighted_f1", "macro_f1", "uar", "n")}
    assert overall == pytest.approx(compute_expected(true_B, pred_B), abs=1e-12)


@settings(max_examples=20, deadline=None)
@given(make_pairs(4))
def test_figures_of_each_emotion_equal_scikit_learns_over_all_clips(pairs):
    true_B, pred_B = np.array(pairs).T
    found = compute_class_figures(LABELS, compute_confusion(len(LABELS), true_B, pred_B))
    assert set(found) == {LABELS[place] for place in {*true_B, *pred_B}}
    options = {"labels": range(len(LABELS)), "average": None, "zero_division": 0}
    for figure, score in {
        "accuracy": reference.recall_score,
        "precision": reference.precision_score,
        "f1": reference.f1_score,
    }.items():
        expected: dict[str, Any] = dict(zip(LABELS, score(true_B, pred_B, **options), strict=True))
        if figure == "accuracy":  # none to recognise
            expected |= {name: None for name in found if LABELS.index(name) not in true_B}
        shown = {name: figures[figure] for name, figures in found.items()}
        assert shown == pytest.approx({name: expected[name] for name in found}, abs=1e-12)
    present = {name: figures for name, figures in found.items() if figures["n"]}
    assert compute_report(LABELS, true_B, pred_B, {})["by"]["emotion"] == present


def test_a_class_that_much_else_is_taken_for_has_a_low_f1():
    figures = compute_report(LABELS, [0] * 10 + [1] * 10, [0] * 20, {})["by"]["emotion"]["neutral"]
    assert figures["accuracy"] == 1
    assert figures["f1"] == pytest.approx(2 / 3)


def test_emotions_are_reported_in_the_order_of_the_labels():
    report = compute_report(LABELS, [3, 0, 1], [3, 0, 1], {})
    assert list(report["by"]["emotion"]) == ["neutral", "calm", "sad"]
    assert report["labels"] == list(LABELS)
    assert np.trace(report["confusion"]) == 3


def test_no_clips_is_a_user_error():
    with pytest.raises(UserError, match="no clips"):
        compute_metrics(np.zeros((8, 8)))


def make_batch(n, seed=0):
    rng = np.random.default_rng(seed)
    return (
        jnp.asarray(rng.exponential(size=n), jnp.float32),
        jnp.asarray(rng.normal(size=(n, 4)), jnp.float32),
        jnp.asarray(rng.integers(0, 4, n)),
    )


def test_sums_of_ragged_batches_equal_the_sums_of_all_clips():
    loss_B, logits_BC, label_B = make_batch(21)
    whole = compute_sums(loss_B, logits_BC, label_B, jnp.ones(21))
    parts = Sums.zeros(4)
    for part in (slice(0, 8), slice(8, 16), slice(16, 21)):
        n = loss_B[part].size
        parts += compute_sums(loss_B[part], logits_BC[part], label_B[part], jnp.ones(n))
    assert_near(compute_loss(parts), loss_B.mean(), rtol=1e-6)
    np.testing.assert_array_equal(parts.confusion_CC, whole.confusion_CC)
    expected = reference.accuracy_score(label_B, logits_BC.argmax(-1))
    assert_near(compute_accuracy(parts), expected, rtol=1e-6)


def test_padding_rows_count_nowhere_even_when_nan():
    loss_B, logits_BC, label_B = make_batch(8)
    real = compute_sums(loss_B[:5], logits_BC[:5], label_B[:5], jnp.ones(5))
    spoilt = compute_sums(
        loss_B.at[5:].set(jnp.nan), logits_BC.at[5:].set(jnp.nan), label_B, jnp.arange(8) < 5
    )
    assert_near(spoilt, real, rtol=1e-6)


def test_sums_pass_through_jit_scan_and_vmap():
    loss_RB, logits_RBC, label_RB = jax.tree.map(
        lambda *parts: jnp.stack(parts), *[make_batch(6, seed) for seed in range(3)]
    )
    weight_RB = jnp.ones((3, 6))

    def add(total, batch):
        return total + compute_sums(*batch), None

    batches = (loss_RB, logits_RBC, label_RB, weight_RB)
    scanned, _ = jax.jit(lambda b: jax.lax.scan(add, Sums.zeros(4), b))(batches)
    mapped = jax.vmap(compute_sums)(*batches)
    assert compute_loss(mapped).shape == compute_accuracy(mapped).shape == (3,)
    assert_near(scanned.loss, mapped.loss.sum(), rtol=1e-6)
    np.testing.assert_array_equal(scanned.confusion_CC, mapped.confusion_CC.sum(0))
    accuracy = [compute_metrics(c)["accuracy"] for c in mapped.confusion_CC]
    assert_near(compute_accuracy(mapped), accuracy, rtol=1e-6)


def test_means_over_no_clips_are_zero_not_nan():
    assert compute_loss(Sums.zeros(4)) == 0
    assert compute_accuracy(Sums.zeros(4)) == 0
