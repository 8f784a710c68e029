"""The state follows from the seed; the optimisers are the papers', with their rate in the state."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from ser_jax.config import AugmentConfig, ModelConfig, TrainConfig
from ser_jax.errors import UserError
from ser_jax.systems.networks import make_model
from ser_jax.training.checkpoint import Checkpoints
from ser_jax.training.optimizer import get_learning_rate, make_optimizer, make_schedule
from ser_jax.training.state import init_state, list_numbers
from tests.tolerance import assert_near

MODEL = make_model(ModelConfig(name="lstm", hidden=4, dense=()), 3)


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
        assert_near(updates["w"], expected, rtol=1e-4)  # type: ignore[index]


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_learning_rate_in_the_state_is_the_one_that_counts(optimizer):
    tx = make_optimizer(TrainConfig(optimizer=optimizer, learning_rate=0.1))
    params = {"w": jnp.float32([1, 2])}
    gradients = {"w": jnp.float32([0.5, -1])}
    before = tx.init(params)
    slower = optax.tree_utils.tree_set(before, learning_rate=jnp.float32(0.025))
    (fast, _), (slow, _) = (tx.update(gradients, s, params) for s in (before, slower))
    assert_near(fast["w"], 4 * slow["w"], rtol=1e-6)  # type: ignore[index]
    if optimizer == "sgd":
        assert_near(fast["w"], [-0.05, 0.1], rtol=1e-6)  # type: ignore[index]


FINE_TUNING = {
    "schedule": "linear", "warmup": 0.5, "clip_norm": 1.0, "weight_decay": 0.1,
    "backbone_learning_rate": 0.2,
}  # fmt: skip


def test_learning_rate_is_found_and_set_under_every_setting():
    tx = make_optimizer(TrainConfig(**FINE_TUNING), n_steps=4)
    state = init_state(MODEL, tx, seed=0, n_frames=4, n_features=2, dropout=0.0, learning_rate=0.25)
    assert get_learning_rate(state) == 0.25


def test_settings_left_alone_leave_the_optimisers_state_as_it_was():
    params = {"w": jnp.zeros(())}
    before = optax.inject_hyperparams(optax.adam, static_args=("b1", "b2", "eps", "eps_root"))
    expected = jax.tree.structure(before(learning_rate=1e-3, eps=1e-7).init(params))
    assert jax.tree.structure(make_optimizer(TrainConfig()).init(params)) == expected


def test_schedule_follows_the_steps_of_the_optimiser():
    train = TrainConfig(optimizer="sgd", learning_rate=1.0, schedule="linear", warmup=0.25)
    tx = make_optimizer(train, n_steps=8)
    params = {"w": jnp.zeros(())}
    state, rates = tx.init(params), []
    for _ in range(10):
        updates, state = tx.update({"w": jnp.ones(())}, state, params)
        rates.append(-float(updates["w"]))  # type: ignore[index]
    assert_near(rates, [1 / 2, 1, 1, 5 / 6, 4 / 6, 3 / 6, 2 / 6, 1 / 6, 0, 0], atol=1e-6)


@pytest.mark.parametrize("warmup", [0.0, 0.25])
def test_cosine_schedule_is_optaxs(warmup):
    train = TrainConfig(schedule="cosine", warmup=warmup)
    schedule, n_warm = make_schedule(train, 16), round(16 * warmup)
    expected = optax.cosine_decay_schedule(1.0, 16 - n_warm)
    for step in range(18):
        rate = (step + 1) / n_warm if step < n_warm else expected(step - n_warm)
        assert_near(schedule(step), rate, atol=1e-6)


def test_numbers_are_there_for_what_is_switched_on_alone():
    assert list_numbers(TrainConfig(), AugmentConfig(time_mask_frames=9)) == {}
    train = TrainConfig(mixup=0.3, average_decay=0.9)
    augment = AugmentConfig(band_masks=2, band_mask_bands=7, time_warp=0.2)
    found = {name: x.tolist() for name, x in list_numbers(train, augment).items()}
    expected = {"mixup": 0.3, "average_decay": 0.9, "band_mask_bands": [7, 7], "time_warp": 0.2}
    assert_near(found, expected, rtol=1e-6)


@pytest.mark.device
def test_averages_begin_as_the_network_in_memory_of_their_own_and_are_saved(tmp_path):
    numbers = {"average_decay": np.float32(0.5)}
    tx = make_optimizer(TrainConfig())
    state = init_state(
        MODEL, tx, seed=0, n_frames=4, n_features=2, dropout=0.0, numbers=numbers
    )  # fmt: skip
    for average, own in zip(
        jax.tree.leaves(state.average["params"]), jax.tree.leaves(state.params), strict=True
    ):
        np.testing.assert_array_equal(average, own)
        assert average is not own
    moved = state.replace(average=jax.tree.map(lambda x: x + 1, state.average))  # type: ignore
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(1, moved, {}, best_epoch=1)
    loaded = checkpoints.load_state(1, state)
    checkpoints.close()
    jax.tree.map(np.testing.assert_array_equal, loaded.variables, moved.variables)
    jax.tree.map(np.testing.assert_array_equal, loaded.params, state.params)


def test_decay_without_adam_is_refused():
    with pytest.raises(UserError, match=r"train.weight_decay=0.1: requires train.optimizer=adam"):
        TrainConfig(optimizer="sgd", weight_decay=0.1)


@pytest.mark.device
def test_checkpoint_holds_nothing_frozen_and_gives_back_what_was(tmp_path):
    state = init(0).replace(frozen={"backbone": {"w": jnp.ones(3)}})  # type: ignore[attr-defined]
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(1, state, {}, best_epoch=1)
    checkpoints.wait()
    with np.load(tmp_path / "1" / "state.npz") as file:
        names = {name.partition("/")[0] for name in file}
    assert names == {"hyper", "key", "opt_state", "params", "step"}
    loaded = checkpoints.load_state(1, state)
    checkpoints.close()
    assert loaded.frozen is state.frozen
    jax.tree.map(np.testing.assert_array_equal, *(read(s) for s in (loaded, state)))
