"""ser_jax as a contestant: its own programs on its own networks."""

import contextlib
import dataclasses
import itertools
import os
import tempfile
from typing import Any, cast

import numpy as np

from benchmarks.worker import Job
from ser_jax.audio.samples import to_float
from ser_jax.config import (
    AblationConfig,
    AugmentConfig,
    Config,
    FeaturesConfig,
    ModelConfig,
    TrainConfig,
    override,
)

N_CLASSES = 8


def make_variables(model: dict[str, Any], n_frames: int, n_features: int) -> dict[str, Any]:
    """Make the weights that all contestants start from, as NumPy arrays."""
    import jax

    state = _init(model, n_frames, n_features)[2]
    return jax.tree.map(np.asarray, state.variables)


def _init(
    model: dict[str, Any], n_frames: int, n_features: int, dtype: str = "float32", **kwargs: Any
) -> tuple[Any, Any, Any]:
    from ser_jax.systems.networks import make_model
    from ser_jax.training.optimizer import make_optimizer
    from ser_jax.training.state import init_state

    config = override(ModelConfig(), model)
    network = make_model(config, N_CLASSES, dtype=dtype, **kwargs)
    tx = make_optimizer(TrainConfig())
    state = init_state(
        network, tx, seed=0, n_frames=n_frames, n_features=n_features, dropout=config.dropout
    )
    return network, tx, state


def set_precision(precision: str) -> str:
    """Set the precision of float32 products; returns the type to compute in."""
    import jax

    if precision == "float32":  # on a GPU JAX's own default is TF32
        jax.config.update("jax_default_matmul_precision", "highest")
    return "bfloat16" if precision == "bfloat16" else "float32"


def make_step(
    *,
    model: dict[str, Any],
    x_BTF: np.ndarray,
    label_B: np.ndarray,
    index_SB: np.ndarray,
    variables: dict[str, Any],
    precision: str = "float32",
    forms: dict[str, str] | None = None,
    mode: str = "jit",
    scan: bool = False,
    cpu_devices: int = 1,
) -> Job:
    """Make training steps on a corpus on the device, as `loop.fit` runs them.

    Args:
      model: dotted keys of `ModelConfig`.
      x_BTF, label_B: the corpus.
      index_SB: clips of the steps of a turn.
      variables: see `make_variables`.
      precision: float32, tf32 or bfloat16.
      forms: of `models.Forms`, where they differ from the package's choice.
      mode, scan: see `layouts.Layout`.
      cpu_devices: devices to split the CPU into, for the modes that share a batch.
    """
    import jax
    import jax.numpy as jnp

    from ser_jax.systems.build import choose_forms
    from ser_jax.training.layouts import Layout
    from ser_jax.training.programs import make_programs

    if cpu_devices > 1:
        jax.config.update("jax_num_cpu_devices", cpu_devices)
    dtype = set_precision(precision)
    devices = () if mode == "jit" else tuple(jax.devices())
    layout = Layout(mode, scan, devices)
    chosen = choose_forms()._replace(**(forms or {}))
    network, tx, state = _init(
        model, *x_BTF.shape[1:], dtype=dtype, forms=chosen, axis_name=layout.axis_name
    )
    parameters = sum(leaf.size for leaf in jax.tree.leaves(state.params))
    state = dataclasses.replace(
        state,
        params=jax.tree.map(jnp.asarray, variables["params"]),
        batch_stats=jax.tree.map(jnp.asarray, variables.get("batch_stats", {})),
    )
    programs = make_programs(network, tx, n_classes=N_CLASSES, layout=layout)
    dataset = make_dataset(x_BTF, label_B)
    return _train_in_turns(programs, state, dataset, index_SB, parameters)


def make_dataset(x_BTF: np.ndarray, label_B: np.ndarray) -> Any:
    """Put normalised features on the device as a corpus; every frame is real."""
    import jax.numpy as jnp

    from ser_jax.features.batching import Dataset
    from ser_jax.features.normaliser import Normaliser

    n_features = x_BTF.shape[-1]
    return Dataset(
        x_BTF=jnp.asarray(x_BTF),
        frames_B=jnp.full(len(x_BTF), x_BTF.shape[1], jnp.int32),
        label_B=jnp.asarray(label_B, jnp.int32),
        normaliser=Normaliser(jnp.zeros(n_features), jnp.ones(n_features)),
        draw=jnp.zeros((), jnp.int32),
    )


def _train_in_turns(
    programs: Any, state: Any, dataset: Any, index_SB: np.ndarray, parameters: int
) -> Job:
    import jax
    import jax.numpy as jnp

    rate, dropout = jnp.array(state.opt_state.hyperparams["learning_rate"]), state.hyper["dropout"]
    dropout = jnp.array(dropout)
    # The first turn compiles. It repeats one batch without learning or dropout, so that its loss
    # must equal the twins', and comes from the very program that is timed.
    first_SB = np.broadcast_to(index_SB[:1], index_SB.shape)
    current = {"state": _with_hyper(state, jnp.zeros_like(rate), jnp.zeros_like(dropout))}
    facts: dict[str, Any] = {"parameters": parameters}

    def turn() -> None:
        first = "loss" not in facts
        state, sums = programs.train_epoch(
            current["state"], dataset, first_SB if first else index_SB
        )
        jax.block_until_ready((state, sums))
        current["state"] = state
        if first:
            facts["loss"] = float(sums.loss) / float(sums.count)
            current["state"] = _with_hyper(state, rate, dropout)

    return Job(turn, lambda: facts)


