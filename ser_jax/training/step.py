"""One step of training, evaluation and prediction: pure functions, compiled by `programs`."""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, cast

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from ser_jax.augment.mixup import Mix, draw_mix, mix_batch, mix_labels
from ser_jax.augment.spectrogram import perturb
from ser_jax.features.batching import Batch, Dataset, TakeTrain, take, take_plain
from ser_jax.metrics import Sums, compute_sums
from ser_jax.models.ensemble import Ensemble
from ser_jax.training.losses import compute_losses, compute_soft_losses, smooth_labels
from ser_jax.training.state import TrainState, average_variables, merge_params

_PERTURB, _MIX = 0x3F01, 0x3F02
"""Part the random numbers of a step from dropout's, which come of the step's key itself."""


def train_step(
    state: TrainState,
    batch: Batch,
    *,
    model: nn.Module,
    tx: optax.GradientTransformation,
    axis_name: str | None = None,
    accumulate: int = 1,
) -> tuple[TrainState, Sums]:
    """One optimiser step over the real rows of `batch`.

    Sums are added over devices and divided once, by the number of real rows on all of them, so a
    ragged batch gives the same step however it is sharded. Rows are perturbed and mixed, labels
    smoothed and parameters averaged as far as `state.hyper` has numbers for it.

    Args:
      state: before the step.
      batch: this device's rows.
      model: a network of `models`.
      tx: the optimiser that made `state.opt_state`.
      axis_name: mapped axis over devices; `None`: one program.
      accumulate: parts of a batch that are processed one after another; divides its rows. Batch
        norm takes the statistics of each part, and mixup stays within a part.

    Returns:
      The state after the step, and the sums over all devices' rows.
    """
    key = jax.random.fold_in(state.key, state.step)
    if axis_name is not None:
        key = jax.random.fold_in(key, jax.lax.axis_index(axis_name))
    gradient_fn = functools.partial(_compute_gradients, state=state, model=model)
    if accumulate == 1:
        gradients, batch_stats, sums = gradient_fn(state.batch_stats, batch, key)
    else:
        gradients, batch_stats, sums = _accumulate(
            gradient_fn, state, batch, key, accumulate, axis_name
        )
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
    return average_variables(new_state), sums


_Gradients = tuple[Any, Any, Sums]
"""Gradients of the summed loss, running statistics, and the sums."""


def _compute_gradients(
    batch_stats: Any, batch: Batch, key: jax.Array, *, state: TrainState, model: nn.Module
) -> _Gradients:
    vary = functools.partial(_vary, batch, numbers=state.hyper)
    measure = functools.partial(_measure, numbers=state.hyper)
    if isinstance(model, Ensemble):  # all that follows has a leading axis of members
        vary, measure = jax.vmap(vary), jax.vmap(measure)
        rows = vary(jax.random.split(key, model.size))
    else:
        rows = vary(key)

    def compute_loss_sum(params: Any) -> tuple[jax.Array, tuple[Any, Sums]]:
        logits, updated = model.apply(
            {"params": merge_params(params, state.frozen), "batch_stats": batch_stats},
            rows.batch.x_BTF,
            rows.batch.mask_BT,
            train=True,
            dropout=state.hyper["dropout"],
            rngs={"dropout": key},
            mutable=["batch_stats"],
        )
        sums = measure(logits, rows)
        # Summed over members, so that each has the gradient that it would have alone.
        return sums.loss.sum(), (updated.get("batch_stats", {}), sums)

    gradients, (updated, sums) = jax.grad(compute_loss_sum, has_aux=True)(state.params)
    if isinstance(model, Ensemble):
        sums = jax.tree.map(lambda sum_M: sum_M.mean(axis=0), sums)
    return gradients, updated, sums


class _Rows(NamedTuple):
    """What a network learns from: the batch, varied; its labels before mixing; and the mix."""

    batch: Batch
    label_B: jax.Array
    mix: Mix | None


def _vary(batch: Batch, key: jax.Array, *, numbers: Mapping[str, jax.Array]) -> _Rows:
    """Perturb and mix a batch, as far as `numbers` says."""
    label_B, mix = batch.label_B, None
    if numbers:
        batch = perturb(batch, numbers, jax.random.fold_in(key, _PERTURB))
    if "mixup" in numbers:
        mix = draw_mix(jax.random.fold_in(key, _MIX), numbers["mixup"], batch.weight_B)
        batch = mix_batch(batch, mix)
    return _Rows(batch, label_B, mix)


