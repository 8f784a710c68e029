"""The losses are torch's and optax', on hard and on soft labels."""

import jax
import jax.numpy as jnp
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


def compute_with_gradient(function):
    """Losses [B], and the gradient of their sum by the logits."""
    logits_BC = jnp.asarray(LOGITS_BC)
    return function(logits_BC), jax.grad(lambda x: function(x).sum())(logits_BC)


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
    target_BC = smooth_labels(jax.nn.one_hot(LABEL_B, C), smoothing)
    found = compute_with_gradient(lambda x: compute_soft_losses(x, target_BC))
    cross_entropy = torch.nn.functional.cross_entropy
    labels = torch.tensor(LABEL_B)
    assert_close(found, compute_with_torch(
        lambda x: cross_entropy(x, labels, reduction="none", label_smoothing=smoothing)
    ))  # fmt: skip


def test_soft_labels_give_torchs_losses_and_gradients():
    found = compute_with_gradient(lambda x: compute_soft_losses(x, jnp.asarray(SOFT_BC)))
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

    found = compute_with_gradient(lambda x: compute_soft_losses(x, jnp.asarray(SOFT_BC), gamma))
    assert_close(found, compute_with_torch(compute_expected))


def test_focal_loss_of_two_classes_is_optaxs_of_one_logit():
    logit_B = jnp.asarray(LOGITS_BC[:, 0])
    hit_B = jnp.asarray(LABEL_B % 2, jnp.float32)
    logits_BC = jnp.stack([jnp.zeros(B), logit_B], axis=1)
    found = compute_soft_losses(logits_BC, jnp.stack([1 - hit_B, hit_B], axis=1), 2.0)
    expected = optax.sigmoid_focal_loss(logit_B, hit_B, alpha=None, gamma=2.0)
    assert_near(found, expected, rtol=1e-5)


def test_focal_loss_of_power_zero_is_the_cross_entropy():
    found = compute_soft_losses(jnp.asarray(LOGITS_BC), jax.nn.one_hot(LABEL_B, C), 0.0)
    expected = compute_losses(jnp.asarray(LOGITS_BC), jnp.asarray(LABEL_B))
    assert_near(found, expected, rtol=1e-6)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
def test_focal_gradient_stays_a_number_however_sure_the_network_is(gamma):
    logits_BC = jnp.asarray([[200.0, 0.0, -200.0]] * 3)
    target_BC = jnp.eye(3)
    compute = jax.value_and_grad(lambda x: compute_soft_losses(x, target_BC, gamma).sum())
    loss, gradient = compute(logits_BC)
    assert np.isfinite(loss)
    assert np.isfinite(gradient).all()
