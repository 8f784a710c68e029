"""What training changes: parameters, statistics, optimiser, random key, swept numbers."""

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from flax import struct

from ser_jax.config import TrainConfig


@struct.dataclass
class TrainState:
    """Everything a step reads and writes, as one tree of arrays.

    Attributes:
      step: optimiser steps taken, int32 scalar.
      params: parameters of the network.
      batch_stats: running statistics of batch norm ({} for a network without).
      opt_state: state of the optimiser, the learning rate among it.
      key: random key of the run; a step uses `fold_in(key, step)`.
      hyper: numbers that a grid may sweep inside one program: {'dropout', 'augment_p'}.
    """

    step: jax.Array
    params: Any
    batch_stats: Any
    opt_state: Any
    key: jax.Array
    hyper: dict[str, jax.Array]

    @property
    def variables(self) -> dict[str, Any]:
        """What `model.apply` takes."""
        return {"params": self.params, "batch_stats": self.batch_stats}

    @property
    def augment_key(self) -> jax.Array:
        """The key of augmentation on the device, apart from those of all steps."""
        return jax.random.fold_in(self.key, 2**31 - 1)


def make_optimizer(train: TrainConfig) -> optax.GradientTransformation:
    """The optimiser; its learning rate lives in its state, so that a grid can sweep it."""
    if train.optimizer == "sgd":
        return optax.inject_hyperparams(optax.sgd)(learning_rate=train.learning_rate)
    # Only numbers that a grid sweeps are made part of the state.
    adam = optax.inject_hyperparams(optax.adam, static_args=("b1", "b2", "eps", "eps_root"))
    return adam(learning_rate=train.learning_rate, eps=train.adam_epsilon)


@functools.partial(jax.jit, static_argnums=(0, 2, 3))
def _init_variables(model: nn.Module, key: jax.Array, n_frames: int, n_features: int) -> Any:
    """One program for all seeds, without what the network would compute of its zeros."""
    x_BTF = jnp.zeros((1, n_frames, n_features))
    mask_BT = jnp.ones((1, n_frames), bool)
    return model.init(key, x_BTF, mask_BT, train=False)


def init_state(
    model: nn.Module,
    tx: optax.GradientTransformation,
    *,
    seed: int,
    n_frames: int,
    n_features: int,
    dropout: float,
    augment_p: float = 0.0,
    learning_rate: float | None = None,
) -> TrainState:
    """The state before the first step.

    Args:
      model, tx: network and optimiser.
      seed: decides parameters and key, alone.
      n_frames, n_features: of the features.
      dropout, augment_p, learning_rate: numbers that live in the state; learning_rate None: the
        optimiser's own.
    """
    init_key, run_key = jax.random.split(jax.random.key(seed))
    variables = _init_variables(model, init_key, n_frames, n_features)
    opt_state = tx.init(variables["params"])
    if learning_rate is not None:
        rate = jnp.asarray(learning_rate, jnp.float32)
        opt_state = optax.tree_utils.tree_set(opt_state, learning_rate=rate)
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=variables["params"],
        batch_stats=variables.get("batch_stats", {}),
        opt_state=opt_state,
        key=run_key,
        hyper={
            "dropout": jnp.asarray(dropout, jnp.float32),
            "augment_p": jnp.asarray(augment_p, jnp.float32),
        },
    )
