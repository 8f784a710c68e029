"""The optimiser and its learning rate, from the settings of training."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from ser_jax.config import TrainConfig
from ser_jax.training.state import TrainState


def make_optimizer(train: TrainConfig, n_steps: int | None = None) -> optax.GradientTransformation:
    """The optimiser; its learning rate lives in its state, so that a grid can sweep it.

    Args:
      train: rates and their schedule.
      n_steps: optimiser steps of the whole run, if `needs_steps(train)`.
    """
    if train.optimizer == "sgd":
        tx = optax.inject_hyperparams(optax.sgd)(learning_rate=train.learning_rate)
    elif train.weight_decay:
        static = ("b1", "b2", "eps", "eps_root", "weight_decay")
        adamw = optax.inject_hyperparams(optax.adamw, static_args=static)
        tx = adamw(
            learning_rate=train.learning_rate, eps=train.adam_epsilon,
            weight_decay=train.weight_decay,
        )  # fmt: skip
    else:
        # Only what a grid sweeps is part of the state.
        adam = optax.inject_hyperparams(optax.adam, static_args=("b1", "b2", "eps", "eps_root"))
        tx = adam(learning_rate=train.learning_rate, eps=train.adam_epsilon)
    parts: list[optax.GradientTransformation] = [tx]
    if train.clip_norm:
        parts.insert(0, optax.clip_by_global_norm(train.clip_norm))
    if train.backbone_learning_rate is not None:
        parts.append(_scale_backbone(train.backbone_learning_rate / train.learning_rate))
    if needs_steps(train):
        assert n_steps is not None, "the schedule needs the number of steps"
        parts.append(optax.scale_by_schedule(make_schedule(train, n_steps)))
    return tx if len(parts) == 1 else optax.chain(*parts)


def needs_steps(train: TrainConfig) -> bool:
    """Whether the learning rate depends on how many steps the run has."""
    return train.schedule != "constant" or train.warmup > 0


def make_schedule(train: TrainConfig, n_steps: int) -> Callable[[Any], jax.Array]:
    """The factor of the learning rate at step 0, 1, ...; at most 1."""
    n_warm = round(train.warmup * n_steps)

    def schedule(step: Any) -> jax.Array:
        step = jnp.asarray(step, jnp.float32)
        rise = (step + 1) / max(n_warm, 1)
        left = jnp.clip((n_steps - step) / max(n_steps - n_warm, 1), 0.0, 1.0)
        fall = {"constant": 1.0, "linear": left, "cosine": (1 - jnp.cos(jnp.pi * left)) / 2}
        return jnp.clip(jnp.minimum(rise, fall[train.schedule]), 0.0, 1.0)

    return schedule


def _scale_backbone(ratio: float) -> optax.GradientTransformation:
    """Updates of the parameters below 'backbone' times `ratio`."""

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        del params
        if "backbone" not in updates:
            return updates, state
        scaled = jax.tree.map(lambda u: u * ratio, updates["backbone"])
        return updates | {"backbone": scaled}, state

    return optax.GradientTransformation(lambda params: optax.EmptyState(), update)


def get_learning_rate(state: TrainState) -> float:
    """The learning rate that the optimiser's state holds, before any schedule."""
    return float(jax.device_get(optax.tree_utils.tree_get(state.opt_state, "learning_rate")))
