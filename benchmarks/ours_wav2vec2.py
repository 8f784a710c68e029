"""ser_jax's side of the wav2vec 2.0 race."""

from typing import Any

import numpy as np

from benchmarks.ours import set_precision
from benchmarks.worker import Job
from ser_jax.config import BackboneConfig, ModelConfig, TrainConfig

N_CLASSES = 8


def make_job(
    *,
    folder: str,
    x_BN: np.ndarray,
    label_B: np.ndarray,
    train: bool,
    steps: int,
    precision: str = "float32",
    attention: str = "auto",
    cached: bool = False,
    remat: bool = False,
) -> Job:
    """Make forward passes, or training steps with frozen convolutions, of one batch.

    Args:
      folder: weights, as transformers saves them.
      x_BN: samples.
      label_B: classes.
      train: training steps, with the dropouts of the configuration and Adam.
      steps: of a turn.
      precision: float32, tf32 or bfloat16.
      attention, remat: see `config.BackboneConfig`.
      cached: compute frozen parts once, beforehand, as `train` does.
    """
    import functools

    import jax
    import jax.numpy as jnp

    from ser_jax.features.batching import Batch
    from ser_jax.machine.accelerator import jit
    from ser_jax.systems.networks import make_model
    from ser_jax.training.optimizer import make_optimizer
    from ser_jax.training.state import init_state
    from ser_jax.training.step import predict_step, train_step
    from ser_jax.wav2vec2.architecture import BackboneSpec
    from ser_jax.wav2vec2.finetune import init_params
    from ser_jax.wav2vec2.frozen_parts import split_params
    from ser_jax.wav2vec2.published import load_architecture, load_params

    dtype = set_precision(precision)
    settings = BackboneConfig(attention=attention, remat=remat)  # pyright: ignore
    spec = BackboneSpec(load_architecture(folder), settings)
    config = ModelConfig(name="wav2vec2")
    network: Any = make_model(config, N_CLASSES, dtype=dtype, spec=spec)
    params = init_params(config, spec, N_CLASSES, 0, load_params(folder))
    from ser_jax.wav2vec2.hub_folder import find_folder
    from ser_jax.wav2vec2.weight_files import read_weights

    tree = read_weights(find_folder(folder))
    params |= jax.tree.map(jnp.asarray, {k: tree[k] for k in ("projector", "classifier")})
    x_BTF, mask_BT = jnp.asarray(x_BN)[:, :, None], jnp.ones(x_BN.shape, bool)
    if cached:
        encode = jit(functools.partial(network.apply, method="encode"))
        x_BTF, mask_BT = encode({"params": params}, x_BTF, mask_BT)
        network = make_model(config, N_CLASSES, dtype=dtype, spec=spec._replace(entry="features"))
    batch = Batch(x_BTF, mask_BT, jnp.asarray(label_B), jnp.ones(len(x_BN)))
    facts: dict[str, Any] = {}
    if not train:
        forward = jit(functools.partial(predict_step, model=network))

        def turn_forward() -> None:
            for _ in range(steps):
                logits = forward({"params": params}, batch)
            facts["output"] = float(jnp.abs(logits).sum())

        return Job(turn_forward, lambda: facts)
    tx = make_optimizer(TrainConfig(learning_rate=1e-5))
    trained, frozen = split_params(params, spec)
    states = [init_state(
        network, tx, seed=0, n_frames=1, n_features=1, dropout=0.0,
        variables={"params": trained}, frozen=frozen,
    )]  # fmt: skip
    step = jit(functools.partial(train_step, model=network, tx=tx), donate_argnums=0)

    def turn() -> None:
        for _ in range(steps):
            state, sums = step(states.pop(), batch)
            states.append(state)
        jax.block_until_ready(sums)

    return Job(turn, lambda: facts)
