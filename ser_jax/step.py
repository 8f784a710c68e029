"""One step of training, evaluation and prediction: pure functions, wrapped in `parallel`."""

import dataclasses
from typing import Any, cast

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from ser_jax.batching import Batch
from ser_jax.metrics import Sums, compute_sums
from ser_jax.state import TrainState


def compute_losses(logits_BC: jax.Array, label_B: jax.Array) -> jax.Array:
    """Categorical cross-entropy of each row, float32 [B]."""
    return optax.softmax_cross_entropy_with_integer_labels(logits_BC, label_B)


def train_step(
    state: TrainState,
    batch: Batch,
    *,
    model: nn.Module,
    tx: optax.GradientTransformation,
    axis_name: str | None = None,
) -> tuple[TrainState, Sums]:
    """One optimiser step over the real rows of `batch`.

    Sums are added over devices and divided once, by the number of real rows on all of them, so a
    ragged batch gives the same step however it is sharded.

    Args:
      state: before the step.
      batch: this device's rows.
      model: a network of `models`.
      tx: the optimiser that made `state.opt_state`.
      axis_name: mapped axis over devices; None: one program.

    Returns:
      The state after the step, and the sums over all devices' rows.
    """
    key = jax.random.fold_in(state.key, state.step)
    if axis_name is not None:
        key = jax.random.fold_in(key, jax.lax.axis_index(axis_name))

    def compute_loss_sum(params: Any) -> tuple[jax.Array, tuple[Any, Sums]]:
        logits_BC, updated = model.apply(
            {"params": params, "batch_stats": state.batch_stats},
            batch.x_BTF,
            batch.mask_BT,
            train=True,
            dropout=state.hyper["dropout"],
            rngs={"dropout": key},
            mutable=["batch_stats"],
        )
        losses_B = compute_losses(logits_BC, batch.label_B)
        sums = compute_sums(losses_B, logits_BC, batch.label_B, batch.weight_B)
        return sums.loss, (updated.get("batch_stats", {}), sums)

    gradient_fn = jax.grad(compute_loss_sum, has_aux=True)
    gradients, (batch_stats, sums) = gradient_fn(state.params)
    if axis_name is not None:
        gradients, sums = jax.lax.psum((gradients, sums), axis_name)
    count = jnp.maximum(sums.count, 1.0)
    gradients = jax.tree.map(lambda g: g / count, gradients)
    updates, opt_state = tx.update(gradients, state.opt_state, state.params)
    new_state = dataclasses.replace(
        state,
        step=state.step + 1,
        params=optax.apply_updates(state.params, updates),
        batch_stats=batch_stats,
        opt_state=opt_state,
    )
    return new_state, sums


def predict_step(variables: Any, batch: Batch, *, model: nn.Module) -> jax.Array:
    """Logits [B, C]; rows that only fill up the batch hold numbers without meaning."""
    logits_BC = model.apply(variables, batch.x_BTF, batch.mask_BT, train=False)
    return cast(jax.Array, logits_BC)


def eval_step(
    variables: Any, batch: Batch, *, model: nn.Module, axis_name: str | None = None
) -> Sums:
    """Sums of loss, count and confusion over the real rows of `batch`, on all devices."""
    logits_BC = predict_step(variables, batch, model=model)
    losses_B = compute_losses(logits_BC, batch.label_B)
    sums = compute_sums(losses_B, logits_BC, batch.label_B, batch.weight_B)
    return sums if axis_name is None else jax.lax.psum(sums, axis_name)