def _with_hyper(state: Any, rate: Any, dropout: Any) -> Any:
    opt_state = state.opt_state._replace(
        hyperparams={**state.opt_state.hyperparams, "learning_rate": rate}
    )
    return dataclasses.replace(
        state, opt_state=opt_state, hyper={**state.hyper, "dropout": dropout}
    )


def watch_compiling() -> dict[str, Any]:
    """Collect every program that takes a second or more to compile or load.

    Each is also printed, since a worker that is stopped reports no facts.
    """
    import jax

    facts: dict[str, Any] = {"compiled": []}

    def note(event: str, duration_secs: float, **kwargs: str | int) -> None:
        if event == "/jax/core/compile/backend_compile_duration" and duration_secs >= 1:
            name = str(kwargs.get("fun_name", ""))
            facts["compiled"].append([name, duration_secs])
            print(f"compiled {name}: {duration_secs:.1f} s", flush=True)

    jax.monitoring.register_event_duration_secs_listener(note)
    return facts


def prepare_data(keys: dict[str, Any]) -> int:
    """Build the store of the corpus that dotted keys of `Config` name; return its clip count."""
    from ser_jax.data.store import prepare

    return prepare(override(Config(), keys).data).clips


def make_run(*, keys: dict[str, Any], precision: str = "float32") -> Job:
    """One turn is `ser_jax.train` into a new directory: corpus, training, test, reports.

    Args:
      keys: dotted keys of `Config`.
      precision: float32, tf32 or bfloat16.
    """
    from ser_jax.api import train
    from ser_jax.machine.cpu_devices import use_all_cores

    facts = watch_compiling()
    keys = keys | {"train.dtype": set_precision(precision)}
    settings = override(Config(), keys)
    use_all_cores(settings.parallel, settings.train.batch_size)  # as `ser-jax train` does

    def turn() -> None:
        with tempfile.TemporaryDirectory() as folder:
            config = override(Config(), keys | {"run_dir": f"{folder}/run"})
            metrics = train(config, observe=lambda event: None)
        facts["best_epoch"] = metrics["best_epoch"]
        facts["test_accuracy"] = metrics["test"]["accuracy"]

    return Job(turn, lambda: facts)


def make_grid(
    *, keys: dict[str, Any], systems: dict[str, dict[str, Any]], seeds: tuple[int, ...],
    batching: str = "auto", precision: str = "float32",
) -> Job:  # fmt: skip
    """One turn is `ser_jax.ablate` into a new folder: all runs, tables and figures.

    Args:
      keys: dotted keys of what the runs share.
      systems, seeds, batching: see `AblationConfig`.
      precision: float32, tf32 or bfloat16.
    """
    from ser_jax.api import ablate

    facts = watch_compiling()
    keys = keys | {"train.dtype": set_precision(precision), "batching": batching, "seeds": seeds}

    def turn() -> None:
        with (
            tempfile.TemporaryDirectory() as folder,
            open(os.devnull, "w") as nowhere,
            contextlib.redirect_stdout(nowhere),
            contextlib.redirect_stderr(nowhere),
        ):
            config = override(AblationConfig(systems=systems), keys | {"out": f"{folder}/grid"})
            cells = ablate(config)["cells"]
        facts["test_accuracies"] = [cell["accuracy"] for cell in cells]

    return Job(turn, lambda: facts)


def make_features(
    *, wave_BN: np.ndarray, length_B: np.ndarray, rate_hz: int, features: dict[str, Any]
) -> Job:
    """One turn computes the features of all clips, int16 [B, N] on the device."""
    import jax
    import jax.numpy as jnp

    from ser_jax.features.frontend import make_front_end
    from ser_jax.machine.accelerator import jit

    del length_B
    front_end = make_front_end(override(FeaturesConfig(), features), rate_hz)
    program = jit(lambda wave_BN: front_end(to_float(wave_BN)))
    on_device_BN = jnp.asarray(wave_BN)
    return Job(lambda: jax.block_until_ready(program(on_device_BN)))


