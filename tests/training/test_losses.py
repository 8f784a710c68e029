"""The losses are torch's and optax', on hard and on soft labels."""

import functools

import jax
import numpy as np
import optax
import pytest
import torch

from ser_jax.training.losses import compute_losses, compute_soft_losses, smooth_labels
from tests.tolerance import assert_near

B, C = 6, 5
RNG = np.random.default_rng(0)
LOGITS_BC = (3 * RNG.standard_normal((B, C))).astype(np.float32)
LABEL_B = np.array([0, 4, 2, 2, 1, 3])
SOFT_BC = RNG.dirichlet(np.full(C, 0.4), B).astype(np.float32)


@jax.jit
def compute_with_gradient(logits_BC, target_BC, gamma=None):
    """Losses [B], and the gradient of their sum by the logits."""

    def compute(logits_BC):
        losses_B = compute_soft_losses(logits_BC, target_BC, gamma)
        return losses_B.sum(), losses_B

    gradient_BC, losses_B = jax.grad(compute, has_aux=True)(logits_BC)
    return losses_B, gradient_BC


@jax.jit
def smooth(label_B, smoothing):
    return smooth_labels(jax.nn.one_hot(label_B, C), smoothing)


def compute_with_torch(function):
    logits_BC = torch.tensor(LOGITS_BC, requires_grad=True)
    losses_B = function(logits_BC)
    losses_B.sum().backward()
    assert logits_BC.grad is not None
    return losses_B.detach().numpy(), logits_BC.grad.numpy()


def assert_close(found, expected):
    for a, b in zip(found, expected, strict=True):
        assert_near(a, b, rtol=1e-5, atol=1e-6)


@pytest.mark.device
@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.5])
def test_smoothed_labels_give_torchs_losses_and_gradients(smoothing):
    found = compute_with_gradient(LOGITS_BC, smooth(LABEL_B, smoothing))
    cross_entropy = torch.nn.functional.cross_entropy
    labels = torch.tensor(LABEL_B)
    assert_close(found, compute_with_torch(
        lambda x: cross_entropy(x, labels, reduction="none", label_smoothing=smoothing)
    ))  # fmt: skip


def test_soft_labels_give_torchs_losses_and_gradients():
    found = compute_with_gradient(LOGITS_BC, SOFT_BC)
    cross_entropy = torch.nn.functional.cross_entropy
    assert_close(found, compute_with_torch(
        lambda x: cross_entropy(x, torch.tensor(SOFT_BC), reduction="none")
    ))  # fmt: skip


@pytest.mark.device
@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0, 5.0])
def test_focal_loss_on_soft_labels_is_the_papers(gamma):
    def compute_expected(logits_BC):
        p_BC = torch.softmax(logits_BC, dim=1)
        return -(torch.tensor(SOFT_BC) * (1 - p_BC) ** gamma * p_BC.log()).sum(dim=1)

    found = compute_with_gradient(LOGITS_BC, SOFT_BC, gamma)
    assert_close(found, compute_with_torch(compute_expected))


def test_focal_loss_of_two_classes_is_optaxs_of_one_logit():
    logit_B, hit_B = LOGITS_BC[:, 0], (LABEL_B % 2).astype(np.float32)
    logits_BC = np.stack([np.zeros_like(logit_B), logit_B], axis=1)
    target_BC = np.stack([1 - hit_B, hit_B], axis=1)
    found, _ = compute_with_gradient(logits_BC, target_BC, 2.0)
    compute_expected = functools.partial(optax.sigmoid_focal_loss, alpha=None, gamma=2.0)
    expected = jax.jit(compute_expected)(logit_B, hit_B)
    assert_near(found, expected, rtol=1e-5)


def test_focal_loss_of_power_zero_is_the_cross_entropy():
    found, _ = compute_with_gradient(LOGITS_BC, smooth(LABEL_B, 0.0), 0.0)
    expected = jax.jit(compute_losses)(LOGITS_BC, LABEL_B)
    assert_near(found, expected, rtol=1e-6)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
def test_focal_gradient_stays_a_number_however_sure_the_network_is(gamma):
    logits_BC = np.array([[200, 0, -200]] * 3, np.float32)
    losses_B, gradient = compute_with_gradient(logits_BC, np.eye(3, dtype=np.float32), gamma)
    assert np.isfinite(losses_B.sum())
    assert np.isfinite(gradient).all()
