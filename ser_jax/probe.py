"""Which of several equal forms of a network is fastest on this device: a short timed race."""

import functools
import time
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from ser_jax.accelerator import has_cuda
from ser_jax.batching import Batch
from ser_jax.config import ModelConfig, TrainConfig
from ser_jax.models import RECURRENT, Forms, make_model
from ser_jax.state import init_state, make_optimizer
from ser_jax.step import train_step

_REPEATS = 5
_RACE_S = 30.0
"""What a race costs: two training steps are compiled. An estimate for a data-centre GPU."""
_GAIN_PER_TURN_S = 5e-6
"""What the better form saves at most in a step, for each turn of the LSTM: its kernels' launches.
An estimate as well."""
_MOST_UNROLLED = 16
"""Turns of an LSTM up to which they are written out on a GPU."""


def choose_plain_forms(model: ModelConfig, n_frames: int) -> Forms:
    """The forms to train a network with where nothing is raced: known by the device and the sizes.

    An LSTM of few turns is unrolled on an NVIDIA GPU, so that a step is one command buffer.
    """
    short = model.name in RECURRENT and _count_turns(model, n_frames) <= _MOST_UNROLLED
    return Forms(lstm="unrolled") if short and has_cuda() else Forms()


def _count_turns(model: ModelConfig, n_frames: int) -> int:
    """Frames that the LSTM sees; convolution blocks halve them."""
    return n_frames >> len(model.channels) if model.name == "cnn_lstm" else n_frames


def choose_forms(
    model: ModelConfig,
    dtype: str,
    *,
    batch_size: int,
    n_frames: int,
    n_features: int,
    n_steps: int,
    shared_out: bool = False,
) -> Forms:
    """The forms to train a network with.

    On CPU and TPU they are known. On NVIDIA, cuDNN's LSTM and the scan win by turns, with the sizes
    and the card. Both take a few steps where a run is so long that the better one brings back what
    it costs to compile them; a shorter run has `choose_plain_forms`.

    Args:
      model: the network.
      dtype: type of the computation.
      batch_size, n_frames, n_features: B, T and F of a batch.
      n_steps: steps that will be taken.
      shared_out: several devices share a batch out; cuDNN's LSTM would run whole on every one.
    """
    known = choose_plain_forms(model, n_frames)
    if not has_cuda() or model.name not in RECURRENT or shared_out:
        return known
    if n_steps * _count_turns(model, n_frames) * _GAIN_PER_TURN_S < _RACE_S:
        return known
    # Neither dropout nor masks move the race.
    sizes = ModelConfig(
        name=model.name, hidden=model.hidden, channels=model.channels, scales=model.scales,
        head_width=model.head_width,
    )  # fmt: skip
    return _race_lstm(sizes, dtype, batch_size, n_frames, n_features)


@functools.cache
def _race_lstm(
    config: ModelConfig, dtype: str, batch_size: int, n_frames: int, n_features: int
) -> Forms:
    contestants = {
        Forms(lstm=form): _make_step(config, Forms(lstm=form), dtype, batch_size, n_frames,
                                     n_features)
        for form in (choose_plain_forms(config, n_frames).lstm, "cudnn")
    }  # fmt: skip
    return pick_fastest(contestants)


def _make_step(
    config: ModelConfig, forms: Forms, dtype: str, batch_size: int, n_frames: int, n_features: int
) -> Callable[[], object]:
    """A training step on made-up features, to be called again and again."""
    model, tx = make_model(config, 8, dtype=dtype, forms=forms), make_optimizer(TrainConfig())
    sizes: Any = {"n_frames": n_frames, "n_features": n_features}
    state = init_state(model, tx, seed=0, dropout=0.1, **sizes)
    x_BTF = jax.random.normal(jax.random.key(0), (batch_size, n_frames, n_features))
    weight_B = jnp.ones(batch_size)
    batch = Batch(x_BTF, jnp.ones(x_BTF.shape[:2], bool), weight_B.astype(jnp.int32), weight_B)
    step = jax.jit(functools.partial(train_step, model=model, tx=tx))
    return lambda: step(state, batch)


def pick_fastest(
    contestants: Mapping[Forms, Callable[[], object]],
    clock: Callable[[], float] = time.perf_counter,
) -> Forms:
    """The contestant with the least time; they take turns, so that a slow moment hits all.

    One that the device refuses is passed over; the first one must run.
    """
    best_s: dict[Forms, float] = {}
    for number, (forms, step) in enumerate(contestants.items()):
        try:
            jax.block_until_ready(step())  # compiles
        except jax.errors.JaxRuntimeError:
            if number == 0:
                raise
            continue
        best_s[forms] = float("inf")
    for _ in range(_REPEATS):
        for forms in best_s:
            start_s = clock()
            jax.block_until_ready(contestants[forms]())
            best_s[forms] = min(best_s[forms], clock() - start_s)
    return min(best_s, key=lambda forms: best_s[forms])
