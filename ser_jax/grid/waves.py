"""Cells of one program trained together, as many at a time as the device's memory holds."""

import contextlib
import dataclasses
import functools
import os
import time
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from ser_jax.config import AblationConfig, ModelConfig, TrainConfig
from ser_jax.errors import UserError
from ser_jax.features.batching import PADDING, Dataset, TakeTrain, cut_batches
from ser_jax.features.corpus_features import Inputs, load_inputs, make_dataset
from ser_jax.files.atomic import held
from ser_jax.grid.cell_dirs import Plan, Trained, make_plan, write_cells
from ser_jax.grid.cells import Cell
from ser_jax.grid.grid_manifest import Manifest
from ser_jax.grid.schedule import choose_how
from ser_jax.grid.vmapped import GridPrograms, RunLayout, init_progress, make_grid_programs
from ser_jax.grid.workers import AdvanceEpochs
from ser_jax.machine.cores import count_cores
from ser_jax.machine.jax_defaults import with_jax_defaults
from ser_jax.run.run_dir import check_run_dir
from ser_jax.systems.build import choose_forms, choose_take, hold_numbers
from ser_jax.systems.networks import make_model
from ser_jax.systems.registry import find_network_system
from ser_jax.training.saved_state import copy_to_host
from ser_jax.training.state import list_numbers, make_optimizer
from ser_jax.wav2vec2.architecture import BackboneSpec

MOST_RUNS = 64
"""Runs of a program on one device, so that a kill loses no more than these."""
_DEVICE_SHARE, _CPU_SHARE = 0.8, 0.5
"""Of the memory that is free on a device; of the machine's, which others use, too."""
_PROBE_WORTH = 4
"""A second way is compiled and timed where the first would take this many times its compilation."""
_WORDS = {"vmap": "side by side", "map": "one after another"}


def run_together(
    config: AblationConfig,
    groups: dict[str, list[Cell]],
    manifest: Manifest,
    advance: AdvanceEpochs,
) -> Generator[Cell]:
    """Train cells, those of one program together; gives each once its folder is written.

    Args:
      config: of the grid.
      groups: cells by `groups.compute_program_key`, all of one corpus and its features.
      manifest: keeps the way that was found fastest.
      advance: told of epochs of runs as they are done.

    Raises:
      UserError: a folder holds another run; a write failed; the device's memory is too small.
    """
    first = next(iter(groups.values()))[0].config
    inputs = load_inputs(first.data, first.features, masked=first.model.mask_padding)
    made = [
        _Group(config, f"{key}/{n_steps}", plans, inputs, manifest)
        for key, cells in groups.items()
        for n_steps, plans in _make_plans(cells, inputs).items()
    ]
    # Compilation takes the most of a small grid's time, and one core for each program; with waves
    # in its step it takes longest.
    order = sorted(made, key=lambda group: not group.has_waves)
    with ThreadPoolExecutor(count_cores()) as pool:
        list(pool.map(with_jax_defaults(_Group.compile), order))
    for group in made:
        yield from group.run(advance)


def _make_plans(cells: Sequence[Cell], inputs: Inputs) -> dict[int, list[Plan]]:
    """What to train, by numbers of steps."""
    config = cells[0].config
    network = find_network_system(config.model.name).find_network(config)
    network.check(config.model, *inputs.x_BTF.shape[1:])
    plans: dict[int, list[Plan]] = {}
    for cell in cells:
        check_run_dir(cell.run_dir, cell.config)
        plan = make_plan(cell, inputs)
        plans.setdefault(len(plan.cut_epoch(1)), []).append(plan)
    return plans


class _Ways(NamedTuple):
    """Network, optimiser, and programs by the way in which they treat many runs."""

    model: nn.Module
    tx: optax.GradientTransformation
    programs: dict[str, GridPrograms]


