"""The progress of many runs, on the device: their states, and their best epochs so far."""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from flax import struct

from ser_jax.metrics import Sums, compute_accuracy, compute_loss
from ser_jax.training.state import TrainState, init_state


@struct.dataclass
class Progress:
    """The progress of a run, all of it on the device; for R runs every leaf has a leading axis R.

    Attributes:
      state: after the last epoch.
      best: after the best epoch on validation.
      best_score: figures of that epoch, [2]; greater is better, the second breaks ties.
      best_epoch: its number, from 1; 0 before the first.
      epoch: epochs trained.
    """

    state: TrainState
    best: TrainState
    best_score: jax.Array
    best_epoch: jax.Array
    epoch: jax.Array


def init_progress(
    model: nn.Module,
    tx: optax.GradientTransformation,
    *,
    seed_R: Any,
    n_frames: int,
    n_features: int,
    dropout_R: Any,
    augment_p_R: Any,
    learning_rate_R: Any,
    numbers_R: Mapping[str, Any] | None = None,
) -> Progress:
    """The progress of R runs before the first step, each initialised by `state.init_state`.

    A run's parameters hold only what is trained. A fully frozen backbone is not among them: the
    dataset holds what it computes from the clips. `numbers_R` are those of `state.list_numbers`,
    stacked.
    """
    swept = {
        "dropout": dropout_R, "augment_p": augment_p_R, "learning_rate": learning_rate_R,
        "numbers": dict(numbers_R or {}),
    }  # fmt: skip
    swept = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), swept, is_leaf=_is_list)
    init = _make_init(model, tx, n_frames, n_features)
    return init((jnp.asarray(seed_R, jnp.uint32), swept))


def _is_list(x: Any) -> bool:
    return isinstance(x, list | tuple)


@functools.lru_cache(maxsize=64)
def _make_init(
    model: nn.Module, tx: optax.GradientTransformation, n_frames: int, n_features: int
) -> Callable[[Any], Progress]:
    def init_one(numbers: tuple[Any, dict[str, Any]]) -> Progress:
        seed, swept = numbers
        state = init_state(model, tx, seed=seed, n_frames=n_frames, n_features=n_features, **swept)
        zero = jnp.zeros((), jnp.int32)
        return Progress(state, state, jnp.full(2, -jnp.inf), zero, zero)

    # One run after another, with the same arithmetic as alone.
    return jax.jit(lambda numbers: jax.lax.map(init_one, numbers))


def keep_best(progress: Progress, state: TrainState, val: Sums, best_by: str) -> Progress:
    """The progress of one run after an epoch.

    Args:
      progress: before the epoch.
      state: after the epoch.
      val: sums over the validation clips.
      best_by: 'accuracy', where the loss breaks ties, 'loss', where the accuracy does, or 'last'.
    """
    epoch = progress.epoch + 1
    figures = [compute_accuracy(val), -compute_loss(val)]
    if best_by == "last":
        figures = [epoch.astype(jnp.float32), jnp.zeros(())]
    score = jnp.stack(figures[::-1] if best_by == "loss" else figures)
    best = progress.best_score
    is_better = (score[0] > best[0]) | ((score[0] == best[0]) & (score[1] > best[1]))

    def choose(new: Any, old: Any) -> Any:
        return jax.tree.map(lambda a, b: jnp.where(is_better, a, b), new, old)

    return Progress(
        state, choose(state, progress.best), choose(score, best),
        choose(epoch, progress.best_epoch), epoch,
    )  # fmt: skip
