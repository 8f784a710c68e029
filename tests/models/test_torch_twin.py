"""Counts, logits, gradients and statistics equal those of PyTorch networks with the same weights.

Without masking the reference is the padded twin. With masking it is `RaggedReference`, which knows
no mask: it takes every clip alone and unpadded through PyTorch's own functions, and lays the frames
of all clips end to end only where batch norm gathers its statistics.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from flax import traverse_util

from benchmarks.pytorch.models import (
    copy_variables,
    count_parameters,
    list_parameters,
    list_statistics,
    make_network,
)
from ser_jax.config import ModelConfig, override
from ser_jax.systems.networks import make_model
from tests.tolerance import assert_near

N_CLASSES, N_FEATURES = 8, 20
LENGTHS = (53, 16, 64, 37)  # frames: odd ones, the fewest that four poolings leave, the most
N_FRAMES = max(LENGTHS)
NETWORKS: list[tuple[Any, Any]] = [
    ("cnn", "flatten"),
    ("cnn", "mean"),
    ("lstm", "flatten"),
    ("cnn_lstm", "flatten"),
]


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


class RaggedReference:
    """The networks with masking: clips one by one, padding nowhere."""

    def __init__(self, network, pool, train):
        self.network, self.pool, self.train = network, pool, train
        self.statistics = {}

    def __call__(self, clips):
        """Clips [T_i, F], the first ones of a batch padded to N_FRAMES, to logits [B, C]."""
        n_frames = N_FRAMES
        if hasattr(self.network, "stack"):
            maps = [clip[None, None] for clip in clips]
            for name, block in self.network.stack.named_children():
                maps = [F.conv2d(m, block.conv.weight, padding=1) for m in maps]
                maps = [F.max_pool2d(F.elu(m), 2) for m in self.normalise(maps, block.norm, name)]
                n_frames //= 2
            clips = [m[0].permute(1, 2, 0).flatten(1) for m in maps]
        return self.network.head(torch.stack([self.shrink(clip, n_frames) for clip in clips]))

    def normalise(self, maps, norm, name):
        mean, var = norm.running_mean, norm.running_var
        if self.train:
            laid_out = torch.cat([m[0].flatten(1) for m in maps], dim=1)
            mean, var = laid_out.mean(1), laid_out.var(1, unbiased=False)
            path = ("stack", name, "norm")
            self.statistics[*path, "mean"] = 0.99 * norm.running_mean + 0.01 * mean.detach()
            self.statistics[*path, "var"] = 0.99 * norm.running_var + 0.01 * var.detach()
        gain = norm.weight / torch.sqrt(var + 1e-3)
        shift = norm.bias - mean * gain
        return [m * gain[:, None, None] + shift[:, None, None] for m in maps]

    def shrink(self, clip, n_frames):
        if hasattr(self.network, "lstm"):
            return self.network.lstm(clip[None])[0][0, -1]
        if self.pool == "mean":
            return clip.mean(dim=0)
        return F.pad(clip, (0, 0, 0, n_frames - len(clip))).flatten()


def flatten_dict(tree: Any) -> dict[tuple[str, ...], Any]:
    """Leaves by their paths."""
    return dict(traverse_util.flatten_dict(tree))


def make_variables(model):
    """All of them random: zeros and ones, as they are at first, would hide mistakes."""
    x_BTF, mask_BT = jnp.zeros((1, N_FRAMES, N_FEATURES)), jnp.ones((1, N_FRAMES), bool)
    shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), x_BTF, mask_BT, train=False))
    rng = np.random.default_rng(0)

    def draw(path, leaf):
        noise = rng.uniform(-0.5, 0.5, leaf.shape).astype(np.float32)
        if path[-1] == "kernel":
            return noise * np.float32(np.sqrt(12 / np.prod(leaf.shape[:-1])))
        return noise + np.float32(path[-1] in ("scale", "var"))

    return traverse_util.unflatten_dict(
        {path: draw(path, leaf) for path, leaf in flatten_dict(shapes).items()}
    )


def make_pair(config):
    """A Flax network, its twin with the same weights, and those weights."""
    model = make_model(config, N_CLASSES)
    variables = make_variables(model)
    network = make_network(config, N_CLASSES, n_frames=N_FRAMES, n_features=N_FEATURES)
    copy_variables(network, variables)
    return model, network, variables


def make_inputs():
    """Features with zeros under the padding, mask, and the W of sum(logits x W)."""
    rng = np.random.default_rng(1)
    mask_BT = np.arange(N_FRAMES)[None, :] < np.array(LENGTHS)[:, None]
    x_BTF = rng.standard_normal((*mask_BT.shape, N_FEATURES)).astype(np.float32)
    weight_BC = rng.standard_normal((len(LENGTHS), N_CLASSES)).astype(np.float32)
    return x_BTF * mask_BT[..., None], jnp.asarray(mask_BT), weight_BC


def run_flax(model, variables):
    """A training pass: logits, gradients of sum(logits x W), running statistics, by path."""
    x_BTF, mask_BT, weight_BC = make_inputs()

    def compute(params):
        logits_BC, updated = model.apply(
            {**variables, "params": params}, x_BTF, mask_BT, train=True, dropout=0.0,
            rngs={"dropout": jax.random.key(1)}, mutable=["batch_stats"],
        )  # fmt: skip
        return jnp.sum(logits_BC * weight_BC), (logits_BC, updated.get("batch_stats", {}))

    program = jax.jit(jax.grad(compute, has_aux=True))
    gradients, (logits_BC, statistics) = program(variables["params"])
    return np.asarray(logits_BC), flatten_dict(gradients), flatten_dict(statistics)


def run_torch(network, config, variables):
    """The same by PyTorch, in Flax' layout."""
    weight_BC = torch.from_numpy(make_inputs()[2])
    logits_BC, statistics = predict_torch(network.train(), config)
    if not config.mask_padding:
        statistics = read_biased_statistics(network, variables)
    torch.sum(logits_BC * weight_BC).backward()
    gradients = {}
    for path, (tensor, axes) in list_parameters(network).items():
        assert tensor.grad is not None, path
        gradients[path] = tensor.grad.numpy().transpose(np.argsort(axes))
    return logits_BC.detach().numpy(), gradients, statistics


