"""The best epoch of a run directory, ready to use."""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from ser_jax.config import Config, compute_identity
from ser_jax.errors import check, warn
from ser_jax.features.batching import Dataset
from ser_jax.features.normaliser import Normaliser
from ser_jax.files.atomic import expand
from ser_jax.machine.compile_cache import use_compile_cache
from ser_jax.machine.jax_defaults import with_jax_defaults
from ser_jax.run.file_names import CONFIG_FILE, METRICS_FILE
from ser_jax.run.run_dir import load_run_config, load_tree, was_trained
from ser_jax.systems.registry import find_system
from ser_jax.wav2vec2.architecture import BackboneSpec


@dataclass(frozen=True)
class LoadedRun:
    """The best epoch of a run, ready to use."""

    run_dir: Path
    config: Config
    labels: tuple[str, ...]
    predict: Callable[[Dataset, np.ndarray], np.ndarray]
    """From a dataset and the numbers of clips [B] to logits [B, C]."""
    variables: Any
    """What it predicts by: parameters and running statistics of the best epoch."""
    normaliser: Normaliser
    n_samples: int
    """Samples to which every clip was padded or cut."""
    checksum: str
    """Of the recordings it was trained on; see `Corpus.checksum`."""
    best_epoch: int
    spec: BackboneSpec | None = None
    """The backbone, where the run is a wav2vec2."""

    def compute_logits(
        self, dataset: Dataset, index_B: np.ndarray, n_real: int | None = None
    ) -> np.ndarray:
        """Logits [n_real, C] of the first `n_real` clips of `index_B`; the others only pad a batch.

        Raises:
          UserError: one is not finite.
        """
        logits_BC = self.predict(dataset, index_B)[:n_real]
        check(
            bool(np.isfinite(logits_BC).all()),
            f"{self.run_dir}: the network gives no finite numbers; train again with a smaller "
            "train.learning_rate",
        )
        return logits_BC

    @property
    def is_network(self) -> bool:
        """Whether it was trained epoch by epoch."""
        return find_system(self.config.model.name).is_network

    @property
    def is_masked(self) -> bool:
        """Whether padding is left out of what it takes statistics from."""
        return self.config.model.mask_padding or not self.is_network


@with_jax_defaults
def load_run(run_dir: str | Path) -> LoadedRun:
    """The best epoch so far of the run in `run_dir`, which is only read.

    Raises:
      UserError: the directory is missing or no run's, holds no checkpoint yet, is damaged, or its
        config.yaml is not the one that was trained.
    """
    run_dir = expand(run_dir)
    config = load_run_config(run_dir)
    use_compile_cache(config.parallel.cache_dir)
    system = find_system(config.model.name)
    loaded = system.load(run_dir, config, functools.partial(_check_identity, run_dir))
    known = loaded.known
    if system.is_network and not (run_dir / METRICS_FILE).exists():
        warn(
            f"{run_dir}: training is not finished; this is its best epoch so far, "
            f"{known.best_epoch}"
        )
    return LoadedRun(
        run_dir=run_dir,
        config=config,
        labels=known.labels,
        predict=loaded.predict,
        variables=loaded.variables,
        normaliser=Normaliser(jnp.asarray(known.mean_F), jnp.asarray(known.std_F)),
        n_samples=known.n_samples,
        checksum=known.checksum,
        best_epoch=known.best_epoch,
        spec=loaded.spec,
    )


def _check_identity(run_dir: Path, facts: dict[str, Any]) -> None:
    trained = facts.get("identity")
    tree = load_tree(run_dir)  # as written, so that a run outlives settings that are added later
    check(
        was_trained(tree, trained),
        f"{run_dir / CONFIG_FILE}: says another run (settings {compute_identity(tree)}) than was "
        f"trained ({trained}); undo the change, or train again into a new run_dir, as also where "
        "an earlier version of ser_jax trained it",
    )
