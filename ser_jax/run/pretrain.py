"""Pre-training of wav2vec 2.0 from a folder of recordings to a checkpoint that `train` takes."""

import contextlib
import math
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import yaml

from ser_jax.config import (
    PretrainConfig,
    TrainConfig,
    compute_identity,
    find_differences,
    name_differences,
    to_dict,
)
from ser_jax.data.unlabelled import UnlabelledClips
from ser_jax.errors import UserError, check
from ser_jax.features.batching import cut_batches, shuffle
from ser_jax.files.atomic import clear_unfinished, held, write_atomic
from ser_jax.machine.compile_cache import use_compile_cache
from ser_jax.machine.jax_defaults import with_jax_defaults
from ser_jax.progress import Advance, progress
from ser_jax.run.events import EventLog
from ser_jax.run.file_names import CONFIG_FILE
from ser_jax.run.finish import end_run
from ser_jax.run.run_dir import load_tree
from ser_jax.systems.network_checkpoints import CHECKPOINTS
from ser_jax.systems.pretrain_step import (
    Crops,
    Figures,
    init_pretraining,
    make_architecture,
    make_pretrain_step,
)
from ser_jax.training.checkpoint import Checkpoints
from ser_jax.training.compiled_step import compile_step
from ser_jax.training.layouts import Layout, choose_layout
from ser_jax.training.optimizer import make_optimizer, make_schedule
from ser_jax.training.state import TrainState
from ser_jax.wav2vec2.architecture import Architecture
from ser_jax.wav2vec2.frozen_files import FOLDER
from ser_jax.wav2vec2.saving import save_pretrained


@with_jax_defaults
def pretrain(config: PretrainConfig) -> dict[str, float]:
    """Pre-train, and write RUN_DIR/backbone, which `train` accepts as backbone.path.

    A directory that holds the same run is resumed, and ends with the same numbers.

    Returns:
      The figures of the last epoch.

    Raises:
      UserError: bad input, a directory of another run, a failed write, a loss that is NaN or
        infinite.
    """
    use_compile_cache(config.parallel.cache_dir)
    run_dir = Path(config.run_dir)
    with held(run_dir, "wait until it ends, or choose another --run_dir"):
        return _pretrain(config, run_dir)