@functools.lru_cache(maxsize=64)
def _build_cached(
    config: ModelConfig,
    train: TrainConfig,
    n_classes: int,
    take_train: TakeTrain,
    layout: RunLayout,
    spec: BackboneSpec | None,
    n_steps: int,
) -> _Ways:
    # A convolution of many runs side by side would be one with groups, which is slow; as a product
    # of matrices it becomes a batch of them. All forms share one parameter tree.
    alone = choose_forms()
    forms = {"vmap": alone._replace(conv="im2col"), "map": alone}
    models = {
        way: make_model(config, n_classes, dtype=train.dtype, forms=form, spec=spec)
        for way, form in forms.items()
    }
    tx = make_optimizer(train, n_steps)
    programs = {
        way: make_grid_programs(
            model, tx, n_classes=n_classes, best_by=train.best_by, take_train=take_train,
            layout=layout._replace(how=way),
        )
        for way, model in models.items()
    }  # fmt: skip
    return _Ways(models["map"], tx, programs)


class _Group:
    """Cells of one program and equal numbers of steps."""

    def __init__(
        self,
        grid: AblationConfig,
        key: str,
        plans: list[Plan],
        inputs: Inputs,
        manifest: Manifest,
    ):
        config = plans[0].cell.config
        self.prepared = find_network_system(config.model.name).prepare_inputs(config, inputs)
        self.inputs = inputs = self.prepared.inputs
        self.key, self.plans, self.manifest = key, plans, manifest
        self.train, n_classes = config.train, len(inputs.corpus.labels)
        devices = tuple(jax.local_devices())
        # A program per step on CPU, where a convolution inside a loop is ten times slower.
        on_cpu, wish = jax.default_backend() == "cpu", config.parallel.scan
        self.layout = RunLayout(
            scan=wish == "on" or (wish == "auto" and not on_cpu),
            devices=devices if len(devices) > 1 else (),
        )
        self.compile_s = 0.0  # of the program that was compiled last
        self.has_waves = config.augment.enabled
        self.draws_anew = config.augment.when == "epoch"
        self.way = choose_how(grid, [plan.cell for plan in plans])
        self.most = grid.runs_at_a_time or MOST_RUNS * self.n_devices
        known = manifest.find_decision(key) if self.way == "probe" else None
        if known:
            self.way, self.most = known["batching"], min(self.most, known["runs_at_a_time"])
        self.ways = _build_cached(
            dataclasses.replace(config.model, dropout=0.0),
            dataclasses.replace(config.train, **hold_numbers(config.train)),
            n_classes,
            choose_take(
                config.augment, config.features, config.data.rate_hz, config.model.mask_padding
            ),
            self.layout,
            self.prepared.spec,
            config.train.epochs * len(plans[0].cut_epoch(1)),
        )

    @functools.cached_property
    def dataset(self) -> Dataset:
        """The corpus, on all devices."""
        dataset = make_dataset(self.inputs, self.plans[0].normaliser, with_waves=self.has_waves)
        return self.layout.share(dataset)

    def compile(self) -> None:
        """Compile for as many runs as the memory holds."""
        while not self._begin(self.plans):
            pass
        del self.dataset

    def _begin(self, left: list[Plan]) -> "_Stack | None":
        """The next runs, in parts of equal size; None if they were too many, and `most` is less."""
        size = self._round(-(-len(left) // -(-len(left) // self.most)))
        try:
            stack = _Stack(self, left[:size], size)
            fitting = self._fit(stack, "vmap" if self.way == "probe" else self.way)
        except jax.errors.JaxRuntimeError as error:
            self.most = self._halve(size, error)
            return None
        self.most = min(self.most, max(fitting, 1)) if fitting < size else self.most
        return stack if fitting == size else None

    def run(self, advance: AdvanceEpochs) -> Generator[Cell]:
        """Train and write all cells; see `run_together`."""
        left = self.plans
        while left:
            start_s = time.perf_counter()
            stack = self._begin(left)
            if stack is None:
                continue
            with _hold(stack.plans):
                try:
                    if self.way == "probe":
                        self.way = self._probe(stack, len(left), advance)
                    stack.train(self.way, advance)
                    results = stack.finish(self.way, start_s)
                except jax.errors.JaxRuntimeError as error:
                    self.most = self._halve(stack.size, error)
                    continue
                yield from write_cells(stack.plans, self.prepared, results)
            left = left[stack.size :]
        del self.dataset

    @property
    def n_devices(self) -> int:
        return max(1, len(self.layout.devices))

    def _round(self, size: int) -> int:
        """`size` made a multiple of the number of devices."""
        return -(-size // self.n_devices) * self.n_devices

    def _fit(self, stack: "_Stack", way: str) -> int:
        """Compile for the runs of `stack`; how many runs the memory holds, at most these."""
        cost = self.ways.programs[way].measure(*stack.make_arguments(1))
        self.compile_s, free = cost.compile_s, _count_free_bytes()
        if cost.n_bytes <= free or stack.size <= self.n_devices:
            return stack.size
        fitting = int(stack.size * free / cost.n_bytes) // self.n_devices * self.n_devices
        return max(self.n_devices, min(fitting, stack.size - self.n_devices))

    def _halve(self, size: int, error: Exception) -> int:
        """Fewer runs than those for which memory did not suffice after all."""
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise error
        if size <= self.n_devices:
            cell = self.plans[0].cell
            raise UserError(
                f"{cell.run_dir}: the device's memory holds not one run; "
                "set a smaller train.batch_size, or batching=one"
            ) from error
        return self._round(size // 2)

    def _probe(self, stack: "_Stack", n_left: int, advance: AdvanceEpochs) -> str:
        """The faster way, found by the first epochs themselves: one side by side and, where so much
        is left that another compilation is worth its while, one run after another."""
        timings = {"vmap": stack.time_epoch("vmap", advance)}
        left_s = timings["vmap"] * (self.train.epochs * -(-n_left // stack.size) - 1)
        if self.train.epochs > 1 and left_s > _PROBE_WORTH * self.compile_s:
            self._fit(stack, "map")
            timings["map"] = stack.time_epoch("map", advance)
        way = min(timings, key=lambda way: timings[way])
        if len(timings) > 1:
            decision = {"batching": way, "runs_at_a_time": stack.size, "seconds": timings}
            self.manifest.keep_decision(self.key, decision)
        told = ", ".join(f"{_WORDS[way]} {s:.2f} s" for way, s in timings.items())
        print(f"{len(self.plans)} runs, {stack.size} at a time: an epoch {told}", flush=True)
        return way


class _Stack:
    """Some cells in training together; rows that only fill it up repeat cells."""

    def __init__(self, group: _Group, plans: list[Plan], size: int):
        self.group, self.plans, self.size = group, plans, size
        self.rows = [plans[row % len(plans)] for row in range(size)]
        configs = [plan.cell.config for plan in self.rows]
        _, T, F = group.inputs.x_BTF.shape
        layout = group.layout
        self.progress = layout.place(init_progress(
            group.ways.model, group.ways.tx, n_frames=T, n_features=F,
            seed_R=[config.seed for config in configs],
            dropout_R=[config.model.dropout for config in configs],
            augment_p_R=[config.augment.p for config in configs],
            learning_rate_R=[config.train.learning_rate for config in configs],
            numbers_R=jax.tree.map(
                lambda *x: np.stack(x), *(list_numbers(c.train, c.augment) for c in configs)
            ),
        ))  # fmt: skip
        normalisers = [plan.normaliser for plan in self.rows]
        self.normaliser = layout.place(jax.tree.map(lambda *x: jnp.stack(x), *normalisers))
        self.val_index = self._cut("val")
        self.sums: list[Any] = []

    def _cut(self, part: str) -> np.ndarray:
        """Clips of a part of the split, [R, S, B]; shorter parts are filled up."""
        batch_size = self.group.train.batch_size
        cut = [cut_batches(getattr(plan.split, part), batch_size) for plan in self.rows]
        S = max(map(len, cut))
        fill = [((0, S - len(index_SB)), (0, 0)) for index_SB in cut]
        pairs = zip(cut, fill, strict=True)
        return np.stack([np.pad(i, width, constant_values=PADDING) for i, width in pairs])

    def make_arguments(self, epoch: int) -> tuple[Any, ...]:
        """What `GridPrograms.run_epoch` takes for an epoch, counted from 1."""
        draw = np.asarray(epoch if self.group.draws_anew else 1, np.int32)
        dataset = dataclasses.replace(self.group.dataset, draw=self.group.layout.share(draw))
        train_index = np.stack([plan.cut_epoch(epoch) for plan in self.rows])
        return self.progress, self.normaliser, dataset, train_index, self.val_index

    def run_epoch(self, way: str) -> None:
        """Begin the next epoch; the device may still be at it when this returns."""
        arguments = self.make_arguments(len(self.sums) + 1)
        self.progress, *sums = self.group.ways.programs[way].run_epoch(*arguments)
        self.sums.append(sums)

    def time_epoch(self, way: str, advance: AdvanceEpochs) -> float:
        """Seconds of the next epoch."""
        start_s = time.perf_counter()
        self.run_epoch(way)
        jax.block_until_ready(self.progress)
        advance(len(self.plans))
        return time.perf_counter() - start_s

    def train(self, way: str, advance: AdvanceEpochs) -> None:
        """Run the epochs that are left. The device never waits: it is asked how the epoch before
        went when the next has begun."""
        first = len(self.sums)
        for epoch in range(first, self.group.train.epochs):
            self.run_epoch(way)
            if epoch > first:
                jax.block_until_ready(self.sums[-2])
                advance(len(self.plans))
        if len(self.sums) > first:
            jax.block_until_ready(self.sums[-1])
            advance(len(self.plans))

    def finish(self, way: str, start_s: float) -> list[Trained]:
        """The cells, each with its share of the seconds since `start_s`."""
        index = {part: self._cut(part) for part in ("val", "test")}
        predict = self.group.ways.programs[way].predict
        variables = self.progress.best.variables
        both = np.concatenate(list(index.values()), axis=1)
        classes = np.asarray(predict(variables, self.normaliser, self.group.dataset, both))
        n_val = index["val"].shape[1]
        classes = {"val": classes[:, :n_val], "test": classes[:, n_val:]}
        # All at once: a transfer of its own for each cell would take longer than their bytes.
        sums, best = jax.device_get(self.sums), copy_to_host(self.progress.best)
        seconds = (time.perf_counter() - start_s) / len(self.plans)
        results = []
        for row, plan in enumerate(self.plans):
            predicted = {
                part: found[row].ravel()[: len(getattr(plan.split, part))]
                for part, found in classes.items()
            }
            own_sums, own_best = jax.tree.map(lambda x: x[row], (sums, best))  # noqa: B023
            results.append(Trained(own_sums, own_best, predicted, seconds))
        return results


@contextlib.contextmanager
def _hold(plans: Sequence[Plan]) -> Iterator[None]:
    """The cells' folders for this process, as `train` holds that of a run."""
    with contextlib.ExitStack() as stack:
        for plan in plans:
            remedy = "wait until it ends, then start the grid again"
            stack.enter_context(held(plan.cell.run_dir, remedy))
        yield


def _count_free_bytes() -> float:
    """Memory for programs on the device that has least."""
    free = []
    for device in jax.local_devices():
        stats = device.memory_stats() or {}
        if "bytes_limit" in stats:
            free.append(_DEVICE_SHARE * (stats["bytes_limit"] - stats.get("bytes_in_use", 0)))
    if free:
        return min(free)
    return _CPU_SHARE * os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