def make_augment(
    *, wave_BN: np.ndarray, length_B: np.ndarray, rate_hz: int, augment: dict[str, Any], way: str
) -> Job:
    """One turn augments all clips with new draws; the clips are on the device.

    Args:
      wave_BN, length_B, rate_hz: int16 clips.
      augment: dotted keys of `AugmentConfig`.
      way: vmap (clips side by side) or map (one after another).
    """
    import jax
    import jax.numpy as jnp

    from ser_jax.augment.waveform import make_augmenter
    from ser_jax.machine.accelerator import jit

    config = override(AugmentConfig(), augment)
    augmenter = make_augmenter(config, rate_hz)

    def one(inputs: tuple[jax.Array, jax.Array, jax.Array]) -> jax.Array:
        key, wave_N, length = inputs
        wave_N = to_float(wave_N)
        return augmenter(key, wave_N, length, jnp.float32(config.p))

    @jit
    def program(draw: jax.Array, wave_BN: jax.Array, length_B: jax.Array) -> jax.Array:
        key_B = jax.random.split(jax.random.fold_in(jax.random.key(0), draw), len(wave_BN))
        inputs = (key_B, wave_BN, length_B)
        return jax.vmap(one)(inputs) if way == "vmap" else jax.lax.map(one, inputs)

    wave, length, draw = jnp.asarray(wave_BN), jnp.asarray(length_B, jnp.int32), itertools.count()
    return Job(lambda: jax.block_until_ready(program(np.int32(next(draw)), wave, length)))


def make_inference(
    *, wave_BN: np.ndarray, length_B: np.ndarray, rate_hz: int, model: dict[str, Any],
    features: dict[str, Any], variables: dict[str, Any], precision: str = "float32",
) -> Job:  # fmt: skip
    """One turn is one batch: int16 waves on the host to probabilities on the host, one program.

    Args:
      wave_BN, length_B, rate_hz: the batch.
      model, features: dotted keys of `ModelConfig` and `FeaturesConfig`.
      variables: see `make_variables`.
      precision: float32, tf32 or bfloat16.
    """
    import jax
    import jax.numpy as jnp

    from ser_jax.features.frontend import make_front_end
    from ser_jax.machine.accelerator import jit
    from ser_jax.systems.build import choose_forms
    from ser_jax.systems.networks import make_model

    del length_B
    network = make_model(
        override(ModelConfig(), model), N_CLASSES, dtype=set_precision(precision),
        forms=choose_forms(),
    )  # fmt: skip
    front_end = make_front_end(override(FeaturesConfig(), features), rate_hz)

    @jit
    def program(variables: Any, wave_BN: jax.Array) -> jax.Array:
        # Scaled to the size of normalised MFCC.
        x_BTF = front_end(to_float(wave_BN)) / 100
        logits_BC = network.apply(variables, x_BTF, jnp.ones(x_BTF.shape[:2], bool), train=False)
        return jax.nn.softmax(cast(jax.Array, logits_BC))

    on_device, facts = jax.device_put(variables), {}

    def turn() -> None:
        probability_BC = np.asarray(program(on_device, wave_BN))
        facts["confidence"] = float(probability_BC.max(axis=1).mean())

    return Job(turn, lambda: facts)


def make_runs_step(
    *, model: dict[str, Any], x_BTF: np.ndarray, label_B: np.ndarray, index_SB: np.ndarray,
    variables: dict[str, Any], runs: int, how: str, precision: str = "float32",
) -> Job:  # fmt: skip
    """One turn is one training step of `runs` runs with different seeds, as in a grid.

    Args:
      model, x_BTF, label_B, precision: as `make_step`.
      index_SB: one batch, which every run sees.
      variables: unused; every run starts from its own seed's.
      runs: how many.
      how: im2col or rows (side by side, convolutions as products of patches or of rows of
        them), grouped (side by side, the default forms, whose convolutions vmap makes into
        grouped ones) or map (one after another).
    """
    import jax
    import jax.numpy as jnp

    from ser_jax.grid.run_progress import init_progress
    from ser_jax.machine.accelerator import jit
    from ser_jax.metrics import Sums
    from ser_jax.systems.build import choose_forms
    from ser_jax.training.step import make_steps

    del variables
    forms = choose_forms()
    forms = forms._replace(conv=how) if how in ("im2col", "rows") else forms
    network, tx, _ = _init(model, *x_BTF.shape[1:], dtype=set_precision(precision), forms=forms)
    state = init_progress(
        network, tx, seed_R=np.arange(runs), n_frames=x_BTF.shape[1], n_features=x_BTF.shape[2],
        dropout_R=np.full(runs, 0.2, np.float32), augment_p_R=np.zeros(runs, np.float32),
        learning_rate_R=np.full(runs, TrainConfig().learning_rate, np.float32),
    ).state  # fmt: skip
    sums = jax.tree.map(lambda x: jnp.zeros((runs, *x.shape), x.dtype), Sums.zeros(N_CLASSES))
    train, dataset = make_steps(network, tx).train, make_dataset(x_BTF, label_B)

    def step(carry: Any, index_B: jax.Array) -> Any:
        if how == "map":
            return jax.lax.map(lambda one: train(one, dataset, index_B), carry)
        return jax.vmap(lambda one: train(one, dataset, index_B))(carry)

    program, carry = jit(step, donate_argnums=0), [(state, sums)]

    def turn() -> None:
        carry[0] = jax.block_until_ready(program(carry[0], index_SB[0]))

    return Job(turn)
