"""An ensemble is its members: their gradients, and the mean of their probabilities."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special

from ser_jax.config import Config, ModelConfig, TrainConfig, override
from ser_jax.errors import UserError
from ser_jax.features.batching import Batch
from ser_jax.models.ensemble import combine_logits
from ser_jax.systems.networks import make_model
from ser_jax.training.optimizer import make_optimizer
from ser_jax.training.state import init_state
from ser_jax.training.step import train_step
from tests.tolerance import assert_near

B, T, F, C, M = 5, 12, 8, 4, 3
NETWORKS = ["resnet1d", "lstm", "cnn_lstm"]


def make(name: str, size: int) -> Any:
    small = {"name": name, "channels": (3, 4), "hidden": 4, "dense": (), "layers": 1,
             "mask_padding": True, "ensemble": size}  # fmt: skip
    return make_model(override(ModelConfig(), small), C)


@functools.cache
def make_batch() -> Batch:
    rng = np.random.default_rng(0)
    frames_B = np.array([12, 9, 12, 7, 0])
    mask_BT = np.arange(T)[None, :] < frames_B[:, None]
    x_BTF = (rng.standard_normal((B, T, F)) * mask_BT[..., None]).astype(np.float32)
    label_B, weight_B = np.array([0, 3, 1, 2, 0], np.int32), (frames_B > 0).astype(np.float32)
    fields: Any = (x_BTF, mask_BT, label_B, weight_B)
    return Batch(*fields)


@functools.cache
def init(name: str) -> Any:
    batch, (params_key, dropout_key) = make_batch(), jax.random.split(jax.random.key(1))
    keys = {"params": params_key, "dropout": dropout_key}
    apply = jax.jit(functools.partial(make(name, M).init, train=False))
    return apply(keys, batch.x_BTF, batch.mask_BT)


def cut(tree: Any, member: int) -> Any:
    """The variables of one member, as a network of its own has them."""
    return jax.tree.map(lambda leaf: leaf[member], {kind: tree[kind]["member"] for kind in tree})


@pytest.mark.parametrize("name", NETWORKS)
def test_an_ensemble_gives_the_mean_of_its_members_probabilities(name):
    batch, variables = make_batch(), init(name)
    apply = jax.jit(functools.partial(make(name, 1).apply, train=False))
    alone = [np.asarray(apply(cut(variables, n), batch.x_BTF, batch.mask_BT)) for n in range(M)]
    together = jax.jit(functools.partial(make(name, M).apply, train=False))
    found_BC = np.asarray(together(variables, batch.x_BTF, batch.mask_BT))
    expected_BC = np.mean([scipy.special.softmax(logits, axis=-1) for logits in alone], axis=0)
    assert_near(np.exp(found_BC), expected_BC, rtol=1e-5, why="cudnn")


@pytest.mark.parametrize("name", NETWORKS)
def test_members_start_from_different_kernels(name):
    for leaf in jax.tree.leaves(init(name)["params"]):
        if leaf.ndim > 2:
            flat = np.asarray(leaf).reshape(M, -1)
            assert len(np.unique(flat, axis=0)) == M


@pytest.mark.parametrize("name", NETWORKS)
def test_each_member_learns_as_it_would_alone(name):
    batch, variables = make_batch(), init(name)
    tx = make_optimizer(TrainConfig(optimizer="sgd", learning_rate=0.5))

    def step(size: int, variables: Any) -> Any:
        model = make(name, size)
        state = init_state(model, tx, seed=0, dropout=0.0, n_frames=T, n_features=F)
        stats = variables.get("batch_stats", {})
        state = dataclasses.replace(state, params=variables["params"], batch_stats=stats)
        run: Any = jax.jit(functools.partial(train_step, model=model, tx=tx))
        state, sums = run(state, batch)
        return {"params": state.params, "batch_stats": state.batch_stats}, sums

    together, sums = step(M, variables)
    alone = [step(1, cut(variables, n)) for n in range(M)]
    together = {kind: tree for kind, tree in together.items() if tree}
    for n, (expected, _) in enumerate(alone):
        found = cut(together, n)
        for kind in found:
            assert_near(found[kind], expected[kind], rtol=1e-4, atol=1e-6, why="cudnn")
    mean_loss = np.mean([float(own.loss) for _, own in alone])
    assert_near(sums.loss, mean_loss, rtol=1e-5, why="cudnn")


@pytest.mark.parametrize("varied", [{}, {"band_warp": 0.2}, {"mixup": 0.4}])
def test_each_member_is_shown_its_own_warps_and_mixes(varied):
    batch, (model, variables) = make_batch(), (make("resnet1d", M), init("resnet1d"))
    tx = make_optimizer(TrainConfig(optimizer="sgd", learning_rate=0.5))
    state = init_state(model, tx, seed=0, dropout=0.0, n_frames=T, n_features=F)
    twins = jax.tree.map(lambda leaf: jnp.stack([leaf[0]] * M), variables)
    hyper = state.hyper | {name: jnp.float32(number) for name, number in varied.items()}
    state = dataclasses.replace(
        state, params=twins["params"], batch_stats=twins["batch_stats"], hyper=hyper
    )
    run: Any = jax.jit(functools.partial(train_step, model=model, tx=tx))
    kernels = [
        np.asarray(leaf) for leaf in jax.tree.leaves(run(state, batch)[0].params) if leaf.ndim > 2
    ]
    for kernel in kernels:
        apart = max(abs(kernel[0] - kernel[n]).max() for n in range(1, M))
        assert apart > 1e-4 if varied else apart < 1e-6


def test_combined_logits_are_log_probabilities():
    logits_MBC = np.random.default_rng(0).normal(size=(M, B, C)).astype(np.float32) * 30
    found_BC = np.asarray(combine_logits(jnp.asarray(logits_MBC)))
    assert_near(np.exp(found_BC).sum(axis=-1), np.ones(B), rtol=1e-5)
    assert np.isfinite(found_BC).all()


@pytest.mark.parametrize(
    "changes",
    [
        {"model.name": "wav2vec2", "features.kind": "wave", "data.rate_hz": 16000},
        {"model.name": "svm"},
        {"model.name": "hmm"},
    ],
)
def test_an_ensemble_that_would_be_ignored_is_refused(changes):
    with pytest.raises(UserError, match=r"model\.ensemble=2: .*leave the key out"):
        override(Config(), changes | {"model.ensemble": 2})