def predict_torch(network, config):
    """Logits, and the running statistics that the ragged reference has worked out."""
    x_BTF = torch.from_numpy(make_inputs()[0])
    if not config.mask_padding:
        return network(x_BTF), {}
    reference = RaggedReference(network, config.cnn_pool, network.training)
    clips = [x_TF[:n] for x_TF, n in zip(x_BTF, LENGTHS, strict=True)]
    return reference(clips), reference.statistics


def read_biased_statistics(network, variables):
    """PyTorch's running variance is of the unbiased variance, Keras' and Flax' of the biased."""
    old = flatten_dict(variables["batch_stats"]) if "batch_stats" in variables else {}
    statistics = dict(list_statistics(network))
    for path in [path for path in statistics if path[-1] == "var"]:
        shrink = 2 ** int(path[1].removeprefix("block_"))
        n = len(LENGTHS) * (N_FRAMES // shrink) * (N_FEATURES // shrink)
        kept = 0.99 * torch.from_numpy(old[path])
        statistics[path] = kept + (statistics[path] - kept) * ((n - 1) / n)
    return statistics


@pytest.mark.device
@pytest.mark.parametrize("masked", [False, True], ids=["padded", "masked"])
@pytest.mark.parametrize(("name", "pool"), NETWORKS)
def test_training_logits_gradients_and_statistics_equal_the_twins(name, pool, masked):
    config = ModelConfig(
        name=name, cnn_pool=pool, mask_padding=masked, channels=(16, 16, 24), hidden=32,
        dense=(24, 16), activation="elu", dropout=0.0, norm_momentum=0.99,
    )  # fmt: skip
    model, network, variables = make_pair(config)
    logits_BC, gradients, statistics = run_flax(model, variables)
    logits_twin_BC, gradients_twin, statistics_twin = run_torch(network, config, variables)

    assert_near(logits_BC, logits_twin_BC, rtol=0, atol=1e-4, why="cudnn")
    assert gradients.keys() == gradients_twin.keys()
    greatest = max(np.linalg.norm(g) for g in gradients_twin.values())
    for path, twin in gradients_twin.items():
        error = np.linalg.norm(gradients[path] - twin)
        assert error <= 1e-3 * np.linalg.norm(twin) + 1e-6 * greatest, path
    assert statistics.keys() == statistics_twin.keys()
    for path, twin in statistics_twin.items():
        assert_near(statistics[path], twin, rtol=1e-5, atol=1e-6, why="cudnn")


@pytest.mark.parametrize("masked", [False, True], ids=["padded", "masked"])
@pytest.mark.parametrize(("name", "pool"), NETWORKS)
def test_evaluation_logits_of_the_studys_sizes_equal_the_twins(name, pool, masked):
    config = ModelConfig(name=name, cnn_pool=pool, mask_padding=masked)
    model, network, variables = make_pair(config)
    x_BTF, mask_BT, _ = make_inputs()
    logits_BC = jax.jit(lambda v: model.apply(v, x_BTF, mask_BT, train=False))(variables)
    with torch.no_grad():
        logits_twin_BC, _ = predict_torch(network.eval(), config)
    assert np.abs(logits_BC).mean() > 0.1
    assert_near(logits_BC, logits_twin_BC.numpy(), rtol=0, atol=1e-4, why="cudnn")


@pytest.mark.parametrize(("n_frames", "n_features"), [(165, 40), (165, 20), (97, 128)])
@pytest.mark.parametrize(("name", "pool"), NETWORKS)
def test_parameter_counts_equal_the_twins(name, pool, n_frames, n_features):
    config = ModelConfig(name=name, cnn_pool=pool)
    x_BTF, mask_BT = jnp.zeros((1, n_frames, n_features)), jnp.ones((1, n_frames), bool)
    model = make_model(config, N_CLASSES)
    shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), x_BTF, mask_BT, train=False))
    with torch.device("meta"):
        network = make_network(config, N_CLASSES, n_frames=n_frames, n_features=n_features)
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes["params"])) == count_parameters(network)


