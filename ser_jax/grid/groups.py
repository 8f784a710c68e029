"""Cells of one program trained together, as many at a time as the device's memory holds.

`schedule` says which cells those are.
"""

import contextlib
import os
import time
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import jax

from ser_jax.config import AblationConfig
from ser_jax.errors import UserError
from ser_jax.features.corpus_features import Inputs, load_inputs
from ser_jax.files.atomic import held
from ser_jax.grid.cell_dirs import Plan, make_plan, write_cells
from ser_jax.grid.cells import Cell
from ser_jax.grid.grid_manifest import Manifest
from ser_jax.grid.schedule import choose_how
from ser_jax.grid.shared_program import SharedProgram
from ser_jax.grid.stacks import Stack
from ser_jax.grid.workers import AdvanceEpochs
from ser_jax.machine.cores import count_cores
from ser_jax.machine.jax_defaults import with_jax_defaults
from ser_jax.run.run_dir import check_run_dir
from ser_jax.systems.registry import find_network_system

MOST_RUNS = 64
"""Runs of a program on one device, so that a kill loses no more than these."""
_DEVICE_SHARE, _CPU_SHARE = 0.8, 0.5
"""Of the memory that is free on a device; of the machine's, which others use too."""
_PROBE_WORTH = 4
"""A second way is compiled and timed if the remaining epochs would take this many times as long
as compilation."""
_WORDS = {"vmap": "side by side", "map": "one after another"}


def run_together(
    config: AblationConfig,
    groups: dict[str, list[Cell]],
    manifest: Manifest,
    advance: AdvanceEpochs,
) -> Generator[Cell]:
    """Train cells, those of one program together; yields each once its folder is written.

    Args:
      config: of the grid.
      groups: cells by `schedule.compute_program_key`, all of one corpus and its features.
      manifest: records the fastest way.
      advance: called with the number of epochs as runs finish them.

    Raises:
      UserError: a folder holds another run; a write failed; the device's memory is too small.
    """
    first = next(iter(groups.values()))[0].config
    inputs = load_inputs(first.data, first.features, masked=first.model.mask_padding)
    made = [
        Group(config, f"{key}/{n_steps}", plans, inputs, manifest)
        for key, cells in groups.items()
        for n_steps, plans in _make_plans(cells, inputs).items()
    ]
    # Compilation takes most of a small grid's time, and one core for each program; it takes longest
    # for a program with waves in its step.
    order = sorted(made, key=lambda group: not group.shared.has_waves)
    with ThreadPoolExecutor(count_cores()) as pool:
        list(pool.map(with_jax_defaults(Group.compile), order))
    for group in made:
        yield from group.run(advance)


def _make_plans(cells: Sequence[Cell], inputs: Inputs) -> dict[int, list[Plan]]:
    """What to train, by the number of steps."""
    config = cells[0].config
    system, n_classes = find_network_system(config.model.name), len(inputs.corpus.labels)
    system.check_shapes(config, n_classes, *inputs.x_BTF.shape[1:])
    plans: dict[int, list[Plan]] = {}
    for cell in cells:
        check_run_dir(cell.run_dir, cell.config)
        plan = make_plan(cell, inputs)
        plans.setdefault(len(plan.cut_epoch(1)), []).append(plan)
    return plans


class Group:
    """Cells of one program with the same number of steps."""

    def __init__(
        self,
        grid: AblationConfig,
        key: str,
        plans: list[Plan],
        inputs: Inputs,
        manifest: Manifest,
    ):
        self.shared = SharedProgram(plans[0], inputs)
        self.key, self.plans, self.manifest = key, plans, manifest
        self.n_devices = self.shared.layout.n_shards
        self.compile_s = 0.0  # of the program compiled last
        self.way = choose_how(grid, [plan.cell for plan in plans])
        self.most = grid.runs_at_a_time or MOST_RUNS * self.n_devices
        known = manifest.find_decision(key) if self.way == "probe" else None
        if known:
            self.way, self.most = known["batching"], min(self.most, known["runs_at_a_time"])

    def compile(self) -> None:
        """Compile for as many runs as the memory holds."""
        while not self._begin(self.plans):
            pass
        del self.shared.dataset

    def _begin(self, left: list[Plan]) -> Stack | None:
        """The next runs, in equal parts; `None` if they were too many, after lowering `most`."""
        size = self._round(-(-len(left) // -(-len(left) // self.most)))
        try:
            stack = Stack(self.shared, left[:size], size)
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
                yield from write_cells(stack.plans, self.shared.prepared, results)
            left = left[stack.size :]
        del self.shared.dataset

    def _round(self, size: int) -> int:
        """`size` rounded up to a multiple of the number of devices."""
        return -(-size // self.n_devices) * self.n_devices

    def _fit(self, stack: Stack, way: str) -> int:
        """Compile for the runs of `stack`; returns how many of them the memory holds."""
        cost = self.shared.programs[way].measure(*stack.make_arguments(1))
        self.compile_s, free = cost.compile_s, _count_free_bytes()
        if cost.n_bytes <= free or stack.size <= self.n_devices:
            return stack.size
        fitting = int(stack.size * free / cost.n_bytes) // self.n_devices * self.n_devices
        return max(self.n_devices, min(fitting, stack.size - self.n_devices))

    def _halve(self, size: int, error: Exception) -> int:
        """A smaller number of runs, after memory did not suffice for `size`."""
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise error
        if size <= self.n_devices:
            cell = self.plans[0].cell
            raise UserError(
                f"{cell.run_dir}: the device's memory does not hold even one run; "
                "set a smaller train.batch_size, or batching=one"
            ) from error
        return self._round(size // 2)

    def _probe(self, stack: Stack, n_left: int, advance: AdvanceEpochs) -> str:
        """The faster way, measured on the first epochs: one with the runs side by side and, if
        enough epochs are left to make another compilation worthwhile, one with them in turn."""
        timings = {"vmap": stack.time_epoch("vmap", advance)}
        left_s = timings["vmap"] * (self.shared.train.epochs * -(-n_left // stack.size) - 1)
        if self.shared.train.epochs > 1 and left_s > _PROBE_WORTH * self.compile_s:
            self._fit(stack, "map")
            timings["map"] = stack.time_epoch("map", advance)
        way = min(timings, key=lambda way: timings[way])
        if len(timings) > 1:
            decision = {"batching": way, "runs_at_a_time": stack.size, "seconds": timings}
            self.manifest.keep_decision(self.key, decision)
        told = ", ".join(f"{_WORDS[way]} {s:.2f} s" for way, s in timings.items())
        print(f"{len(self.plans)} runs, {stack.size} at a time: an epoch {told}", flush=True)
        return way


@contextlib.contextmanager
def _hold(plans: Sequence[Plan]) -> Iterator[None]:
    """Lock the cells' folders for this process, as `train` locks a run's."""
    with contextlib.ExitStack() as stack:
        for plan in plans:
            remedy = "wait until it ends, then start the grid again"
            stack.enter_context(held(plan.cell.run_dir, remedy))
        yield


def _count_free_bytes() -> float:
    """Memory for programs on the device that has the least."""
    free = []
    for device in jax.local_devices():
        stats = device.memory_stats() or {}
        if "bytes_limit" in stats:
            free.append(_DEVICE_SHARE * (stats["bytes_limit"] - stats.get("bytes_in_use", 0)))
    if free:
        return min(free)
    return _CPU_SHARE * os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
