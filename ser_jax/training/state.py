"""What training changes: parameters, statistics, optimiser, random key, swept numbers."""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import struct

from ser_jax.config import AugmentConfig, TrainConfig
from ser_jax.config.traced import list_traced


@struct.dataclass
class TrainState:
    """Everything a step reads and writes, as one tree of arrays.

    Attributes:
      step: optimiser steps taken, int32 scalar.
      params: parameters of the network.
      batch_stats: running statistics of batch norm ({} for a network without).
      opt_state: state of the optimiser, the learning rate among it.
      key: random key of the run; a step uses `fold_in(key, step)`.
      hyper: numbers that a grid may sweep inside one program: {'dropout', 'augment_p'}, and those
        of `list_numbers`. Which are there decides what a step does.
      frozen: parameters that a step needs and leaves as they are ({} for most networks); neither
        the optimiser nor a checkpoint holds them.
      average: moving averages of params and batch_stats, which are then what is evaluated ({}
        where hyper has no 'average_decay').
    """

    step: jax.Array
    params: Any
    batch_stats: Any
    opt_state: Any
    key: jax.Array
    hyper: dict[str, jax.Array]
    frozen: Any = struct.field(default_factory=dict)
    average: Any = struct.field(default_factory=dict)

    @property
    def variables(self) -> dict[str, Any]:
        """What `model.apply` takes to evaluate."""
        own = self.average or {"params": self.params, "batch_stats": self.batch_stats}
        return own | {"params": merge_params(own["params"], self.frozen)}

    @property
    def augment_key(self) -> jax.Array:
        """The key of augmentation on the device, distinct from those of all steps."""
        return jax.random.fold_in(self.key, 2**31 - 1)


def merge_params(params: Any, frozen: Any) -> Any:
    """One tree of two nested dictionaries that share no leaf."""
    if not frozen:
        return params
    merged = dict(params)
    for name, below in frozen.items():
        merged[name] = merge_params(merged[name], below) if name in merged else below
    return merged


def list_numbers(train: TrainConfig, augment: AugmentConfig) -> dict[str, np.ndarray]:
    """The traced numbers of what is switched on, as `TrainState.hyper` holds them, float32.

    The width of masks is repeated for each mask, so that their number is a shape.
    """
    numbers = {}
    for section in (train, augment):
        for name, mark in list_traced(section).items():
            value = getattr(section, name)
            if mark.times:
                numbers[name] = [value] * getattr(section, mark.times)
            elif mark.off_at_0:
                numbers[name] = value
    return {name: np.array(value, np.float32) for name, value in numbers.items() if value}


def average_variables(state: TrainState) -> TrainState:
    """The state with its moving averages updated, if it has any.

    The decay is `average_decay`, or less in the first steps: (1 + n) / (10 + n) in step n, from 1.
    Running statistics of batch norm are averaged like parameters, since they belong to them.
    """
    if not state.average:
        return state
    n = state.step.astype(jnp.float32)
    decay = jnp.minimum(state.hyper["average_decay"], (1 + n) / (10 + n))
    learned = {"params": state.params, "batch_stats": state.batch_stats}
    average = jax.tree.map(lambda a, x: decay * a + (1 - decay) * x, state.average, learned)
    return dataclasses.replace(state, average=average)


def init_state(
    model: nn.Module,
    tx: optax.GradientTransformation,
    *,
    seed: Any,
    n_frames: int,
    n_features: int,
    dropout: Any,
    augment_p: Any = 0.0,
    learning_rate: Any = None,
    variables: Any = None,
    frozen: Any = None,
    numbers: Mapping[str, Any] | None = None,
) -> TrainState:
    """The state before the first step, made by one program that serves all seeds and numbers.

    Args:
      model, tx: network and optimiser.
      seed: decides parameters and key, alone.
      n_frames, n_features: of the features.
      dropout, augment_p, learning_rate: numbers that live in the state; learning_rate `None`: the
        optimiser's own.
      variables: initial variables of what is trained, which training donates; `None`: the
        network's own, drawn by the seed.
      frozen: parameters that are not trained, and never donated.
      numbers: as `list_numbers` returns them; `None`: nothing is switched on.
    """
    arguments = _gather(seed, dropout, augment_p, learning_rate, variables, numbers)
    state = _init(model, tx, n_frames, n_features, *arguments)
    return dataclasses.replace(state, frozen={} if frozen is None else frozen)


def describe_state(
    model: nn.Module,
    tx: optax.GradientTransformation,
    *,
    n_frames: int,
    n_features: int,
    variables: Any = None,
    frozen: Any = None,
    numbers: Mapping[str, Any] | None = None,
) -> TrainState:
    """Shapes and types of what `init_state` makes of the same arguments; computes nothing."""
    arguments = _gather(0, 0.0, 0.0, 0.0, variables, numbers)
    state = _init.eval_shape(model, tx, n_frames, n_features, *arguments)
    shapes = {} if frozen is None else jax.eval_shape(lambda: frozen)
    return dataclasses.replace(state, frozen=shapes)


def _gather(
    seed: Any, dropout: Any, augment_p: Any, learning_rate: Any, variables: Any, numbers: Any
) -> tuple[Any, ...]:
    """The arguments of `_init`: arrays of fixed types, so that it is compiled once."""
    hyper = {"dropout": dropout, "augment_p": augment_p, **(numbers or {})}
    hyper, learning_rate = jax.tree.map(_as_float32, (hyper, learning_rate))
    return _as_array(seed, np.uint32), hyper, learning_rate, variables


def _as_float32(x: Any) -> Any:
    return _as_array(x, np.float32)


def _as_array(x: Any, dtype: Any) -> Any:
    """A NumPy array, which no program is needed to make, unless it is a JAX array already."""
    return x.astype(dtype) if isinstance(x, jax.Array) else np.asarray(x, dtype)


@functools.partial(jax.jit, static_argnums=(0, 1, 2, 3))
def _init(
    model: nn.Module,
    tx: optax.GradientTransformation,
    n_frames: int,
    n_features: int,
    seed: jax.Array,
    hyper: dict[str, jax.Array],
    learning_rate: jax.Array | None,
    variables: Any,
) -> TrainState:
    init_key, run_key = jax.random.split(jax.random.key(seed))
    if variables is None:  # without what the network would compute of its zeros
        x_BTF = jnp.zeros((1, n_frames, n_features))
        variables = model.init(init_key, x_BTF, jnp.ones((1, n_frames), bool), train=False)
    learned = {"params": variables["params"], "batch_stats": variables.get("batch_stats", {})}
    opt_state = tx.init(learned["params"])
    if learning_rate is not None:
        opt_state = optax.tree_utils.tree_set(opt_state, learning_rate=learning_rate)
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        **learned,
        opt_state=opt_state,
        key=run_key,
        hyper=hyper,
        # Copies, since a step donates the whole state.
        average=jax.tree.map(jnp.copy, learned) if "average_decay" in hyper else {},
    )


def count_parameters(*trees: Any) -> int:
    """How many numbers trees of arrays hold; a tree may be `None`."""
    return sum(int(leaf.size) for tree in trees for leaf in jax.tree.leaves(tree))
