"""The pure steps made into programs for the device: an epoch, an evaluation, a prediction."""

from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from ser_jax.batching import Dataset, take
from ser_jax.metrics import Sums
from ser_jax.state import TrainState
from ser_jax.step import eval_step, predict_step, train_step


class Programs(NamedTuple):
    """Compiled programs of one network; clips come as clip numbers [S, B] into a `Dataset`.

    Attributes:
      train_epoch: (state, dataset, index_SB, on_step) -> (state, Sums); the old state is gone.
      evaluate: (variables, dataset, index_SB) -> Sums.
      predict: (variables, dataset, index_SB) -> logits, NumPy float32 [S * B, C].
    """

    train_epoch: Callable[..., tuple[TrainState, Sums]]
    evaluate: Callable[[Any, Dataset, np.ndarray], Sums]
    predict: Callable[[Any, Dataset, np.ndarray], np.ndarray]


def make_programs(
    model: nn.Module, tx: optax.GradientTransformation, *, n_classes: int
) -> Programs:
    """Programs for one device, step by step: on CPU XLA runs a convolution in a loop slowly."""

    def step(
        carry: tuple[TrainState, Sums], dataset: Dataset, index_B: jax.Array
    ) -> tuple[TrainState, Sums]:
        state, total = carry
        state, sums = train_step(state, take(dataset, index_B), model=model, tx=tx)
        return state, total + sums

    def evaluate_batch(variables: Any, total: Sums, dataset: Dataset, index_B: jax.Array) -> Sums:
        return total + eval_step(variables, take(dataset, index_B), model=model)

    def predict_batch(variables: Any, dataset: Dataset, index_B: jax.Array) -> jax.Array:
        return predict_step(variables, take(dataset, index_B), model=model)

    jit_step = jax.jit(step, donate_argnums=0)
    jit_evaluate = jax.jit(evaluate_batch, donate_argnums=1)
    jit_predict = jax.jit(predict_batch)

    def train_epoch(
        state: TrainState,
        dataset: Dataset,
        index_SB: np.ndarray,
        on_step: Callable[[int], None] = lambda step: None,
    ) -> tuple[TrainState, Sums]:
        carry = (state, Sums.zeros(n_classes))
        for number, index_B in enumerate(index_SB):
            carry = jit_step(carry, dataset, index_B)
            on_step(number)
        return carry

    def evaluate(variables: Any, dataset: Dataset, index_SB: np.ndarray) -> Sums:
        total = Sums.zeros(n_classes)
        for index_B in index_SB:
            total = jit_evaluate(variables, total, dataset, index_B)
        return total

    def predict(variables: Any, dataset: Dataset, index_SB: np.ndarray) -> np.ndarray:
        logits = [jit_predict(variables, dataset, index_B) for index_B in index_SB]
        return np.asarray(jnp.concatenate(logits))

    return Programs(train_epoch, evaluate, predict)
