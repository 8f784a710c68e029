"""What the runs of one program have in common: the network, its programs, and the corpus."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from ser_jax.features.batching import Dataset
from ser_jax.features.corpus_features import Inputs, make_dataset
from ser_jax.grid.cell_dirs import Plan
from ser_jax.grid.grid_programs import GridPrograms, make_grid_programs
from ser_jax.systems.build import build_for, choose_forms
from ser_jax.systems.registry import find_network_system
from ser_jax.training.layouts import choose_run_layout, place


class SharedProgram:
    """What all runs of a group share.

    Attributes:
      prepared: the corpus as the network sees it, and what a backbone adds.
      train: training settings, except for the numbers that the runs' states hold.
      layout: the devices.
      model, tx: network and optimiser.
      programs: by how they treat many runs, 'vmap' or 'map'.
    """

    def __init__(self, plan: Plan, inputs: Inputs):
        """
        Args:
          plan: of any of the runs.
          inputs: the corpus and its features.
        """
        config = plan.cell.config
        self.prepared = find_network_system(config.model.name).prepare_inputs(config, inputs)
        self.inputs, self.train = self.prepared.inputs, config.train
        self.layout = choose_run_layout(config.parallel)
        self.has_waves = config.augment.enabled
        self._draws_anew = config.augment.when == "epoch"
        self._normaliser = plan.normaliser
        n_steps = config.train.epochs * len(plan.cut_epoch(1))
        # Side by side the convolutions of many runs would become one grouped convolution, which is
        # slow; as matrix products they become a batched one. All forms share one parameter tree.
        alone = choose_forms()
        forms = {"vmap": alone._replace(conv="im2col"), "map": alone}
        built: dict[str, Any] = {
            how: build_for(
                config, len(self.inputs.corpus.labels), self.layout, self.prepared.spec, n_steps,
                forms=form, make=_choose_maker(how, config.train.best_by),
            )
            for how, form in forms.items()
        }  # fmt: skip
        self.model, self.tx, _ = built["map"]
        self.programs: dict[str, GridPrograms] = {how: own for how, (*_, own) in built.items()}

    @functools.cached_property
    def dataset(self) -> Dataset:
        """The corpus, on all devices."""
        dataset = make_dataset(self.inputs, self._normaliser, with_waves=self.has_waves)
        return place(dataset, self.layout)

    def draw_dataset(self, epoch: int) -> Dataset:
        """The corpus as an epoch, counted from 1, augments it."""
        draw = np.asarray(epoch if self._draws_anew else 1, np.int32)
        return dataclasses.replace(self.dataset, draw=place(draw, self.layout))


@functools.cache
def _choose_maker(how: str, best_by: str) -> Callable[..., GridPrograms]:
    """`make_grid_programs` with what `build` does not pass; one function for equal arguments."""
    return functools.partial(make_grid_programs, how=how, best_by=best_by)
