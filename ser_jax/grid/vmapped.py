"""Many runs of one network as one program: side by side (vmap) or one after another (map)."""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import struct
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from ser_jax.features.batching import Dataset, TakeTrain, take_plain
from ser_jax.features.normaliser import Normaliser
from ser_jax.machine.accelerator import compile_ahead, jit
from ser_jax.metrics import Sums, compute_accuracy, compute_loss
from ser_jax.training.programs import Steps, make_steps
from ser_jax.training.state import TrainState, init_state

RUN_AXIS = "run"
"""The axis of devices that shares out the runs."""


@struct.dataclass
class Progress:
    """How far a run is, all of it on the device; of R runs every leaf has a leading axis R.

    Attributes:
      state: after the last epoch.
      best: after the epoch best on validation.
      best_score: figures of that epoch, [2]; greater is better, the second parts equal firsts.
      best_epoch: its number, from 1; 0 before the first.
      epoch: epochs trained.
    """

    state: TrainState
    best: TrainState
    best_score: jax.Array
    best_epoch: jax.Array
    epoch: jax.Array


class RunLayout(NamedTuple):
    """How the runs of a program are laid out.

    Attributes:
      how: 'vmap' (side by side) or 'map' (one after another).
      scan: an epoch is one program; else a program per step, since XLA on CPU runs a convolution
        inside a loop ten times slower.
      devices: each trains its share of the runs, and none waits for another; none: JAX's default.
    """

    how: str = "vmap"
    scan: bool = True
    devices: tuple[Any, ...] = ()

    def place(self, stacked: Any) -> Any:
        """Values with a leading axis R onto the devices; R is a multiple of their number."""
        return self._put(stacked, PartitionSpec(RUN_AXIS))

    def share(self, common: Any) -> Any:
        """Values that all runs see, such as the corpus, onto every device."""
        return self._put(common, PartitionSpec())

    def _put(self, tree: Any, spec: PartitionSpec) -> Any:
        if not self.devices:
            return jax.device_put(tree)
        return jax.device_put(tree, NamedSharding(self.mesh, spec))

    @property
    def mesh(self) -> Mesh:
        """The devices as a mesh of one axis."""
        return Mesh(np.asarray(self.devices), (RUN_AXIS,))


class Cost(NamedTuple):
    """Of a program: bytes on each device while it runs, and seconds that compiling it took."""

    n_bytes: int
    compile_s: float


