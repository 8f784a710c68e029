"""The pure steps made into programs: on one device or many, step by step or an epoch at once."""

import dataclasses
import functools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, Protocol

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from ser_jax.batching import Batch, Dataset, TakeTrain, take, take_plain
from ser_jax.config import ParallelConfig
from ser_jax.errors import check
from ser_jax.metrics import Sums
from ser_jax.sharing import spread
from ser_jax.state import TrainState
from ser_jax.step import eval_step, predict_step, train_step

AXIS = "data"
"""The axis of devices that shards a batch."""


class Layout(NamedTuple):
    """How programs are laid on devices.

    Attributes:
      mode: 'jit' (one device), 'mesh' or 'pmap' (a batch's rows shared out over `devices`).
      scan: an epoch is one program; else a program per step.
      devices: all that take part; none: JAX's default device.
    """

    mode: str = "jit"
    scan: bool = False
    devices: tuple[Any, ...] = ()

    @property
    def axis_name(self) -> str | None:
        """What `models.make_model` must know: the mapped axis, under pmap alone."""
        return AXIS if self.mode == "pmap" else None

    @property
    def n_shards(self) -> int:
        """A batch's number of rows must be a multiple of it; see `batching.cut_batches`."""
        return 1 if self.mode == "jit" else len(self.devices)


def choose_layout(parallel: ParallelConfig, *, convolves: bool, by_step: bool = False) -> Layout:
    """The layout that the configuration asks for on the devices of this machine.

    Args:
      parallel: what is asked for.
      convolves: whether the network has convolutions.
      by_step: a program per step whatever is asked, to tell the steps apart.

    Raises:
      UserError: one device only is asked for where several processes train together.
    """
    devices = tuple(jax.devices())
    mode = parallel.mode
    if mode == "auto":
        mode = "jit" if len(devices) == 1 else "mesh"
    check(
        mode == "mesh" or jax.process_count() == 1,
        f"parallel.mode={mode}: several processes train together by mesh alone; leave the key out",
    )
    # XLA on CPU runs a convolution inside a loop ten times slower (jax issue 12868).
    slow = convolves and devices[0].platform == "cpu"
    scan = parallel.scan == "on" or (parallel.scan == "auto" and not slow)
    return Layout(mode, scan and not by_step, devices if mode != "jit" else ())


class Stream(Protocol):
    """A corpus that does not live on the device: batches come from the host as they are needed."""

    def stream(self, index_SB: np.ndarray) -> Iterator[tuple[Dataset, jax.Array]]:
        """For each batch of clip numbers a `Dataset` to take those clips of, and the numbers."""
        ...


class Programs(NamedTuple):
    """Compiled programs of one network; clips come as clip numbers [S, B] into a corpus.

    A corpus is a `batching.Dataset` on the device, or a `Stream`.

    Attributes:
      train_epoch: (state, corpus, index_SB, on_step) -> (state, Sums); the old state is gone, but
        for what is frozen; `on_step` is told of steps begun.
      evaluate: (variables, corpus, index_SB) -> Sums.
      predict: (variables, corpus, index_SB) -> logits, NumPy float32 [S * B, C].
      layout: where they run.
      multiple: B must be a multiple of it; see `batching.cut_batches`.
    """

    train_epoch: Callable[..., tuple[TrainState, Sums]]
    evaluate: Callable[[Any, Any, np.ndarray], Sums]
    predict: Callable[[Any, Any, np.ndarray], np.ndarray]
    layout: Layout = Layout()
    multiple: int = 1


