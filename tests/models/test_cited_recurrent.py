"""TCN, BLSTM and MSDC-LSTM against PyTorch and plain loops; padding and filled rows do nothing."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import traverse_util

from ser_jax.config import ModelConfig, override
from ser_jax.errors import UserError
from ser_jax.models.blstm import BidirectionalLSTM, DirectionalAttention
from ser_jax.models.layers import KERNEL_INITS
from ser_jax.models.msdc_lstm import cut_segments
from ser_jax.models.recurrent import LSTM
from ser_jax.systems.networks import make_model
from tests.tolerance import assert_near

NAMES = ("tcn", "blstm", "msdc_lstm")
N_CLASSES, B, T, F, H = 3, 4, 14, 8, 6
LENGTHS = (14, 9, 5, 1)
SMALL = {"channels": (5, 6), "hidden": H, "dense": (), "head_width": 3, "scales": (4, 7)}
KEY = jax.random.key(0)
INIT = KERNEL_INITS["glorot_uniform"]


def draw(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def make_mask(lengths, n_frames=T):
    return np.arange(n_frames)[None, :] < np.asarray(lengths)[:, None]


def make_small(name, *, axis_name=None, **changes):
    config = override(ModelConfig(), SMALL | {"name": name, "mask_padding": True} | changes)
    return make_model(config, N_CLASSES, axis_name=axis_name)


def draw_variables(model, shape=(T, F)):
    """Random weights and statistics, quicker than a network's own initial values."""
    x = jnp.zeros((1, *shape))
    mask = jnp.ones(x.shape[:2], bool)
    kwargs: Any = (
        {} if isinstance(model, DirectionalAttention | BidirectionalLSTM) else {"train": False}
    )
    shapes = jax.eval_shape(lambda: model.init(KEY, x, mask, **kwargs))
    leaves: Any = traverse_util.flatten_dict(shapes)
    drawn = {
        path: 0.5 * draw(*leaf.shape, seed=n) if path[-1] != "var" else np.ones(leaf.shape) + n % 3
        for n, (path, leaf) in enumerate(leaves.items())
    }
    return traverse_util.unflatten_dict(drawn)


@functools.cache
def make_logits_fn(name, mask_padding=True):
    """(features, mask) -> logits of evaluation; of training, with the statistics after it."""
    model = make_small(name, mask_padding=mask_padding)
    variables = draw_variables(model)

    @jax.jit
    def compute(x_BTF, mask_BT, dropout, key):
        apply = functools.partial(
            model.apply, variables, x_BTF, mask_BT, dropout=dropout, rngs={"dropout": key}
        )
        return apply(train=False), apply(train=True, mutable=["batch_stats"])

    return compute


def assert_close(found, expected, atol=1e-5):
    assert_near(found, expected, rtol=1e-4, atol=atol, why="cudnn")


# Padding and rows that fill up


@pytest.mark.parametrize("name", NAMES)
def test_padding_changes_neither_logits_nor_statistics_where_it_is_masked(name):
    compute, x_BTF = make_logits_fn(name), draw(B, T, F)
    expected = compute(x_BTF, make_mask(LENGTHS), 0.0, KEY)
    assert np.ptp(expected[0], axis=0).max() > 0.05
    x_BTF = np.where(make_mask(LENGTHS)[..., None], x_BTF, -4.0)
    padded_BTF = np.pad(x_BTF, ((0, 0), (0, 9), (0, 0)), constant_values=3.0)
    assert_close(compute(padded_BTF, make_mask(LENGTHS, T + 9), 0.0, KEY), expected)


@pytest.mark.parametrize("name", NAMES)
def test_padding_counts_as_sound_where_it_is_not_masked(name):
    compute, x_BTF = make_logits_fn(name, mask_padding=False), draw(B, T, F)
    masked_BC, _ = compute(x_BTF, make_mask(LENGTHS), 0.0, KEY)
    whole_BC, _ = compute(x_BTF, np.ones((B, T), bool), 0.0, KEY)
    assert_close(masked_BC, whole_BC)
    found_BC, _ = make_logits_fn(name)(x_BTF, make_mask(LENGTHS), 0.0, KEY)
    assert np.all(np.abs(found_BC - whole_BC)[1:].max(axis=1) > 1e-3)


