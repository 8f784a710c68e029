"""The residual network: its parts against PyTorch's, and padding that changes nothing."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from ser_jax.config import ModelConfig, override
from ser_jax.errors import UserError
from ser_jax.models.conv import MaskedBatchNorm
from ser_jax.models.layers import KERNEL_INITS
from ser_jax.models.resnet import (
    AttentiveStatistics,
    Convolutions,
    FrameConv,
    ResidualBlock,
    SqueezeExcitation,
)
from ser_jax.systems.networks import make_model
from tests.tolerance import assert_near

INIT, KEY = KERNEL_INITS["glorot_uniform"], jax.random.key(0)
LENGTHS = (12, 9, 3, 1)


def draw(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def make_mask(lengths, n_frames: int) -> np.ndarray:
    return np.arange(n_frames)[None, :] < np.asarray(lengths)[:, None]


def randomise(variables: Any, seed: int = 1) -> Any:
    """Other values for every parameter and statistic, variances above zero."""
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda x: np.float32(rng.uniform(0.2, 1.0, x.shape)), variables)


def to_torch(x: Any) -> torch.Tensor:
    return torch.from_numpy(np.array(x))


def normalise(x: torch.Tensor, params: Any, stats: Any) -> torch.Tensor:
    """Batch norm with running statistics, over axis 1."""
    of = {**params, **stats}
    mean, var, scale, bias = (to_torch(of[name]) for name in ("mean", "var", "scale", "bias"))
    return torch.nn.functional.batch_norm(x, mean, var, scale, bias, eps=1e-3)


def convolve(x: torch.Tensor, kernel: Any, stride: int) -> torch.Tensor:
    weight = to_torch(kernel).permute(3, 2, 0, 1)
    return torch.nn.functional.conv2d(x, weight, stride=stride, padding=weight.shape[-1] // 2)


def gate(x: torch.Tensor, params: Any) -> torch.Tensor:
    squeeze, excite = params["squeeze"], params["excite"]
    mean = x.mean((2, 3))
    narrow = torch.relu(mean @ to_torch(squeeze["kernel"]) + to_torch(squeeze["bias"]))
    shares = torch.sigmoid(narrow @ to_torch(excite["kernel"]) + to_torch(excite["bias"]))
    return x * shares[:, :, None, None]


@pytest.mark.device
@pytest.mark.parametrize(("stride", "channels"), [(2, 10), (1, 8)])
def test_a_block_equals_pytorchs_convolutions_norms_and_gate(stride, channels):
    x_BTFC, mask_BT = draw(2, 7, 5, 8), np.ones((2, 7), bool)
    block = ResidualBlock(
        channels, stride, Convolutions(INIT), functools.partial(MaskedBatchNorm, 0.9)
    )
    variables = randomise(block.init(KEY, x_BTFC, mask_BT, train=False))
    found, short_mask_BT = map(np.asarray, block.apply(variables, x_BTFC, mask_BT, train=False))
    assert short_mask_BT.shape == (2, -(-7 // stride))
    params, stats = variables["params"], variables["batch_stats"]
    norm = {name: functools.partial(normalise, params=params[name], stats=stats[name])
            for name in stats}  # fmt: skip
    x = to_torch(x_BTFC).permute(0, 3, 1, 2)
    y = torch.relu(norm["norm_0"](convolve(x, params["Conv_0"]["kernel"], stride)))
    y = gate(norm["norm_1"](convolve(y, params["Conv_1"]["kernel"], 1)), params["gate"])
    if "Conv_2" in params:
        x = norm["norm_around"](convolve(x, params["Conv_2"]["kernel"], stride))
    assert ("Conv_2" in params) == (stride == 2)
    expected = torch.relu(x + y).permute(0, 2, 3, 1)
    assert_near(found, expected, rtol=1e-4, atol=1e-4, why="cudnn")


def test_pooling_is_the_weighted_mean_and_deviation_over_real_frames():
    x_BTH, lengths = draw(3, 6, 4), (6, 2, 0)
    pool = AttentiveStatistics(INIT)
    variables = randomise(pool.init(KEY, x_BTH, make_mask(lengths, 6)))
    found_BH = np.asarray(pool.apply(variables, x_BTH, make_mask(lengths, 6)))
    assert np.isfinite(found_BH).all()
    params = jax.tree.map(np.asarray, variables["params"])
    for row, length in enumerate(lengths[:2]):
        x_TH = x_BTH[row, :length]
        hidden = np.tanh(x_TH @ params["hidden"]["kernel"] + params["hidden"]["bias"])
        power_TH = np.exp(hidden @ params["score"]["kernel"] + params["score"]["bias"])
        weight_TH = power_TH / power_TH.sum(axis=0)
        mean_H = (weight_TH * x_TH).sum(axis=0)
        std_H = np.sqrt((weight_TH * (x_TH - mean_H) ** 2).sum(axis=0) + 1e-5)
        assert_near(found_BH[row], [*mean_H, *std_H], rtol=1e-4, why="cudnn")


def test_the_gate_sees_real_frames_alone():
    x_BTFC, gate_of = draw(1, 6, 3, 8), SqueezeExcitation(INIT)
    variables = randomise(gate_of.init(KEY, x_BTFC, make_mask([6], 6)))
    whole = np.asarray(gate_of.apply(variables, x_BTFC[:, :4], make_mask([4], 4)))
    padded = np.asarray(gate_of.apply(variables, x_BTFC, make_mask([4], 6)))
    assert_near(padded[:, :4], whole, rtol=1e-5, why="cudnn")


@pytest.mark.device
@pytest.mark.parametrize(("size", "stride"), [(3, 1), (5, 2), (1, 2)])
def test_a_convolution_along_time_equals_pytorchs(size, stride):
    x_BT1C = draw(2, 9, 1, 4)
    conv = FrameConv(6, size, stride, INIT)
    variables = conv.init(KEY, x_BT1C)
    found = np.asarray(conv.apply(variables, x_BT1C))
    weight = to_torch(variables["params"]["kernel"]).permute(2, 1, 0)
    x = to_torch(x_BT1C[:, :, 0]).permute(0, 2, 1)
    expected = torch.nn.functional.conv1d(x, weight, stride=stride, padding=size // 2)
    assert_near(found[:, :, 0], expected.permute(0, 2, 1), rtol=1e-5, atol=1e-6, why="cudnn")


def test_along_time_frames_are_mixed_by_an_odd_number_of_taps():
    with pytest.raises(UserError, match=r"model\.kernel=4: must be odd for model\.name=resnet1d"):
        make_network(name="resnet1d", kernel=4)


def make_network(**changes: Any):
    small = {"name": "resnet", "channels": (4, 6, 8), "layers": 2, "dense": (5,),
             "mask_padding": True, **changes}  # fmt: skip
    model = make_model(override(ModelConfig(), small), 4)
    init = jax.jit(functools.partial(model.init, train=False))
    variables = init(KEY, jnp.zeros((1, 12, 10)), jnp.ones((1, 12), bool))
    return model, variables


@pytest.mark.parametrize("name", ["resnet", "resnet1d"])
def test_padding_and_what_lies_in_it_do_not_change_logits(name):
    model, variables = make_network(name=name)
    apply = jax.jit(functools.partial(model.apply, train=False))
    x_BTF, mask_BT = draw(4, 12, 10), make_mask(LENGTHS, 12)
    expected = apply(variables, x_BTF, mask_BT)
    for n_more in (1, 4, 9):
        longer_BTF = np.concatenate([x_BTF, 7 * draw(4, n_more, 10, seed=2)], axis=1)
        longer_mask_BT = make_mask(LENGTHS, 12 + n_more)
        found = apply(variables, np.where(longer_mask_BT[..., None], longer_BTF, 3), longer_mask_BT)
        assert_near(found, expected, atol=1e-5, why="cudnn")


@pytest.mark.parametrize("name", ["resnet", "resnet1d"])
def test_rows_that_fill_up_change_neither_gradients_nor_statistics(name):
    model, variables = make_network(name=name, dropout=0.0)

    @jax.jit
    def compute(x_BTF, mask_BT):
        def loss(params):
            logits_BC, updated = model.apply(
                {**variables, "params": params}, x_BTF, mask_BT, train=True,
                rngs={"dropout": KEY}, mutable=["batch_stats"],
            )  # fmt: skip
            return (logits_BC[:3] ** 2).sum(), updated

        return jax.grad(loss, has_aux=True)(variables["params"])

    x_BTF, mask_BT = draw(3, 12, 10), make_mask((12, 9, 3), 12)
    expected = compute(x_BTF, mask_BT)
    filled_BTF = np.concatenate([x_BTF, np.zeros((2, 12, 10), np.float32)])
    found = compute(filled_BTF, np.concatenate([mask_BT, np.zeros((2, 12), bool)]))
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        assert np.isfinite(one).all()
        assert_near(one, other, rtol=1e-4, atol=1e-5, why="cudnn")