class Steps(NamedTuple):
    """The steps as pure functions, still to be compiled.

    Attributes:
      train: ((state, sums so far), dataset, index_B, frozen) -> (state, sums); given `frozen`
        stands in for the state's own, which is {} then.
      evaluate: (sums so far, dataset, index_B, variables) -> sums.
      predict: (dataset, index_B, variables) -> logits [B, C].
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

    def predict(dataset: Dataset, index_B: jax.Array, variables: Any) -> jax.Array:
        return predict_step(variables, take(dataset, index_B), model=model)

    return Steps(train, evaluate, predict)


def _scan(step: Callable[..., Any]) -> Callable[..., Any]:
    """`step(carry, dataset, index_B, *rest) -> carry` over all batches of `index_SB`."""

    def epoch(carry: Any, dataset: Dataset, index_SB: jax.Array, *rest: Any) -> Any:
        def body(carry: Any, index_B: jax.Array) -> tuple[Any, None]:
            return step(carry, dataset, index_B, *rest), None

        return jax.lax.scan(body, carry, index_SB)[0]

    return epoch


def replicated(layout: Layout) -> NamedSharding:
    """The whole of an array on every device of a mesh."""
    return NamedSharding(Mesh(np.asarray(layout.devices), (AXIS,)), PartitionSpec())


def compile_step(step: Callable[..., Any], layout: Layout) -> Callable[..., Any]:
    """A program (carry, dataset, index, *rest) -> carry on the devices of a layout.

    The last axis of the clip numbers is shared out, all else is on every device.

    Args:
      step: (carry, dataset, index_B, *rest) -> carry, pure.
      layout: `layout.scan` makes the program take index_SB, else index_B.
    """
    function = _scan(step) if layout.scan else step
    if layout.mode == "jit":
        return jax.jit(function, donate_argnums=0)
    return (_compile_mesh if layout.mode == "mesh" else _compile_pmap)(function, layout)


def share_out_clips(layout: Layout) -> NamedSharding | None:
    """How several processes share the clips of a corpus out; None: there is one process."""
    if jax.process_count() == 1:
        return None
    return NamedSharding(replicated(layout).mesh, PartitionSpec(AXIS))


def place(dataset: Dataset, layout: Layout) -> Dataset:
    """The corpus where a layout wants it: on every device, or shared out to the processes'."""
    return _lay_out(dataset, replicated(layout)) if layout.mode == "mesh" else dataset


def _lay_out(arguments: Any, whole: NamedSharding) -> Any:
    put = jax.device_put if whole.is_fully_addressable else spread
    return put(arguments, whole)


def _compile_mesh(function: Callable[..., Any], layout: Layout) -> Callable[..., Any]:
    whole = replicated(layout)

    def constrained(carry: Any, dataset: Dataset, index: jax.Array, *rest: Any) -> Any:
        spec = PartitionSpec(*(None,) * (index.ndim - 1), AXIS)
        index = jax.lax.with_sharding_constraint(index, NamedSharding(whole.mesh, spec))
        return function(carry, dataset, index, *rest)

    program = jax.jit(constrained, donate_argnums=0, out_shardings=whole)
    return lambda carry, dataset, *rest: program(
        _lay_out(carry, whole), dataset, *_lay_out(rest, whole)
    )


def _share_out_take(take_train: TakeTrain, layout: Layout) -> TakeTrain:
    """`take_train` with every device taking, and augmenting, its own rows.

    Left to itself XLA would have every device go through all clips where they are augmented one
    after another, as on CPU.
    """
    whole = replicated(layout)
    rows = PartitionSpec(AXIS)

    def shared(
        dataset: Dataset, index_B: jax.Array, key: jax.Array, draw: jax.Array, p: jax.Array
    ) -> Batch:
        if not isinstance(dataset.x_BTF, jax.Array):  # rows in shards already
            return take_train(dataset, index_B, key, draw, p)
        everywhere = PartitionSpec()
        return jax.shard_map(
            take_train, mesh=whole.mesh, check_vma=False, out_specs=rows,
            in_specs=(everywhere, rows, everywhere, everywhere, everywhere),
        )(dataset, index_B, key, draw, p)  # fmt: skip

    return shared