@pytest.mark.parametrize(
    ("name", "mask_padding"), [("tcn", False), ("blstm", True), ("msdc_lstm", True)]
)
def test_rows_that_fill_up_change_nothing_in_training_and_give_no_nan(name, mask_padding):
    model = make_small(name, mask_padding=mask_padding, scales=(4,))
    variables: Any = draw_variables(model)

    @jax.jit
    def compute(x_BTF, mask_BT):
        """Gradients of a loss of real rows, and statistics."""

        def compute_loss(params):
            logits_BC, updated = model.apply(
                variables | {"params": params}, x_BTF, mask_BT, train=True,
                rngs={"dropout": KEY}, mutable=["batch_stats"],
            )  # fmt: skip
            losses_B = jax.nn.logsumexp(logits_BC, axis=1) - logits_BC[:, 0]
            return (losses_B * mask_BT.any(axis=1)).sum(), (logits_BC, updated)

        return jax.value_and_grad(compute_loss, has_aux=True)(variables["params"])

    x_BTF, mask_BT = draw(B, T, F), make_mask((14, 9, 0, 0))
    (loss, (logits_BC, updated)), gradients = compute(x_BTF, mask_BT)
    assert all(map(np.all, map(np.isfinite, jax.tree.leaves((loss, logits_BC, gradients)))))
    (alone, (alone_BC, alone_updated)), alone_gradients = compute(x_BTF[:2], mask_BT[:2])
    found = loss, logits_BC[:2], updated, gradients
    assert_close(found, (alone, alone_BC, alone_updated, alone_gradients), atol=2e-5)


def test_a_batch_in_shards_has_the_statistics_of_the_whole():
    def compute(model, x_BTF, mask_BT):
        return model.apply(
            variables, x_BTF, mask_BT, train=True, rngs={"dropout": KEY}, mutable=["batch_stats"]
        )

    whole, sharded = make_small("tcn"), make_small("tcn", axis_name="data")
    variables, x_BTF, mask_BT = draw_variables(whole), draw(B, T, F), make_mask((14, 9, 5, 0))
    logits_BC, updated = jax.jit(functools.partial(compute, whole))(x_BTF, mask_BT)
    mapped = jax.jit(jax.vmap(functools.partial(compute, sharded), axis_name="data"))
    found, found_updated = mapped(x_BTF.reshape(2, 2, T, F), mask_BT.reshape(2, 2, T))
    assert_close(found.reshape(B, -1)[:3], logits_BC[:3])
    for shard in (0, 1):
        assert_close(jax.tree.map(lambda leaf, n=shard: leaf[n], found_updated), updated)


@pytest.mark.parametrize("name", NAMES)
def test_dropout_acts_in_training_alone(name):
    compute, inputs = make_logits_fn(name), (draw(B, T, F), make_mask(LENGTHS))
    logits_BC, (trained_BC, _) = compute(*inputs, 0.5, KEY)
    other_BC, (other_trained_BC, _) = compute(*inputs, 0.5, jax.random.key(1))
    assert np.any(np.asarray(trained_BC != other_trained_BC))
    np.testing.assert_array_equal(logits_BC, other_BC)


# TCN


def read_frames(model, x_BTF) -> Any:
    variables: Any = draw_variables(model)
    mask_BT = np.ones(x_BTF.shape[:2], bool)
    return model.apply(variables, x_BTF, mask_BT, train=False, method="read_frames")


def test_tcn_depends_only_on_past_frames_within_its_receptive_field():
    model, x_BTF = make_small("tcn", kernel=2), draw(1, T, F)
    changed_BTF = x_BTF.copy()
    changed_BTF[:, 6] += 1.0
    moved_T = np.abs(read_frames(model, changed_BTF) - read_frames(model, x_BTF)).max(axis=(0, 2))
    reach = 2 * (1 + 2)  # two convolutions of width 2 with dilation 1, and two with 2
    np.testing.assert_array_equal(moved_T[:6], 0)
    np.testing.assert_array_equal(moved_T[6 + reach + 1 :], 0)
    assert np.all(moved_T[[6, 7]] > 0)