def _pretrain(config: PretrainConfig, run_dir: Path) -> dict[str, float]:
    """`pretrain` in a directory that is this process's."""
    _open_run_dir(run_dir, config)
    layout = choose_layout(
        config.parallel, batch_size=config.train.batch_size, convolves=True, by_step=True
    )
    check(
        layout.mode != "pmap" and jax.process_count() == 1,
        f"parallel.mode={config.parallel.mode}: pre-training takes jit or mesh, in one process",
    )
    architecture = make_architecture(config)
    clips = UnlabelledClips(config.data, config.seed, architecture.receptive_field)
    n_steps = config.train.epochs * -(-len(clips) // config.train.batch_size)
    train = _translate(config)
    tx = make_optimizer(train, n_steps)
    state = init_pretraining(config, architecture, tx)
    program = compile_step(make_pretrain_step(config, architecture, tx), layout)
    log = EventLog(run_dir)
    figures: dict[str, float] = {}
    with (
        contextlib.closing(Checkpoints(run_dir / CHECKPOINTS)) as checkpoints,
        progress("pre-training", config.train.epochs, "epochs") as advance,
    ):
        epoch = checkpoints.latest_epoch() or 0
        if epoch:
            figures = checkpoints.load_facts(epoch)
            state = checkpoints.load_state(epoch, state)
            print(f"resumed after epoch {epoch}", flush=True)
            advance(epoch, earlier=True)
        log.cut_back(int(state.step) if epoch else -1)
        log({"event": "start", "identity": compute_identity(config), "files": len(clips)})
        schedule = make_schedule(train, n_steps)
        while epoch < config.train.epochs:
            epoch += 1
            start_s = time.perf_counter()
            state, sums = _run_epoch(program, state, clips, config, layout, epoch, advance)
            figures = sums.summarise(config)
            if not math.isfinite(figures["loss"]):
                raise UserError(
                    f"train.learning_rate={config.train.learning_rate:g}: the loss is "
                    f"{figures['loss']} in epoch {epoch}; choose a smaller one"
                )
            figures["learning_rate"] = config.train.learning_rate * float(schedule(state.step - 1))
            figures["seconds"] = round(time.perf_counter() - start_s, 3)
            log({"event": "epoch", "epoch": epoch, "step": int(state.step), **figures})
            print(_format(epoch, config.train.epochs, figures), flush=True)
            checkpoints.save(epoch, state, figures, best_epoch=epoch)
    params, step = state.params, int(state.step)
    metrics = {"identity": compute_identity(config), "epochs": epoch, **figures}
    end_run(
        run_dir, metrics, log, {"step": step},
        leave=lambda: _save(run_dir / FOLDER, architecture, params, config),
    )  # fmt: skip
    return figures


def _run_epoch(
    program: Callable[..., Any],
    state: TrainState,
    clips: UnlabelledClips,
    config: PretrainConfig,
    layout: Layout,
    epoch: int,
    advance: Advance,
) -> tuple[TrainState, Figures]:
    order = shuffle(np.arange(len(clips)), config.seed, epoch)
    index_SB = cut_batches(order, config.train.batch_size, layout.n_shards)
    carry = state, Figures.zeros()
    row_B = np.arange(index_SB.shape[1], dtype=np.int32)
    batches = clips.iterate(index_SB, config.seed, epoch)
    for step, (wave_BN, length_B) in enumerate(batches, 1):
        carry = program(carry, Crops(jnp.asarray(wave_BN), jnp.asarray(length_B)), row_B)
        jax.block_until_ready(carry[1].steps)
        advance(1 / len(index_SB), f"step {step}/{len(index_SB)}")
    return carry


def _translate(config: PretrainConfig) -> TrainConfig:
    """The optimiser's settings as a `TrainConfig`."""
    train = config.train
    return TrainConfig(
        epochs=train.epochs, batch_size=train.batch_size, learning_rate=train.learning_rate,
        schedule="linear", warmup=train.warmup, weight_decay=train.weight_decay,
        clip_norm=train.clip_norm, adam_epsilon=1e-6,
    )  # fmt: skip


def _open_run_dir(run_dir: Path, config: PretrainConfig) -> None:
    """Make the directory, or check that it holds this run."""
    if (run_dir / CONFIG_FILE).exists():
        differences = find_differences(load_tree(run_dir), config)
        check(
            not differences,
            f"run_dir={run_dir}: holds another run ({name_differences(differences)}); choose "
            "another --run_dir, or delete it",
        )
        clear_unfinished(run_dir)
        return
    check(
        not run_dir.exists() or not any(run_dir.iterdir()),
        f"run_dir={run_dir}: exists and is no run directory; choose another --run_dir",
    )
    write_atomic(run_dir / CONFIG_FILE, yaml.safe_dump(to_dict(config), sort_keys=False))


def _save(folder: Path, architecture: Architecture, params: Any, config: PretrainConfig) -> None:
    if folder.exists():  # of a run killed after this and before metrics.json
        shutil.rmtree(folder)
    extra = {"architectures": ["Wav2Vec2ForPreTraining"]}
    masked = architecture.feat_extract_norm == "layer"  # as published checkpoints have it
    preprocessor = {"sampling_rate": config.data.rate_hz, "return_attention_mask": masked}
    save_pretrained(folder, architecture, params, extra, preprocessor)


def _format(epoch: int, epochs: int, figures: dict[str, float]) -> str:
    return (
        f"epoch {epoch:>{len(str(epochs))}}/{epochs}  loss {figures['loss']:.3f}  "
        f"contrastive {figures['contrastive_loss']:.3f}  accuracy {figures['accuracy']:.3f}  "
        f"perplexity {figures['perplexity']:.1f}  {figures['seconds']:.1f} s"
    )
