"""The programs that train many runs of one network at once: an epoch, and predictions."""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from ser_jax.features.batching import Dataset, TakeTrain, take_plain
from ser_jax.features.normaliser import Normaliser
from ser_jax.grid.run_progress import Progress, keep_best
from ser_jax.grid.vmapped import Cost, Vmapped
from ser_jax.metrics import Sums
from ser_jax.training.layouts import Layout, place_runs
from ser_jax.training.state import TrainState
from ser_jax.training.step import Steps, make_steps


class GridPrograms(NamedTuple):
    """Programs of R runs that differ only in numbers, clips and their order.

    Values of runs are stacked and placed by `layouts.place_runs`, the dataset by `layouts.place`;
    its own normaliser is ignored.

    Attributes:
      run_epoch: (progress, normaliser, dataset, train_index_RSB, val_index_RSB) ->
        (progress, training Sums, validation Sums); the old progress is donated.
      predict: (variables, normaliser, dataset, index_RSB) -> classes, int32 [R, S, B].
      measure: (arguments of run_epoch) -> its cost. `run_epoch` reuses the program compiled to
        measure it.
    """

    run_epoch: Callable[..., tuple[Progress, Sums, Sums]]
    predict: Callable[..., jax.Array]
    measure: Callable[..., Cost]


class _Runs(NamedTuple):
    """What each run has of its own besides its state."""

    normaliser: Normaliser
    index_SB: jax.Array
    variables: Any = None


class _Functions(NamedTuple):
    """What one run does with its clips `index_SB`: functions of (carry, own, dataset)."""

    train: Callable[..., Any]
    evaluate: Callable[..., Any]
    predict: Callable[..., Any]
    keep: Callable[..., Any]


def _make_functions(steps: Steps, best_by: str, scan: bool) -> _Functions:
    def fold(step: Callable[..., Any], carry: Any, own: _Runs, dataset: Dataset) -> Any:
        dataset = dataclasses.replace(dataset, normaliser=own.normaliser)
        # Step by step there is one batch at a time, and no loop may remain around it.
        return jax.lax.scan(
            lambda c, index_B: step(c, dataset, index_B), carry, own.index_SB, unroll=not scan
        )

    def train(carry: tuple[TrainState, Sums], own: _Runs, dataset: Dataset) -> Any:
        return fold(lambda *x: (steps.train(*x), None), carry, own, dataset)[0]

    def evaluate(sums: Sums, own: _Runs, dataset: Dataset) -> Sums:
        return fold(lambda *x: (steps.evaluate(*x, own.variables), None), sums, own, dataset)[0]

    def predict(nothing: None, own: _Runs, dataset: Dataset) -> jax.Array:
        def classify(_: None, dataset: Dataset, index_B: jax.Array) -> tuple[None, jax.Array]:
            logits_BC = steps.predict(own.variables, dataset, index_B)
            return None, logits_BC.argmax(axis=-1).astype(jnp.int32)

        return fold(classify, nothing, own, dataset)[1]

    def keep(carry: tuple[Progress, TrainState], val: Sums, _: None) -> Progress:
        return keep_best(*carry, val, best_by)

    return _Functions(train, evaluate, predict, keep)


def make_grid_programs(
    model: nn.Module,
    tx: optax.GradientTransformation,
    *,
    n_classes: int,
    best_by: str = "accuracy",
    take_train: TakeTrain = take_plain,
    layout: Layout = Layout(),  # noqa: B008 - immutable
    how: str = "vmap",
    accumulate: int = 1,
) -> GridPrograms:
    """Programs that train R runs at once.

    Args:
      model, tx: network and optimiser, common to the runs.
      n_classes: number of logits.
      best_by: see `keep_best`.
      take_train: training batches; see `batching.TakeTrain`.
      layout: see `layouts.choose_run_layout`.
      how: see `Vmapped`.
      accumulate: see `step.train_step`.
    """
    steps = make_steps(model, tx, take_train, accumulate=accumulate)
    functions = _make_functions(steps, best_by, layout.scan)
    make_epoch = _make_scanned if layout.scan else _make_stepped
    run_epoch, measure = make_epoch(functions, n_classes, layout, how)
    run_predict = Vmapped(functions.predict, layout, how)

    def predict(
        variables: Any, normaliser: Normaliser, dataset: Dataset, index_RSB: np.ndarray
    ) -> jax.Array:
        parts = [
            run_predict(None, _Runs(normaliser, index_RSB, variables), dataset)
            for index_RSB in _cut(index_RSB, layout)
        ]
        return jnp.concatenate(parts, axis=1)

    return GridPrograms(run_epoch, predict, measure)


def _cut(index_RSB: np.ndarray, layout: Layout) -> list[jax.Array]:
    """The batches that go into one program: all of them, or one at a time."""
    S = index_RSB.shape[1]
    parts = [index_RSB] if layout.scan else np.split(index_RSB, S, axis=1)
    return [place_runs(part, layout) for part in parts]


def _make_scanned(
    functions: _Functions, n_classes: int, layout: Layout, how: str
) -> tuple[Callable[..., Any], Callable[..., Cost]]:
    """`run_epoch` and `measure` of `GridPrograms`: an epoch is one program."""

    def epoch(progress: Progress, own: tuple[_Runs, _Runs], dataset: Dataset) -> Any:
        train_own, val_own = own
        state, train = functions.train((progress.state, Sums.zeros(n_classes)), train_own, dataset)
        val_own = val_own._replace(variables=state.variables)
        val = functions.evaluate(Sums.zeros(n_classes), val_own, dataset)
        return functions.keep((progress, state), val, None), train, val

    program = Vmapped(epoch, layout, how)

    def prepare(progress, normaliser, dataset, *indices: np.ndarray) -> Any:
        own = tuple(_Runs(normaliser, place_runs(index_RSB, layout)) for index_RSB in indices)
        return progress, own, dataset

    return (
        lambda *arguments: program(*prepare(*arguments)),
        lambda *arguments: program.measure(*prepare(*arguments)),
    )


def _make_stepped(
    functions: _Functions, n_classes: int, layout: Layout, how: str
) -> tuple[Callable[..., Any], Callable[..., Cost]]:
    """`run_epoch` and `measure` of `GridPrograms`: a program per step."""
    train, evaluate, keep = (
        Vmapped(function, layout, how)
        for function in (functions.train, functions.evaluate, functions.keep)
    )

    def make_zeros(index_RSB: np.ndarray) -> Sums:
        R = len(index_RSB)
        zeros = jax.eval_shape(lambda: Sums.zeros(n_classes))
        stacked = jax.tree.map(lambda x: np.zeros((R, *x.shape), x.dtype), zeros)
        return place_runs(stacked, layout)

    def run_epoch(progress, normaliser, dataset, train_index, val_index) -> Any:
        carry = progress.state, make_zeros(train_index)
        for index in _cut(train_index, layout):
            carry = train(carry, _Runs(normaliser, index), dataset)
        (state, train_sums), val_sums = carry, make_zeros(val_index)
        for index in _cut(val_index, layout):
            val_sums = evaluate(val_sums, _Runs(normaliser, index, state.variables), dataset)
        progress = keep((dataclasses.replace(progress, state=None), state), val_sums, None)
        return progress, train_sums, val_sums

    def measure(progress, normaliser, dataset, train_index, val_index) -> Cost:
        del val_index
        own = _Runs(normaliser, _cut(train_index, layout)[0])
        return train.measure((progress.state, make_zeros(train_index)), own, dataset)

    return run_epoch, measure
