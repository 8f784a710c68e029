"""The state follows from the seed; the optimisers are the papers', with their rate in the state."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from ser_jax.config import ModelConfig, TrainConfig
from ser_jax.models import make_model
from ser_jax.state import init_state, make_optimizer

MODEL = make_model(ModelConfig(name="lstm", hidden=4, dense=()), 3)


pytestmark = pytest.mark.usefixtures("compile_quickly")


def init(seed, dropout=0.2, model=MODEL, train=TrainConfig()):  # noqa: B008
    tx = make_optimizer(train)
    return init_state(model, tx, seed=seed, n_frames=4, n_features=2, dropout=dropout)


def read(state):
    """Its weights and its key, as numbers."""
    return jax.tree.map(np.asarray, state.params), jax.random.key_data(state.key)


def test_same_seed_gives_the_same_state_whatever_the_dropout():
    (params, key), (same, same_key) = read(init(3)), read(init(3, dropout=0.5))
    jax.tree.map(np.testing.assert_array_equal, params, same)
    np.testing.assert_array_equal(key, same_key)


def test_seeds_differ_in_weights_and_in_key():
    (params, key), (other, other_key) = read(init(3)), read(init(4))
    assert np.any(params["lstm"]["input"]["kernel"] != other["lstm"]["input"]["kernel"])
    assert np.any(params["head"]["logits"]["kernel"] != other["head"]["logits"]["kernel"])
    assert np.any(key != other_key)


def test_state_begins_at_step_zero_with_its_swept_numbers():
    state = init(0, dropout=0.3, train=TrainConfig(learning_rate=0.02))
    assert state.step == 0
    assert state.step.dtype == jnp.int32
    assert state.hyper["dropout"] == np.float32(0.3)
    assert state.opt_state.hyperparams["learning_rate"] == np.float32(0.02)
    assert state.batch_stats == {}
    assert state.variables == {"params": state.params, "batch_stats": {}}


def test_batch_statistics_are_part_of_the_state():
    config = ModelConfig(name="cnn", channels=(2,), dense=())
    state = init(0, model=make_model(config, 3))
    shapes = jax.tree.map(jnp.shape, state.batch_stats)
    assert shapes == {"stack": {"block_0": {"norm": {"mean": (2,), "var": (2,)}}}}


def compute_adam(gradients, rate, epsilon):
    """Adam's updates, from the paper (Kingma and Ba 2015, algorithm 1)."""
    m = v = 0.0
    for t, g in enumerate(gradients, start=1):
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
        yield -rate * (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + epsilon)


# At a gradient as small as epsilon, epsilon shows.
@pytest.mark.parametrize("scale", [1.0, 1e-7])
def test_adam_is_the_papers_with_kerass_epsilon(scale):
    tx = make_optimizer(TrainConfig())
    params = {"w": jnp.zeros(())}
    state = tx.init(params)
    gradients = [scale, -0.5 * scale, 3 * scale]
    for g, expected in zip(gradients, compute_adam(gradients, 1e-3, 1e-7), strict=True):
        updates, state = tx.update({"w": jnp.float32(g)}, state, params)
        np.testing.assert_allclose(updates["w"], expected, rtol=1e-4)  # type: ignore[index]


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_learning_rate_in_the_state_is_the_one_that_counts(optimizer):
    tx = make_optimizer(TrainConfig(optimizer=optimizer, learning_rate=0.1))
    params = {"w": jnp.float32([1, 2])}
    gradients = {"w": jnp.float32([0.5, -1])}
    before = tx.init(params)
    slower = optax.tree_utils.tree_set(before, learning_rate=jnp.float32(0.025))
    (fast, _), (slow, _) = (tx.update(gradients, s, params) for s in (before, slower))
    np.testing.assert_allclose(fast["w"], 4 * slow["w"], rtol=1e-6)  # type: ignore[index]
    if optimizer == "sgd":
        np.testing.assert_allclose(fast["w"], [-0.05, 0.1], rtol=1e-6)  # type: ignore[index]
