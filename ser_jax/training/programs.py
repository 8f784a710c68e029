"""The pure steps of one network made into programs, compiled ahead or as they are needed."""

import dataclasses
import functools
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import flax.linen as nn
import jax
import numpy as np
import optax
from jax.sharding import PartitionSpec

from ser_jax.features.batching import Batch, Dataset, TakeTrain, take_plain
from ser_jax.machine.accelerator import jit
from ser_jax.metrics import Sums
from ser_jax.training.compiled_step import Program, compile_step
from ser_jax.training.layouts import Layout, place, replicated, share_out_clips
from ser_jax.training.state import TrainState
from ser_jax.training.step import Steps, make_steps


class Stream(Protocol):
    """A corpus that does not live on the device: batches come from the host as they are needed."""

    def stream(self, index_SB: np.ndarray) -> Iterator[tuple[Dataset, jax.Array]]:
        """For each batch of clip numbers a `Dataset` to take those clips of, and the numbers."""
        ...


class Programs:
    """Compiled programs of one network; clips come as clip numbers [S, B] into a corpus.

    A corpus is a `batching.Dataset` on the device, or a `Stream`.

    Attributes:
      layout: where they run.
      multiple: B must be a multiple of it; see `batching.cut_batches`.
    """

    def __init__(self, steps: Steps, n_classes: int, layout: Layout, accumulate: int = 1):
        self.layout, self.multiple = layout, layout.n_shards * accumulate
        self._zeros = functools.partial(Sums.zeros, n_classes)
        self._train, self._evaluate = _Fold(steps.train, layout), _Fold(steps.evaluate, layout)
        self._predict = _compile_predict(steps.predict, layout)

    def train_epoch(
        self,
        state: TrainState,
        corpus: Dataset | Stream,
        index_SB: np.ndarray,
        on_step: Callable[[int], None] = lambda step: None,
    ) -> tuple[TrainState, Sums]:
        """The state after an epoch, and its sums; the old state is donated, except what is frozen.

        `on_step` is called with the number of each step as it begins.
        """
        start, frozen = self._begin(state)
        frozen = place(frozen, self.layout)  # once, and not in every step
        state, sums = self._train(start, corpus, index_SB, frozen, on_step=on_step)
        return dataclasses.replace(state, frozen=frozen), sums

    def evaluate(self, variables: Any, corpus: Dataset | Stream, index_SB: np.ndarray) -> Sums:
        """Sums over all clips."""
        return self._evaluate(self._zeros(), corpus, index_SB, variables)

    def predict(self, variables: Any, corpus: Dataset | Stream, index_SB: np.ndarray) -> np.ndarray:
        """Logits, NumPy float32 [S * B, C]."""
        batches = _iterate(corpus, index_SB, self.layout)
        logits = [self._predict(variables, dataset, index_B) for dataset, index_B in batches]
        return np.concatenate(jax.device_get(logits))

    def list_compilations(
        self, state: TrainState, dataset: Dataset, *indices_SB: np.ndarray
    ) -> list[Callable[[], None]]:
        """The compilations that calls with such arguments need, to be run side by side.

        Arguments may be shapes. There are none under pmap.

        Args:
          state, dataset: of the run.
          indices_SB: for training, for evaluation and for prediction.
        """
        if self.layout.mode == "pmap":
            return []
        train, test, wanted = indices_SB
        # Where training leaves them.
        state, dataset = place(state, self.layout), place(dataset, self.layout)
        start, frozen = self._begin(state)
        return [
            lambda: self._train.compile(start, dataset, train, frozen),
            lambda: self._evaluate.compile(self._zeros(), dataset, test, state.variables),
            lambda: self._predict.compile(state.variables, dataset, wanted[0]),
        ]

    def _begin(self, state: TrainState) -> tuple[tuple[TrainState, Sums], Any]:
        # Frozen parameters go beside what a program uses up, so that others may hold them as well.
        return (dataclasses.replace(state, frozen={}), self._zeros()), state.frozen