@pytest.mark.device
def test_tcn_equals_pytorchs_convolutions_with_the_same_weights():
    model, x_BTF = make_small("tcn", kernel=3), draw(2, T, F)
    variables: Any = draw_variables(model)
    to_torch = lambda leaf: torch.from_numpy(np.float32(leaf))  # noqa: E731
    params, stats = (jax.tree.map(to_torch, variables[tree]) for tree in ("params", "batch_stats"))
    x = torch.from_numpy(x_BTF).mT
    for index in range(2):
        block, kept, y = params[f"block_{index}"], stats[f"block_{index}"], x
        for n in (0, 1):
            y = torch.nn.functional.pad(y, (2 * 2**index, 0))
            kernel = block[f"conv_{n}"]["kernel"].permute(2, 1, 0)
            y = torch.nn.functional.conv1d(y, kernel, dilation=2**index)
            norm, moments = block[f"norm_{n}"], kept[f"norm_{n}"]
            y = torch.nn.functional.batch_norm(
                y, moments["mean"], moments["var"], norm["scale"], norm["bias"], eps=1e-3
            ).relu()
        around = block["around"]
        kernel = around["kernel"].permute(2, 1, 0)
        x = (torch.nn.functional.conv1d(x, kernel, around["bias"]) + y).relu()
    assert_near(read_frames(model, x_BTF), x.mT, atol=1e-4, why="cudnn")


def test_tcn_has_the_parameters_counted_by_hand():
    params = draw_variables(make_small("tcn", kernel=3))["params"]
    blocks = [3 * n_in * n + 3 * n * n + 4 * n + n_in * n + n for n_in, n in ((F, 5), (5, 6))]
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == sum(blocks) + 6 * 3 + 3


# BLSTM


@pytest.mark.device
@pytest.mark.parametrize("form", ["plain", "fast"])
def test_states_of_both_directions_equal_pytorchs_with_the_same_weights(form):
    lstms = [LSTM(H, INIT, INIT, form=form) for _ in range(2)]
    both = BidirectionalLSTM(*lstms)
    variables: Any = draw_variables(both)
    reference = torch.nn.LSTM(F, H, batch_first=True, bidirectional=True)
    for name, suffix in (("forward", ""), ("backward", "_reverse")):
        params = variables["params"][name]
        weights = {
            "weight_ih_l0": params["input"]["kernel"].T,
            "weight_hh_l0": params["cell"]["recurrent"]["kernel"].T,
            "bias_ih_l0": params["input"]["bias"],
            "bias_hh_l0": np.zeros(4 * H, np.float32),
        }
        for key, weight in weights.items():
            getattr(reference, key + suffix).data = torch.from_numpy(np.ascontiguousarray(weight))
    x_BTF, mask_BT = draw(B, T, F), make_mask(LENGTHS)
    packed = torch.nn.utils.rnn.pack_padded_sequence(
        torch.from_numpy(x_BTF), list(LENGTHS), batch_first=True
    )
    padded, _ = torch.nn.utils.rnn.pad_packed_sequence(reference(packed)[0], batch_first=True)
    found: Any = jax.jit(both.apply)(variables, x_BTF, mask_BT)
    found_BTH = np.concatenate(found, axis=-1)
    expected_BTH = padded.detach().numpy()
    assert_near(found_BTH[mask_BT], expected_BTH[mask_BT], atol=1e-5, why="cudnn")


@pytest.mark.parametrize("backward", [False, True])
def test_attention_equals_pytorchs_with_the_masks_of_its_direction(backward):
    attention = DirectionalAttention(3, backward, INIT)
    variables: Any = draw_variables(attention, (T, H))
    h_BTH, mask_BT = draw(B, T, H), make_mask(LENGTHS)
    query, key, value = (
        torch.from_numpy(h_BTH @ p["kernel"] + p["bias"]).unflatten(-1, (2, 3)).transpose(1, 2)
        for p in (variables["params"][name] for name in ("query", "key", "value"))
    )
    # Row t of the matrix says what frame t may hear: up to itself, or from itself on.
    read_TT = np.triu(np.ones((T, T), bool)) if backward else np.tril(np.ones((T, T), bool))
    mask = torch.from_numpy(mask_BT[:, None, None, :] & read_TT)
    expected = torch.nn.functional.scaled_dot_product_attention(query, key, value, mask)
    expected_BTH = expected.transpose(1, 2).flatten(2).numpy()
    found_BTH = np.asarray(jax.jit(attention.apply)(variables, h_BTH, mask_BT))
    assert_near(found_BTH[mask_BT], expected_BTH[mask_BT], atol=1e-5, why="cudnn")
    assert np.all(np.isfinite(found_BTH))