def _compile_pmap(function: Callable[..., Any], layout: Layout) -> Callable[..., Any]:
    @functools.cache
    def make(n_rest: int) -> Callable[..., Any]:
        in_axes = (None, None, 0, *(None,) * n_rest)
        return jax.pmap(function, AXIS, in_axes=in_axes, out_axes=None, devices=layout.devices)

    def program(carry: Any, dataset: Dataset, index: np.ndarray, *rest: Any) -> Any:
        shards = index.reshape(*index.shape[:-1], len(layout.devices), -1)
        return make(len(rest))(carry, dataset, np.moveaxis(shards, -2, 0), *rest)

    return program


def _compile_predict(function: Callable[..., Any], layout: Layout) -> Callable[..., Any]:
    """`function(dataset, index_B, variables)`, its result on every device."""
    if share_out_clips(layout) is None:  # every device has all of the parameters and clips
        return jax.jit(function)
    whole = replicated(layout)
    program = jax.jit(function, out_shardings=whole)
    return lambda *arguments: program(*_lay_out(arguments, whole))


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
    run_train, run_evaluate = _make_fold(steps.train, layout), _make_fold(steps.evaluate, layout)
    run_predict = _compile_predict(steps.predict, layout)

    def train_epoch(
        state: TrainState,
        corpus: Dataset | Stream,
        index_SB: np.ndarray,
        on_step: Callable[[int], None] = lambda step: None,
    ) -> tuple[TrainState, Sums]:
        # Beside what a program uses up and makes anew, so that others may hold it as well.
        frozen = state.frozen
        if layout.mode == "mesh":  # once, and not in every step
            frozen = _lay_out(frozen, replicated(layout))
        start = dataclasses.replace(state, frozen={}), Sums.zeros(n_classes)
        state, sums = run_train(start, corpus, index_SB, frozen, on_step=on_step)
        return dataclasses.replace(state, frozen=frozen), sums

    def evaluate(variables: Any, corpus: Dataset | Stream, index_SB: np.ndarray) -> Sums:
        return run_evaluate(Sums.zeros(n_classes), corpus, index_SB, variables)

    def predict(variables: Any, corpus: Dataset | Stream, index_SB: np.ndarray) -> np.ndarray:
        batches = _iterate(corpus, index_SB, layout)
        logits = [run_predict(dataset, index_B, variables) for dataset, index_B in batches]
        return np.asarray(jnp.concatenate(logits))

    multiple = layout.n_shards * accumulate
    return Programs(train_epoch, evaluate, predict, layout, multiple)


def _iterate(
    corpus: Dataset | Stream, index_SB: np.ndarray, layout: Layout
) -> Iterator[tuple[Dataset, Any]]:
    """Each batch's clip numbers and what to take them of."""
    if isinstance(corpus, Dataset):
        dataset = place(corpus, layout)
        return ((dataset, index_B) for index_B in index_SB)
    return corpus.stream(index_SB)


def _make_fold(step: Callable[..., Any], layout: Layout) -> Callable[..., Any]:
    """A function (carry, corpus, index_SB, *rest) -> carry that takes all steps of an epoch.

    Args:
      step: (carry, dataset, index_B, *rest) -> carry.
      layout: see `Layout`.
    """
    run, run_scan = (compile_step(step, layout._replace(scan=scan)) for scan in (False, True))

    def fold(
        carry: Any,
        corpus: Dataset | Stream,
        index_SB: np.ndarray,
        *rest: Any,
        on_step: Callable[[int], None] = lambda step: None,
    ) -> Any:
        if isinstance(corpus, Dataset) and layout.scan:
            carry = run_scan(carry, place(corpus, layout), index_SB, *rest)
            on_step(len(index_SB) - 1)
            return carry
        for number, (dataset, index_B) in enumerate(_iterate(corpus, index_SB, layout)):
            carry = run(carry, dataset, index_B, *rest)
            on_step(number)
        return carry

    return fold