def make_programs(
    model: nn.Module,
    tx: optax.GradientTransformation,
    *,
    n_classes: int,
    take_train: TakeTrain = take_plain,
    layout: Layout = Layout(),  # noqa: B008 - immutable
    accumulate: int = 1,
) -> Programs:
    """Programs of one network in a layout.

    Args:
      model: made with `axis_name=layout.axis_name`.
      tx: the optimiser.
      n_classes: number of logits.
      take_train: training batches; see `batching.TakeTrain`.
      layout: see `choose_layout`.
      accumulate: see `step.train_step`.
    """
    if layout.mode == "mesh":
        take_train = _share_out_take(take_train, layout)
    steps = make_steps(model, tx, take_train, layout.axis_name, accumulate)
    return Programs(steps, n_classes, layout, accumulate)


def _share_out_take(take_train: TakeTrain, layout: Layout) -> TakeTrain:
    """`take_train` with every device taking, and augmenting, its own rows.

    Left to itself XLA would have every device go through all clips where they are augmented one
    after another, as on CPU.
    """
    everywhere, rows = PartitionSpec(), PartitionSpec(layout.axis)

    def shared(
        dataset: Dataset, index_B: jax.Array, key: jax.Array, draw: jax.Array, p: jax.Array
    ) -> Batch:
        if not isinstance(dataset.x_BTF, jax.Array):  # rows in shards already
            return take_train(dataset, index_B, key, draw, p)
        return jax.shard_map(
            take_train, mesh=layout.mesh, check_vma=False, out_specs=rows,
            in_specs=(everywhere, rows, everywhere, everywhere, everywhere),
        )(dataset, index_B, key, draw, p)  # fmt: skip

    return shared


def _compile_predict(function: Callable[..., Any], layout: Layout) -> Program:
    """`function(variables, dataset, index_B)`, its result on every device."""
    if share_out_clips(layout) is None:  # every device has all of the parameters and clips
        return Program(jit(function))
    whole = replicated(layout)
    return Program(jit(function, out_shardings=whole), whole)


def _iterate(
    corpus: Dataset | Stream, index_SB: np.ndarray, layout: Layout
) -> Iterator[tuple[Dataset, Any]]:
    """Each batch's dataset and clip numbers."""
    if isinstance(corpus, Dataset):
        dataset = place(corpus, layout)
        return ((dataset, index_B) for index_B in index_SB)
    return corpus.stream(index_SB)


class _Fold:
    """A function (carry, corpus, index_SB, *rest) -> carry that takes all steps of an epoch."""

    def __init__(self, step: Callable[..., Any], layout: Layout):
        """
        Args:
          step: (carry, dataset, index_B, *rest) -> carry.
          layout: see `Layout`.
        """
        self._layout = layout
        self._run, self._run_scan = (
            compile_step(step, layout._replace(scan=scan)) for scan in (False, True)
        )

    def __call__(
        self,
        carry: Any,
        corpus: Dataset | Stream,
        index_SB: np.ndarray,
        *rest: Any,
        on_step: Callable[[int], None] = lambda step: None,
    ) -> Any:
        if isinstance(corpus, Dataset) and self._layout.scan:
            carry = self._run_scan(carry, place(corpus, self._layout), index_SB, *rest)
            on_step(len(index_SB) - 1)
            return carry
        for number, (dataset, index_B) in enumerate(_iterate(corpus, index_SB, self._layout)):
            carry = self._run(carry, dataset, index_B, *rest)
            on_step(number)
        return carry

    def compile(self, carry: Any, dataset: Dataset, index_SB: np.ndarray, *rest: Any) -> None:
        """Compile what a call on a corpus on the device runs; not under pmap."""
        if self._layout.scan:
            self._run_scan.compile(carry, dataset, index_SB, *rest)
        else:
            self._run.compile(carry, dataset, index_SB[0], *rest)
