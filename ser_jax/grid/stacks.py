"""Cells of one program that train together: their states, epochs and results."""

import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ser_jax.features.batching import PADDING, cut_batches
from ser_jax.grid.cell_dirs import Plan, Trained
from ser_jax.grid.run_progress import init_progress
from ser_jax.grid.shared_program import SharedProgram
from ser_jax.grid.workers import AdvanceEpochs
from ser_jax.training.layouts import place_runs
from ser_jax.training.saved_state import copy_to_host
from ser_jax.training.state import list_numbers


class Stack:
    """Cells that train together; padding rows repeat cells."""

    def __init__(self, shared: SharedProgram, plans: list[Plan], size: int):
        self.shared, self.plans, self.size = shared, plans, size
        self.rows = [plans[row % len(plans)] for row in range(size)]
        configs = [plan.cell.config for plan in self.rows]
        _, T, F = shared.inputs.x_BTF.shape
        progress = init_progress(
            shared.model, shared.tx, n_frames=T, n_features=F,
            seed_R=[config.seed for config in configs],
            dropout_R=[config.model.dropout for config in configs],
            augment_p_R=[config.augment.p for config in configs],
            learning_rate_R=[config.train.learning_rate for config in configs],
            numbers_R=jax.tree.map(
                lambda *x: np.stack(x), *(list_numbers(c.train, c.augment) for c in configs)
            ),
        )  # fmt: skip
        self.progress = place_runs(progress, shared.layout)
        normalisers = [plan.normaliser for plan in self.rows]
        stacked = jax.tree.map(lambda *x: jnp.stack(x), *normalisers)
        self.normaliser = place_runs(stacked, shared.layout)
        self.val_index = self._cut("val")
        self.sums: list[Any] = []

    def _cut(self, part: str) -> np.ndarray:
        """Clips of a part of the split, [R, S, B]; shorter ones are padded."""
        batch_size = self.shared.train.batch_size
        cut = [cut_batches(getattr(plan.split, part), batch_size) for plan in self.rows]
        S = max(map(len, cut))
        fill = [((0, S - len(index_SB)), (0, 0)) for index_SB in cut]
        pairs = zip(cut, fill, strict=True)
        return np.stack([np.pad(i, width, constant_values=PADDING) for i, width in pairs])

    def make_arguments(self, epoch: int) -> tuple[Any, ...]:
        """What `GridPrograms.run_epoch` takes for an epoch, counted from 1."""
        dataset = self.shared.draw_dataset(epoch)
        train_index = np.stack([plan.cut_epoch(epoch) for plan in self.rows])
        return self.progress, self.normaliser, dataset, train_index, self.val_index

    def run_epoch(self, way: str) -> None:
        """Start the next epoch; the device may still be busy with it when this returns."""
        arguments = self.make_arguments(len(self.sums) + 1)
        self.progress, *sums = self.shared.programs[way].run_epoch(*arguments)
        self.sums.append(sums)

    def time_epoch(self, way: str, advance: AdvanceEpochs) -> float:
        """Seconds of the next epoch."""
        start_s = time.perf_counter()
        self.run_epoch(way)
        jax.block_until_ready(self.progress)
        advance(len(self.plans))
        return time.perf_counter() - start_s

    def train(self, way: str, advance: AdvanceEpochs) -> None:
        """Run the remaining epochs. The device never waits: the host waits for an epoch only once
        the next one has started."""
        first = len(self.sums)
        for epoch in range(first, self.shared.train.epochs):
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
        predict = self.shared.programs[way].predict
        variables = self.progress.best.variables
        both = np.concatenate(list(index.values()), axis=1)
        classes = np.asarray(predict(variables, self.normaliser, self.shared.dataset, both))
        n_val = index["val"].shape[1]
        classes = {"val": classes[:, :n_val], "test": classes[:, n_val:]}
        # All at once: with a transfer per cell the overhead would outweigh the bytes.
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