class GridPrograms(NamedTuple):
    """Programs of R runs that differ in numbers, clips and their order alone.

    Values of runs are stacked and placed by `layout.place`, the dataset by `layout.share`; its own
    normaliser plays no part.

    Attributes:
      run_epoch: (progress, normaliser, dataset, train_index_RSB, val_index_RSB) ->
        (progress, training Sums, validation Sums); the old progress is gone.
      predict: (variables, normaliser, dataset, index_RSB) -> classes, int32 [R, S, B].
      measure: (arguments of run_epoch) -> what it costs. What is compiled to know it is kept for
        `run_epoch`.
      layout: see `Layout`.
    """

    run_epoch: Callable[..., tuple[Progress, Sums, Sums]]
    predict: Callable[..., jax.Array]
    measure: Callable[..., Cost]
    layout: RunLayout


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
    """The progress of R runs before the first step, each begun as `state.init_state` does it.

    A run here has all that it needs in its own parameters, and nothing frozen: what is frozen
    altogether is in the dataset, as what it makes of the clips. `numbers_R` are those of
    `state.list_numbers`, stacked.
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

    # One run after another, by the same arithmetic as alone.
    return jax.jit(lambda numbers: jax.lax.map(init_one, numbers))


def keep_best(progress: Progress, state: TrainState, val: Sums, best_by: str) -> Progress:
    """The progress of one run after an epoch.

    Args:
      progress: before the epoch.
      state: after the epoch.
      val: sums over the validation clips.
      best_by: 'accuracy', equal ones parted by the loss, or 'loss', the other way round.
    """
    figures = [compute_accuracy(val), -compute_loss(val)]
    score = jnp.stack(figures if best_by == "accuracy" else figures[::-1])
    best = progress.best_score
    is_better = (score[0] > best[0]) | ((score[0] == best[0]) & (score[1] > best[1]))
    epoch = progress.epoch + 1

    def choose(new: Any, old: Any) -> Any:
        return jax.tree.map(lambda a, b: jnp.where(is_better, a, b), new, old)

    return Progress(
        state, choose(state, progress.best), choose(score, best),
        choose(epoch, progress.best_epoch), epoch,
    )  # fmt: skip


class _Runs(NamedTuple):
    """What each run has for itself beside its state."""

    normaliser: Normaliser
    index_SB: jax.Array
    variables: Any = None


class _Functions(NamedTuple):
    """What one run does with its clips `index_SB`, as functions (carry, own, dataset)."""

    train: Callable[..., Any]
    evaluate: Callable[..., Any]
    predict: Callable[..., Any]
    keep: Callable[..., Any]


def _make_functions(steps: Steps, best_by: str, scan: bool) -> _Functions:
    def fold(step: Callable[..., Any], carry: Any, own: _Runs, dataset: Dataset) -> Any:
        dataset = dataclasses.replace(dataset, normaliser=own.normaliser)
        # Step by step there is one batch at a time, around which no loop may be left.
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


class _Program:
    """A function (carry, own, dataset) of one run as a program of R; the carry is used up."""

    def __init__(self, function: Callable[..., Any], layout: RunLayout):
        def map_runs(carry: Any, own: Any, dataset: Any) -> Any:
            return jax.lax.map(lambda pair: function(*pair, dataset), (carry, own))

        many = jax.vmap(function, (0, 0, None)) if layout.how == "vmap" else map_runs
        if layout.devices:
            one, whole = PartitionSpec(RUN_AXIS), PartitionSpec()
            many = jax.shard_map(
                many, mesh=layout.mesh, in_specs=(one, one, whole), out_specs=one, check_vma=False
            )
        self._program = jit(many, donate_argnums=0)
        self._compiled: dict[Any, tuple[Any, Cost]] = {}

    def __call__(self, *arguments: Any) -> Any:
        program, _ = self._compiled.get(_describe(arguments), (self._program, None))
        return program(*arguments)

    def measure(self, *arguments: Any) -> Cost:
        """What it costs for arguments of these shapes, for which it is compiled once."""
        shapes = _describe(arguments)
        if shapes not in self._compiled:
            program, seconds = compile_ahead(self._program, *arguments)
            self._compiled[shapes] = program, Cost(_count_bytes(program), seconds)
        return self._compiled[shapes][1]


def _count_bytes(program: Any) -> int:
    found = program.memory_analysis()
    if found is None:  # a backend that does not tell
        return 0
    # What is used up makes room for what comes out.
    return (
        found.argument_size_in_bytes + found.output_size_in_bytes
        + found.temp_size_in_bytes - found.alias_size_in_bytes
    )  # fmt: skip


def _describe(arguments: Any) -> tuple[Any, ...]:
    """Shapes and types of all arrays."""
    leaves, tree = jax.tree.flatten(arguments)
    return tree, *((np.shape(leaf), leaf.dtype) for leaf in leaves)


def make_grid_programs(
    model: nn.Module,
    tx: optax.GradientTransformation,
    *,
    n_classes: int,
    best_by: str = "accuracy",
    take_train: TakeTrain = take_plain,
    layout: RunLayout = RunLayout(),  # noqa: B008 - immutable
) -> GridPrograms:
    """Programs that train R runs at once.

    Args:
      model, tx: network and optimiser, common to the runs.
      n_classes: number of logits.
      best_by: see `keep_best`.
      take_train: training batches; see `batching.TakeTrain`.
      layout: see `Layout`.
    """
    functions = _make_functions(make_steps(model, tx, take_train), best_by, layout.scan)

    make_epoch = _make_scanned if layout.scan else _make_stepped
    run_epoch, measure = make_epoch(functions, n_classes, layout)
    run_predict = _Program(functions.predict, layout)

    def predict(
        variables: Any, normaliser: Normaliser, dataset: Dataset, index_RSB: np.ndarray
    ) -> jax.Array:
        parts = [
            run_predict(None, _Runs(normaliser, index_RSB, variables), dataset)
            for index_RSB in _cut(index_RSB, layout)
        ]
        return jnp.concatenate(parts, axis=1)

    return GridPrograms(run_epoch, predict, measure, layout)


def _cut(index_RSB: np.ndarray, layout: RunLayout) -> list[jax.Array]:
    """The batches that go into one program: all of them, or one at a time."""
    S = index_RSB.shape[1]
    parts = [index_RSB] if layout.scan else np.split(index_RSB, S, axis=1)
    return [layout.place(part) for part in parts]


def _make_scanned(
    functions: _Functions, n_classes: int, layout: RunLayout
) -> tuple[Callable[..., Any], Callable[..., Cost]]:
    """`run_epoch` and `measure` of `GridPrograms`: an epoch is one program."""

    def epoch(progress: Progress, own: tuple[_Runs, _Runs], dataset: Dataset) -> Any:
        train_own, val_own = own
        state, train = functions.train((progress.state, Sums.zeros(n_classes)), train_own, dataset)
        val_own = val_own._replace(variables=state.variables)
        val = functions.evaluate(Sums.zeros(n_classes), val_own, dataset)
        return functions.keep((progress, state), val, None), train, val

    program = _Program(epoch, layout)

    def prepare(progress, normaliser, dataset, *indices: np.ndarray) -> Any:
        own = tuple(_Runs(normaliser, layout.place(index_RSB)) for index_RSB in indices)
        return progress, own, dataset

    return (
        lambda *arguments: program(*prepare(*arguments)),
        lambda *arguments: program.measure(*prepare(*arguments)),
    )


def _make_stepped(
    functions: _Functions, n_classes: int, layout: RunLayout
) -> tuple[Callable[..., Any], Callable[..., Cost]]:
    """`run_epoch` and `measure` of `GridPrograms`: a program per step."""
    train, evaluate, keep = (
        _Program(function, layout)
        for function in (functions.train, functions.evaluate, functions.keep)
    )

    def make_zeros(index_RSB: np.ndarray) -> Sums:
        R = len(index_RSB)
        zeros = jax.eval_shape(lambda: Sums.zeros(n_classes))
        return layout.place(jax.tree.map(lambda x: np.zeros((R, *x.shape), x.dtype), zeros))

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