# MSDC-LSTM


@pytest.mark.parametrize("length", [4, 5, 14])
def test_segments_begin_at_every_half_length_and_end_in_zeros(length):
    x_BTF, mask_BT = draw(B, T, F), make_mask(LENGTHS)
    found_BSLF, found_BSL = cut_segments(jnp.asarray(x_BTF), jnp.asarray(mask_BT), length)
    starts = range(0, T, length // 2)
    assert found_BSLF.shape == (B, len(starts), length, F)
    for n, start in enumerate(starts):
        kept = min(length, T - start)
        np.testing.assert_array_equal(found_BSLF[:, n, :kept], x_BTF[:, start : start + kept])
        np.testing.assert_array_equal(found_BSL[:, n, :kept], mask_BT[:, start : start + kept])
        assert not np.any(found_BSLF[:, n, kept:])
        assert not np.any(found_BSL[:, n, kept:])


def test_msdc_lstm_equals_a_plain_loop_over_scales_and_segments():
    model: Any = make_small("msdc_lstm")
    variables: Any = draw_variables(model)
    x_TF, n_frames = draw(T, F), 9
    apply = jax.jit(functools.partial(model.apply, train=False))
    found_1C = apply(variables, x_TF[None], make_mask((n_frames,)))
    scores = []
    for number, part in enumerate(model.parts):
        own = {tree: variables[tree][f"parts_{number}"] for tree in ("params", "batch_stats")}
        stack = {tree: own[tree]["stack"] for tree in own}
        convolve = jax.jit(functools.partial(part.stack.apply, train=False, dropout=0.0))
        L, vectors = part.length, []
        for start in range(0, n_frames, L // 2):  # later segments have no real frame
            x_1LF = np.zeros((1, L, F), np.float32)
            real = min(L, n_frames - start)
            x_1LF[0, :real] = x_TF[start : start + real]
            h_1TH, mask_1T = convolve(stack, x_1LF, make_mask((real,), L))
            vectors.append(h_1TH[0][np.asarray(mask_1T)[0]].mean(axis=0))
        h_1SH = jnp.stack(vectors)[None]
        mask_1S = jnp.ones(h_1SH.shape[:2], bool)
        state_1H = jax.jit(part.lstm.apply)({"params": own["params"]["lstm"]}, h_1SH, mask_1S)
        scores.append(part.head.apply({"params": own["params"]["head"]}, state_1H))
    assert_near(found_1C, sum(scores) / 2, atol=1e-5, why="cudnn")
    assert np.abs(scores[0] - scores[1]).max() > 1e-2


def test_short_segments_have_as_many_blocks_as_they_can_be_halved():
    params = draw_variables(make_small("msdc_lstm", channels=(2, 2, 2), scales=(4, 9)))["params"]
    blocks = [sorted(params[f"parts_{n}"]["stack"]) for n in (0, 1)]
    assert blocks == [["block_0", "block_1"], ["block_0", "block_1", "block_2"]]


# Bad settings


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("blstm", {"head_width": 4}, r"^model\.head_width=4: must divide model\.hidden=6; .*$"),
        ("msdc_lstm", {"scales": (4, 16)}, r"^model\.scales=\[4, 16\]: .*16 .*not of 14; take "),
        ("msdc_lstm", {"scales": (1, 4)}, r"^model\.scales=\[1, 4\]: .*; take 2 or more$"),
    ],
)  # fmt: skip
def test_settings_that_do_not_fit_are_named_in_one_line(name, changes, message):
    with pytest.raises(UserError, match=message):
        draw_variables(make_small(name, **changes))


def test_more_poolings_than_bands_are_named_in_one_line():
    model = make_small("msdc_lstm", channels=(2, 2, 2), scales=(8,))
    with pytest.raises(UserError, match=r"^model\.channels: 3 poolings .*8 features, not 4; take"):
        draw_variables(model, (T, 4))