def test_parameter_counts_of_the_study_are_those_counted_by_hand():
    convolutions = 9 * (1 * 64 + 64 * 64 + 64 * 128 + 128 * 128) + 2 * (64 + 64 + 128 + 128)
    expected = {
        "cnn": convolutions + (10 * 2 * 128 + 1) * 128 + 129 * 8,
        "lstm": 4 * 256 * (40 + 256 + 1) + 257 * 128 + 129 * 8,
        "cnn_lstm": convolutions + 4 * 256 * (2 * 128 + 256 + 1) + 257 * 128 + 129 * 8,
    }
    for name, count in expected.items():
        with torch.device("meta"):
            network = make_network(
                override(ModelConfig(), {"name": name}), 8, n_frames=165, n_features=40
            )
        assert count_parameters(network) == count


def test_lstm_of_the_twin_has_one_bias():
    network = make_network(ModelConfig(name="lstm"), N_CLASSES, n_frames=10, n_features=4)
    trainable = {name for name, p in network.named_parameters() if p.requires_grad}
    assert "lstm.bias_ih_l0" in trainable
    assert "lstm.bias_hh_l0" not in trainable
    assert not torch.any(dict(network.named_parameters())["lstm.bias_hh_l0"])


def test_copying_leaves_no_trainable_tensor_out():
    for name, pool in NETWORKS:
        config = ModelConfig(name=name, cnn_pool=pool, channels=(2, 2), hidden=3, dense=(2,))
        network = make_network(config, N_CLASSES, n_frames=8, n_features=4)
        listed = {id(tensor) for tensor, _ in list_parameters(network).values()}
        assert listed == {id(p) for p in network.parameters() if p.requires_grad}
