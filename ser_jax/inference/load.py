"""The best epoch of a run directory, ready to use."""

import contextlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ser_jax.config import CLASSICAL, Config, compute_identity
from ser_jax.errors import UserError, check, warn
from ser_jax.features.frontend import count_feature_frames
from ser_jax.features.normaliser import Normaliser
from ser_jax.files.atomic import expand
from ser_jax.files.failures import explain_failure
from ser_jax.machine.jax_defaults import with_jax_defaults
from ser_jax.machine.runtime import settle
from ser_jax.run.file_names import CONFIG_FILE, METRICS_FILE
from ser_jax.run.run_dir import load_run_config, load_tree, was_trained
from ser_jax.systems.build import build
from ser_jax.systems.fitted import load_fitted, make_fitted_programs
from ser_jax.training.checkpoint import Checkpoints
from ser_jax.training.programs import Programs
from ser_jax.training.state import TrainState, describe_state, list_numbers, merge_params
from ser_jax.wav2vec2.architecture import BackboneSpec
from ser_jax.wav2vec2.finetune import init_trained, load_frozen


@dataclass(frozen=True)
class LoadedRun:
    """The best epoch of a run, ready to use."""

    run_dir: Path
    config: Config
    labels: tuple[str, ...]
    programs: Programs
    variables: Any
    """What `programs.predict` takes: parameters and running statistics of the best epoch."""
    normaliser: Normaliser
    n_samples: int
    """Samples to which every clip was padded or cut."""
    checksum: str
    """Of the recordings it was trained on; see `Corpus.checksum`."""
    best_epoch: int
    spec: BackboneSpec | None = None
    """The backbone of a wav2vec2."""

    @property
    def is_masked(self) -> bool:
        """Whether padding is left out of what it takes statistics from."""
        return self.config.model.mask_padding or self.config.model.name in CLASSICAL


@with_jax_defaults
def load_run(run_dir: str | Path) -> LoadedRun:
    """The best epoch so far of the run in `run_dir`, which is only read.

    Raises:
      UserError: the directory is missing or no run's, holds no checkpoint yet, is damaged, or its
        config.yaml is not the one that was trained.
    """
    run_dir = expand(run_dir)
    config = load_run_config(run_dir)
    settle(config.parallel)
    if config.model.name in CLASSICAL:
        return _load_fitted(run_dir, config)
    folder = run_dir / "checkpoints"
    unfinished = f"{run_dir}: holds no checkpoint yet; train it with the same ser-jax train command"
    check(folder.is_dir(), unfinished)
    with contextlib.closing(_open_checkpoints(folder)) as checkpoints:
        latest = checkpoints.latest_epoch()
        if latest is None:
            raise UserError(unfinished)
        facts = checkpoints.load_facts(latest)
        _check_identity(run_dir, facts)
        run = _load_best(run_dir, config, facts, checkpoints)
    if not (run_dir / METRICS_FILE).exists():
        warn(
            f"{run_dir}: training is not finished; this is its best epoch so far, {run.best_epoch}"
        )
    return run


def _load_fitted(run_dir: Path, config: Config) -> LoadedRun:
    """An svm or hmm, which has no epochs."""
    arrays, facts = load_fitted(run_dir, config)
    _check_identity(run_dir, facts)
    mean_F, std_F = (jnp.asarray(facts[key], jnp.float32) for key in ("mean_F", "std_F"))
    return LoadedRun(
        run_dir=run_dir,
        config=config,
        labels=tuple(facts["labels"]),
        programs=make_fitted_programs(config),
        variables=arrays,
        normaliser=Normaliser(mean_F, std_F),
        n_samples=facts["n_samples"],
        checksum=facts["checksum"],
        best_epoch=0,
    )


def _open_checkpoints(folder: Path) -> Checkpoints:
    try:
        return Checkpoints(folder, read_only=True)
    except Exception as error:  # orbax raises many kinds
        raise explain_failure(folder, error) from error


def _check_identity(run_dir: Path, facts: dict[str, Any]) -> None:
    trained = facts.get("identity")
    tree = load_tree(run_dir)  # as written, so that a run outlives settings that are added later
    check(
        was_trained(tree, trained),
        f"{run_dir / CONFIG_FILE}: says another run (settings {compute_identity(tree)}) than was "
        f"trained ({trained}); undo the change, or train again into a new run_dir, as also where "
        "an earlier version of ser_jax trained it",
    )


def _load_best(
    run_dir: Path, config: Config, facts: dict[str, Any], checkpoints: Checkpoints
) -> LoadedRun:
    try:
        labels, n_samples = tuple(facts["labels"]), int(facts["n_samples"])
        mean_F, std_F = (np.array(facts[key], np.float32) for key in ("mean_F", "std_F"))
        checksum, best_epoch = str(facts["checksum"]), int(facts["best_epoch"])
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"{checkpoints.folder}: its facts lack {error}, as another version of ser-jax wrote "
            "them; use that version"
        ) from error
    spec, kept = None, {}
    if config.model.name == "wav2vec2":
        spec, kept = load_frozen(run_dir, config)
    model, tx, programs = build(config.model, config.train, len(labels), spec=spec, n_steps=1)
    n_frames = count_feature_frames(config.features, n_samples)
    variables = None
    if spec is not None:
        variables = jax.eval_shape(lambda: init_trained(config.model, spec, len(labels)))
    like = _bind(describe_state(
        model, tx, n_frames=n_frames, n_features=len(mean_F), variables=variables,
        numbers=list_numbers(config.train, config.augment),
    ))  # fmt: skip
    variables = checkpoints.load_variables(best_epoch, like)
    variables = variables | {"params": merge_params(variables["params"], kept)}
    return LoadedRun(
        run_dir=run_dir,
        config=config,
        labels=labels,
        programs=programs,
        variables=variables,
        normaliser=Normaliser(jnp.asarray(mean_F), jnp.asarray(std_F)),
        n_samples=n_samples,
        checksum=checksum,
        best_epoch=best_epoch,
        spec=spec,
    )


def _bind(shapes: TrainState) -> TrainState:
    """Shapes and types of a state on JAX's default device."""
    place = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    return jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place), shapes
    )
