"""ViT and CvT: their parts against PyTorch's, and padding that changes nothing."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from ser_jax.config import ModelConfig, override
from ser_jax.errors import UserError
from ser_jax.models.attention import Block, attend, gelu
from ser_jax.models.conv import MaskedBatchNorm
from ser_jax.models.cvt import ConvProjection, convolve_depthwise
from ser_jax.models.layers import KERNEL_INITS
from ser_jax.models.vit import Positions, SelfAttention, cut_mask, cut_patches
from ser_jax.systems.networks import make_model
from ser_jax.training.step import compute_losses
from tests.tolerance import assert_near

NAMES = ("vit", "cvt")
INIT, KEY = KERNEL_INITS["glorot_uniform"], jax.random.key(0)
N_CLASSES, T, F = 4, 18, 10
LENGTHS = (18, 13, 5, 1)  # each stage and patch cuts at least one of them in two
ONE_STAGE = (4,)  # enough of CvT where masks are not the question; half to compile


def draw(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def make_mask(lengths, n_frames: int) -> Any:
    return np.arange(n_frames)[None, :] < np.asarray(lengths)[:, None]


def randomise(variables: Any, seed: int = 1) -> Any:
    """Other values for every parameter and statistic, scales and variances near one."""
    rng = np.random.default_rng(seed)

    def draw_leaf(path: Any, leaf: Any) -> Any:
        centre = path[-1].key in ("scale", "var")
        return np.float32(rng.uniform(-0.4, 0.4, leaf.shape) + centre)

    return jax.tree_util.tree_map_with_path(draw_leaf, variables)


def to_torch(x: Any) -> torch.Tensor:
    return torch.from_numpy(np.array(x))


@functools.cache
def make_network(name: str, masked: bool = True, **changes: Any) -> Any:
    small: dict[str, Any] = {
        "name": name, "channels": (4, 6), "hidden": 8, "layers": 1, "head_width": 2,
        "patch": (4, 3), "dense": (), "mask_padding": masked,
    }  # fmt: skip
    axis_name = changes.pop("axis_name", None)
    model = make_model(override(ModelConfig(), small | changes), N_CLASSES, axis_name=axis_name)
    init = functools.partial(model.init, train=False)
    return model, randomise(jax.eval_shape(init, KEY, jnp.zeros((1, T, F)), make_mask([T], T)))


# Parts


def test_patches_and_their_mask_are_cut_as_documented():
    x_BTF, mask_BT, (frames, bands) = draw(2, 7, 5), make_mask((6, 0), 7), (3, 2)
    found, found_mask = cut_patches(jnp.asarray(x_BTF), (3, 2)), cut_mask(mask_BT, frames)
    assert found.shape == (2, 3, 3, 6)
    whole = np.zeros((2, 9, 6), np.float32)
    whole[:, :7, :5] = x_BTF
    for t in range(3):
        for f in range(3):
            piece = whole[:, t * frames : (t + 1) * frames, f * bands : (f + 1) * bands]
            np.testing.assert_array_equal(found[:, t, f], piece.reshape(2, -1))
    np.testing.assert_array_equal(found_mask, [[True, True, False], [False] * 3])
    np.testing.assert_array_equal(cut_mask(make_mask((7,), 7), frames), [[True] * 3])


def test_attention_equals_pytorchs_with_the_same_mask():
    q, k, v = draw(3, 2, 5, 4), draw(3, 2, 6, 4, seed=1), draw(3, 2, 6, 4, seed=2)
    mask = make_mask((6, 3, 1), 6)
    found = jax.jit(attend)(q, k, v, mask)
    expected = torch.nn.functional.scaled_dot_product_attention(
        to_torch(q), to_torch(k), to_torch(v), attn_mask=to_torch(mask)[:, None, None]
    )
    assert_near(found, expected, atol=1e-6)


def test_attention_without_a_real_key_is_zero_and_so_are_its_gradients():
    q, k, v = (jnp.asarray(draw(2, 2, 3, 4, seed=seed)) for seed in range(3))
    mask = make_mask((2, 0), 3)
    np.testing.assert_array_equal(jax.jit(attend)(q, k, v, mask)[1], 0)
    grad_of_sum = jax.jit(jax.grad(lambda *parts: attend(*parts).sum(), (0, 1, 2)))
    for grad in grad_of_sum(q, k, v, mask):
        assert np.isfinite(grad).all()
        np.testing.assert_array_equal(grad[1], 0)


def test_gelu_equals_pytorchs():
    x = np.linspace(-6, 6, 101, dtype=np.float32)
    assert_near(gelu(jnp.asarray(x)), torch.nn.functional.gelu(to_torch(x)), atol=1e-6)


@pytest.mark.device
def test_a_block_of_vit_equals_pytorchs_encoder_layer():
    x, mask_BT, H = draw(2, 4, 3, 8), make_mask((4, 2), 4), 8
    attention = functools.partial(SelfAttention, 4, INIT)
    block = Block(attention, INIT)
    run: Any = functools.partial(block.apply, train=False, dropout=0.0)
    shapes = jax.eval_shape(lambda: block.init(KEY, x, mask_BT, train=False, dropout=0.0))
    variables = randomise(shapes)
    params = jax.tree.map(to_torch, variables["params"])
    layer = torch.nn.TransformerEncoderLayer(
        H, 2, 4 * H, dropout=0.0, activation="gelu", layer_norm_eps=1e-6, batch_first=True,
        norm_first=True,
    )  # fmt: skip
    inner = params["attention"]
    parts = [inner[name] for name in ("query", "key", "value")]
    layer.load_state_dict({
        "self_attn.in_proj_weight": torch.cat([part["kernel"].T for part in parts]),
        "self_attn.in_proj_bias": torch.cat([part["bias"] for part in parts]),
        "self_attn.out_proj.weight": inner["out"]["kernel"].T,
        "self_attn.out_proj.bias": inner["out"]["bias"],
        "linear1.weight": params["widen"]["kernel"].T, "linear1.bias": params["widen"]["bias"],
        "linear2.weight": params["narrow"]["kernel"].T, "linear2.bias": params["narrow"]["bias"],
        "norm1.weight": params["norm_attention"]["scale"],
        "norm1.bias": params["norm_attention"]["bias"],
        "norm2.weight": params["norm_dense"]["scale"], "norm2.bias": params["norm_dense"]["bias"],
    })  # fmt: skip
    is_padding = ~to_torch(np.repeat(mask_BT, 3, axis=1))
    with torch.no_grad():
        expected = layer(to_torch(x).reshape(2, 12, H), src_key_padding_mask=is_padding)
    found = np.asarray(jax.jit(run)(variables, x, mask_BT)).reshape(2, 12, H)
    assert_near(found, expected, atol=1e-5)


@pytest.mark.device
@pytest.mark.parametrize("stride", [1, 2])
def test_a_projection_of_cvt_equals_pytorchs_depthwise_convolution_norm_and_dense_layer(stride):
    x, mask_BT = draw(2, 7, 5, 6), np.ones((2, 7), bool)
    projection = ConvProjection(stride, INIT, functools.partial(MaskedBatchNorm, 0.9))
    init = functools.partial(projection.init, train=False)
    variables = randomise(jax.eval_shape(init, KEY, x, mask_BT))
    apply = functools.partial(projection.apply, train=False)
    found: Any = jax.jit(apply)(variables, x, mask_BT)
    params = jax.tree.map(to_torch, variables["params"])
    stats = jax.tree.map(to_torch, variables["batch_stats"])["norm"]
    y = torch.nn.functional.conv2d(
        to_torch(x).permute(0, 3, 1, 2), params["kernel"].permute(3, 2, 0, 1), stride=stride,
        padding=1, groups=6,
    )  # fmt: skip
    norm = params["norm"]
    y = torch.nn.functional.batch_norm(
        y, stats["mean"], stats["var"], norm["scale"], norm["bias"], eps=1e-3
    ).permute(0, 2, 3, 1)
    expected = y @ params["dense"]["kernel"] + params["dense"]["bias"]
    assert_near(found, expected, atol=1e-5)


@pytest.mark.parametrize("shape", [(2, 1, 1, 3), (1, 6, 5, 2)])
def test_a_depthwise_convolution_equals_xlas_grouped_one(shape):
    x, kernel = jnp.asarray(draw(*shape)), jnp.asarray(draw(3, 3, 1, shape[-1], seed=1))
    expected = jax.lax.conv_general_dilated(
        x, kernel, (2, 2), ((1, 1), (1, 1)), dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=shape[-1],
    )  # fmt: skip
    assert_near(convolve_depthwise(x, kernel, 2), expected, atol=1e-5, why="cudnn")


def test_later_times_than_the_network_was_made_for_share_its_last_position():
    positions, x = Positions(), jnp.zeros((1, 5, 2, 3))
    variables = positions.init(KEY, x[:, :3])
    short, long = positions.apply(variables, x[:, :3]), positions.apply(variables, x)
    np.testing.assert_array_equal(np.asarray(long)[:, :3], short)
    np.testing.assert_array_equal(np.asarray(long)[:, 3:], np.asarray(short)[:, [2, 2]])


# Networks


@functools.cache
def make_compute(name: str) -> Any:
    """Logits of evaluation, and those of training with the statistics after it."""
    model, variables = make_network(name)

    @jax.jit
    def compute(x_BTF, mask_BT):
        logits_BC = model.apply(variables, x_BTF, mask_BT, train=False)
        return logits_BC, model.apply(
            variables, x_BTF, mask_BT, train=True, rngs={"dropout": KEY}, mutable=["batch_stats"]
        )

    return compute


def assert_close(found: Any, expected: Any, atol: float = 1e-5) -> None:
    assert_near(found, expected, rtol=1e-5, atol=atol, why="cudnn")


@pytest.mark.parametrize("name", NAMES)
def test_padding_does_not_change_logits_when_masked(name):
    compute, x_BTF, more = make_compute(name), draw(4, T, F), 7
    expected = compute(x_BTF, make_mask(LENGTHS, T))
    longer_BTF = draw(4, T + more, F, seed=1)  # what lies under the mask is anything
    mask_BT = make_mask(LENGTHS, T + more)
    longer_BTF[:, :T] = np.where(mask_BT[:, :T, None], x_BTF, longer_BTF[:, :T])
    assert_close(compute(longer_BTF, mask_BT), expected)
    assert np.ptp(np.asarray(expected[0]), axis=0).max() > 1e-2  # clips do differ


@pytest.mark.parametrize("name", NAMES)
def test_padding_counts_as_frames_where_it_is_not_masked(name):
    model, variables = make_network(name, masked=False)
    apply, x_BTF = jax.jit(functools.partial(model.apply, train=False)), draw(4, T, F)
    logits_BC = apply(variables, x_BTF, make_mask(LENGTHS, T))
    assert_close(logits_BC, apply(variables, x_BTF, make_mask((T,) * 4, T)))


@pytest.mark.parametrize(("name", "masked"), [("vit", False), ("cvt", True)])
def test_rows_that_fill_up_change_nothing_and_give_finite_gradients(name, masked):
    model, variables = make_network(name, masked, channels=ONE_STAGE)
    statistics = {"batch_stats": variables["batch_stats"]} if "batch_stats" in variables else {}

    @jax.jit
    def step(x_BTF, mask_BT, dropout):
        weight_B = mask_BT.any(axis=1).astype(jnp.float32)

        def compute_loss(params):
            logits_BC, updated = model.apply(
                {"params": params, **statistics}, x_BTF, mask_BT, train=True, dropout=dropout,
                rngs={"dropout": KEY}, mutable=["batch_stats"],
            )  # fmt: skip
            label_B = jnp.zeros(len(x_BTF), jnp.int32)
            loss = (compute_losses(logits_BC, label_B) * weight_B).sum()
            return loss / jnp.maximum(weight_B.sum(), 1), updated

        return jax.value_and_grad(compute_loss, has_aux=True)(variables["params"])

    x_BTF = draw(4, T, F)
    expected = step(x_BTF[:2], make_mask((T, 5), T), 0.0)
    filled_BTF = np.stack([7 + x_BTF[2], x_BTF[0], x_BTF[1], np.zeros((T, F), np.float32)])
    found = step(filled_BTF, make_mask((0, T, 5, 0), T), 0.0)
    assert_close(found, expected)
    for lengths, dropout in [((0, T, 5, 0), 0.5), ((0, 0, 0, 0), 0.0)]:
        leaves = jax.tree.leaves(step(filled_BTF, make_mask(lengths, T), dropout))
        assert all(np.isfinite(leaf).all() for leaf in leaves)


def test_cvt_takes_the_same_statistics_on_shards():
    whole, variables = make_network("cvt", channels=ONE_STAGE)
    sharded, _ = make_network("cvt", channels=ONE_STAGE, axis_name="data")
    x_BTF, mask_BT = draw(6, T, F), make_mask((T, 13, 5, 0, 0, 0), T)

    def apply(model, x_BTF, mask_BT):
        return model.apply(
            variables, x_BTF, mask_BT, train=True, rngs={"dropout": KEY}, mutable=["batch_stats"]
        )

    logits_BC, updated = jax.jit(functools.partial(apply, whole))(x_BTF, mask_BT)
    mapped = jax.jit(jax.vmap(functools.partial(apply, sharded), axis_name="data"))
    found, found_updated = mapped(x_BTF.reshape(3, 2, T, F), mask_BT.reshape(3, 2, T))
    assert_close(found.reshape(6, -1), logits_BC)
    for shard in range(3):
        assert_close(jax.tree.map(lambda leaf, n=shard: leaf[n], found_updated), updated)


@pytest.mark.parametrize("name", NAMES)
def test_dropout_acts_in_training_at_a_rate_that_may_be_traced(name):
    model, variables = make_network(name, channels=ONE_STAGE)
    x_BTF, mask_BT = draw(2, T, F), make_mask((T, 9), T)

    @jax.jit
    def apply(rate, key):
        return model.apply(
            variables, x_BTF, mask_BT, train=True, dropout=rate, rngs={"dropout": key},
            mutable=["batch_stats"],
        )[0]  # fmt: skip

    other = jax.random.key(1)
    np.testing.assert_array_equal(apply(0.0, KEY), apply(0.0, other))
    assert np.abs(np.asarray(apply(0.5, KEY) - apply(0.5, other))).max() > 1e-3


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": "vit", "hidden": 96, "head_width": 36},
         "model.head_width=36: must divide model.hidden=96"),
        ({"name": "cvt", "channels": (32, 48), "head_width": 32},
         r"model.head_width=32: must divide every one of model.channels=\[32, 48\]"),
        ({"name": "vit", "patch": (0, 4)},
         r"model.patch=\[0, 4\]: every entry must be at least 1"),
    ],
)  # fmt: skip
def test_bad_settings_are_said_in_one_line(changes, message):
    with pytest.raises(UserError, match=rf"^{message}$"):
        make_model(override(ModelConfig(), changes), N_CLASSES)