def _measure(logits_BC: jax.Array, rows: _Rows, *, numbers: Mapping[str, jax.Array]) -> Sums:
    losses_B = _compute_training_losses(logits_BC, rows.label_B, rows.mix, numbers)
    return compute_sums(losses_B, logits_BC, rows.batch.label_B, rows.batch.weight_B)


def _compute_training_losses(
    logits_BC: jax.Array, label_B: jax.Array, mix: Mix | None, numbers: Mapping[str, jax.Array]
) -> jax.Array:
    """The loss of each row by what is switched on; `label_B` are the labels before mixing."""
    if not numbers.keys() & {"mixup", "label_smoothing", "focal_gamma"}:
        return compute_losses(logits_BC, label_B)
    n_classes = logits_BC.shape[-1]
    if mix is None:
        target_BC = jax.nn.one_hot(label_B, n_classes)
    else:
        target_BC = mix_labels(label_B, mix, n_classes)
    if "label_smoothing" in numbers:
        target_BC = smooth_labels(target_BC, numbers["label_smoothing"])
    return compute_soft_losses(logits_BC, target_BC, numbers.get("focal_gamma"))


def _accumulate(
    gradient_fn: Callable[..., _Gradients],
    state: TrainState,
    batch: Batch,
    key: jax.Array,
    n_parts: int,
    axis_name: str | None,
) -> _Gradients:
    """A batch in parts of every `n_parts`-th row, so that each device keeps the rows it has."""

    def cut(x: jax.Array) -> jax.Array:
        return jnp.swapaxes(x.reshape(-1, n_parts, *x.shape[1:]), 0, 1)

    def body(carry: tuple[Any, Any, Any], part: tuple[jax.Array, Batch]) -> tuple[Any, None]:
        gradients, old_stats, total = carry
        number, rows = part
        added, new_stats, sums = gradient_fn(old_stats, rows, jax.random.fold_in(key, number))
        count = sums.count if axis_name is None else jax.lax.psum(sums.count, axis_name)
        # In a ragged batch, a part may consist of padding rows alone.
        batch_stats = jax.tree.map(lambda n, o: jnp.where(count > 0, n, o), new_stats, old_stats)
        return (jax.tree.map(jnp.add, gradients, added), batch_stats, total + sums), None

    n_classes = jax.eval_shape(
        lambda: gradient_fn(state.batch_stats, jax.tree.map(lambda x: cut(x)[0], batch), key)[2]
    ).confusion_CC.shape[0]
    zeros = jax.tree.map(jnp.zeros_like, state.params)
    start = (zeros, state.batch_stats, Sums.zeros(n_classes))
    parts = (jnp.arange(n_parts), jax.tree.map(cut, batch))
    return jax.lax.scan(body, start, parts)[0]


def predict_step(variables: Any, batch: Batch, *, model: nn.Module) -> jax.Array:
    """Logits [B, C]; the values of padding rows are meaningless."""
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


class Steps(NamedTuple):
    """The steps as pure functions, still to be compiled.

    Attributes:
      train: ((state, sums so far), dataset, index_B, frozen) -> (state, sums); given `frozen`
        stands in for the state's own, which is {} then.
      evaluate: (sums so far, dataset, index_B, variables) -> sums.
      predict: (variables, dataset, index_B) -> logits [B, C].
    """

    train: Callable[..., tuple[TrainState, Sums]]
    evaluate: Callable[..., Sums]
    predict: Callable[..., jax.Array]


def make_steps(
    model: nn.Module,
    tx: optax.GradientTransformation,
    take_train: TakeTrain = take_plain,
    axis_name: str | None = None,
    accumulate: int = 1,
) -> Steps:
    """The steps of one network; see `Steps`."""

    def train(
        carry: tuple[TrainState, Sums], dataset: Dataset, index_B: jax.Array, frozen: Any = None
    ) -> tuple[TrainState, Sums]:
        state, total = carry
        if frozen is not None:
            state = dataclasses.replace(state, frozen=frozen)
        key, p = state.augment_key, state.hyper["augment_p"]
        batch = take_train(dataset, index_B, key, dataset.draw, p)
        state, sums = train_step(
            state, batch, model=model, tx=tx, axis_name=axis_name, accumulate=accumulate
        )
        if frozen is not None:
            state = dataclasses.replace(state, frozen={})
        return state, total + sums

    def evaluate(total: Sums, dataset: Dataset, index_B: jax.Array, variables: Any) -> Sums:
        batch = take(dataset, index_B)
        return total + eval_step(variables, batch, model=model, axis_name=axis_name)

    def predict(variables: Any, dataset: Dataset, index_B: jax.Array) -> jax.Array:
        return predict_step(variables, take(dataset, index_B), model=model)

    return Steps(train, evaluate, predict)
