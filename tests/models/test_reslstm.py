"""ResLSTM-SA against PyTorch on packed sequences: counts, initial values, logits and gradients."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import traverse_util
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

from ser_jax.config import ModelConfig, override
from ser_jax.models.reslstm import SoftAttention
from ser_jax.systems.networks import make_model
from tests.tolerance import assert_near

KEY = jax.random.key(0)
PUBLISHED = {
    "name": "reslstm", "hidden": 64, "dense": (), "mask_padding": True, "forget_bias": 2.0,
    "kernel_init": "glorot_normal", "norm_epsilon": 1e-5, "norm_momentum": 0.9,
}  # fmt: skip
N_CLASSES, N_FEATURES, N_FRAMES = 8, 46, 15
LENGTHS = (15, 11, 6, 1)


class Reference(torch.nn.Module):
    """The network on packed sequences, which hold no padding; parameters by Flax' paths."""

    def __init__(self, n_features: int, hidden: int, n_classes: int):
        super().__init__()
        self.residual_lstm = torch.nn.LSTM(n_features, n_features)
        self.residual_norm = torch.nn.BatchNorm1d(n_features)
        self.lstm = torch.nn.LSTM(n_features, hidden)
        self.vector = torch.nn.Parameter(torch.zeros(hidden, 1))
        self.norm = torch.nn.BatchNorm1d(hidden)
        self.logits = torch.nn.Linear(hidden, n_classes)

    def forward(self, packed: PackedSequence) -> torch.Tensor:
        first = self.residual_lstm(packed)[0]
        summed = self.residual_norm(first.data + packed.data)
        states, lengths = pad_packed_sequence(self.lstm(packed._replace(data=summed))[0])
        pooled = []
        for row, length in enumerate(lengths.tolist()):
            real_TH = states[:length, row]
            pooled.append((torch.softmax(real_TH @ self.vector, dim=0) * real_TH).sum(dim=0))
        return self.logits(self.norm(torch.stack(pooled)))

    def list_tensors(self) -> dict[tuple[str, ...], tuple[torch.Tensor, bool]]:
        """Tensors by the path of their twin, and whether that is transposed."""
        found = {
            ("params", "attention", "vector"): (self.vector, False),
            ("params", "head", "logits", "kernel"): (self.logits.weight, True),
            ("params", "head", "logits", "bias"): (self.logits.bias, False),
        }
        for name in ("residual_lstm", "lstm"):
            lstm: Any = getattr(self, name)
            found["params", name, "input", "kernel"] = lstm.weight_ih_l0, True
            found["params", name, "input", "bias"] = lstm.bias_ih_l0, False
            found["params", name, "cell", "recurrent", "kernel"] = lstm.weight_hh_l0, True
        for name in ("residual_norm", "norm"):
            norm: Any = getattr(self, name)
            found["params", name, "scale"] = norm.weight, False
            found["params", name, "bias"] = norm.bias, False
            found["batch_stats", name, "mean"] = norm.running_mean, False
            found["batch_stats", name, "var"] = norm.running_var, False
        return found


def make_published(**changes: Any) -> Any:
    return make_model(override(ModelConfig(), PUBLISHED | changes), N_CLASSES)


@functools.cache
def init_leaves() -> dict[tuple[str, ...], Any]:
    init = jax.jit(functools.partial(make_published().init, train=False))
    x_BTF, mask_BT = jnp.zeros((1, N_FRAMES, N_FEATURES)), jnp.ones((1, N_FRAMES), bool)
    return dict(traverse_util.flatten_dict(init(KEY, x_BTF, mask_BT)))


def draw_variables(seed: int = 1) -> Any:
    """Values unlike the initial ones, of which zeros and ones would hide mistakes."""
    rng = np.random.default_rng(seed)
    return traverse_util.unflatten_dict({
        path: np.float32(rng.uniform(-0.4, 0.4, leaf.shape) + (path[-1] in ("scale", "var")))
        for path, leaf in init_leaves().items()
    })  # fmt: skip


def make_reference(variables: Any) -> Reference:
    """The reference with the weights of `variables`; PyTorch's second bias is zero."""
    reference = Reference(N_FEATURES, 64, N_CLASSES)
    leaves: Any = traverse_util.flatten_dict(variables)
    tensors = reference.list_tensors()
    assert tensors.keys() == leaves.keys()
    for path, (tensor, is_transposed) in tensors.items():
        tensor.data = torch.from_numpy(np.array(leaves[path].T if is_transposed else leaves[path]))
    for lstm in (reference.residual_lstm, reference.lstm):
        torch.nn.init.zeros_(lstm.all_weights[0][3])
    return reference


def draw_clips(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Features with wild numbers in the padding, and the mask."""
    mask_BT = np.arange(N_FRAMES)[None, :] < np.array(LENGTHS)[:, None]
    shape = (len(LENGTHS), N_FRAMES, N_FEATURES)
    x_BTF = np.random.default_rng(seed).standard_normal(shape)
    return np.where(mask_BT[..., None], x_BTF, 70.0).astype(np.float32), mask_BT


def pack(x_BTF: np.ndarray) -> PackedSequence:
    return pack_padded_sequence(torch.from_numpy(x_BTF), list(LENGTHS), batch_first=True)


def test_parameters_are_the_published_ones_but_for_pytorchs_second_bias():
    published = sum(p.numel() for p in Reference(N_FEATURES, 64, N_CLASSES).parameters())
    assert published == 46772
    ours = sum(leaf.size for path, leaf in init_leaves().items() if path[0] == "params")
    assert ours == published - 4 * 46 - 4 * 64 == 46332


@pytest.mark.device
def test_evaluation_logits_equal_pytorchs_with_the_same_weights():
    variables = draw_variables()
    x_BTF, mask_BT = draw_clips()
    apply = jax.jit(functools.partial(make_published().apply, train=False))
    with torch.no_grad():
        expected_BC = make_reference(variables).eval()(pack(x_BTF))
    assert_near(apply(variables, x_BTF, mask_BT), expected_BC, atol=2e-5, why="cudnn")
    assert np.ptp(expected_BC.numpy(), axis=0).min() > 0.05


@pytest.mark.device
def test_training_logits_gradients_and_statistics_equal_pytorchs():
    model, variables = make_published(), draw_variables()
    x_BTF, mask_BT = draw_clips()
    label_B = np.array([3, 0, 7, 5])

    @jax.jit
    def compute(params):
        def loss(params):
            logits_BC, updated = model.apply(
                variables | {"params": params}, x_BTF, mask_BT, train=True, dropout=0.0,
                rngs={"dropout": KEY}, mutable=["batch_stats"],
            )  # fmt: skip
            log_BC = jax.nn.log_softmax(logits_BC)
            return -log_BC[jnp.arange(4), label_B].mean(), (logits_BC, updated)

        return jax.grad(loss, has_aux=True)(params)

    gradients, (logits_BC, updated) = compute(variables["params"])
    found = dict(traverse_util.flatten_dict({"params": gradients} | updated))
    reference = make_reference(variables).train()
    expected_BC = reference(pack(x_BTF))
    torch.nn.functional.cross_entropy(expected_BC, torch.from_numpy(label_B)).backward()
    assert_near(logits_BC, expected_BC.detach(), atol=1e-4, why="cudnn")
    counts = {"residual_norm": sum(LENGTHS), "norm": len(LENGTHS)}
    for path, (tensor, is_transposed) in reference.list_tensors().items():
        if path[0] == "params":
            assert tensor.grad is not None
            expected = (tensor.grad.T if is_transposed else tensor.grad).numpy()
            scale = np.abs(expected).max()
            assert scale > 1e-4, path
            assert_near(found[path] / scale, expected / scale, atol=2e-4, why="cudnn")
        else:
            expected = tensor.numpy()
            if path[-1] == "var":  # PyTorch keeps the variance of a sample
                n, old = counts[path[1]], 0.9 * variables["batch_stats"][path[1]]["var"]
                expected = old + (expected - old) * (n - 1) / n
            assert_near(found[path], expected, rtol=1e-4, atol=1e-5, why="cudnn")


def test_initial_values_are_the_published_ones():
    for name, n_in, n_out in (("residual_lstm", 46, 46), ("lstm", 46, 64)):
        kernel, bias, recurrent = (
            np.asarray(init_leaves()["params", name, *rest])
            for rest in (("input", "kernel"), ("input", "bias"), ("cell", "recurrent", "kernel"))
        )
        deviation = np.sqrt(2 / (n_in + 4 * n_out))
        assert kernel.std() == pytest.approx(deviation, rel=0.05)
        assert np.abs(kernel).max() > 1.9 * deviation  # uniform would end at 1.73
        expected = np.zeros(4 * n_out)
        expected[n_out : 2 * n_out] = 2
        np.testing.assert_array_equal(bias, expected)
        assert_near(recurrent @ recurrent.T, np.eye(n_out), atol=1e-5, why="cudnn")
    head = np.asarray(init_leaves()["params", "head", "logits", "kernel"])
    limit = np.sqrt(6 / (64 + 8))
    assert 0.95 * limit < np.abs(head).max() <= limit
    vector = np.asarray(init_leaves()["params", "attention", "vector"])
    assert vector.std() == pytest.approx(np.sqrt(2 / 65), rel=0.3)


def test_attention_weighs_real_frames_by_their_product_with_the_vector():
    h_BTH = np.random.default_rng(0).standard_normal((3, 6, 4)).astype(np.float32)
    vector_H1 = np.array([[0.5], [-2.0], [1.0], [3.0]], np.float32)
    lengths = (6, 2, 0)
    mask_BT = np.arange(6)[None, :] < np.array(lengths)[:, None]
    attention = SoftAttention(jax.nn.initializers.zeros)
    found: Any = attention.apply({"params": {"vector": vector_H1}}, h_BTH, mask_BT)
    for row, length in enumerate(lengths):
        real_TH = h_BTH[row, :length]
        power_T1 = np.exp(real_TH @ vector_H1)
        expected_H = (power_T1 * real_TH).sum(axis=0) / max(power_T1.sum(), 1e-9)
        assert_near(found[row], expected_H, atol=1e-5, why="cudnn")


def test_more_padding_and_rows_that_fill_up_change_nothing_in_training():
    model, variables = make_published(), draw_variables()
    apply: Any = functools.partial(
        model.apply, train=True, rngs={"dropout": KEY}, mutable=["batch_stats"]
    )
    (x_BTF, mask_BT), run = draw_clips(), jax.jit(apply)
    expected_BC, expected_statistics = run(variables, x_BTF, mask_BT)
    widths = ((0, 2), (0, 7))
    longer_BTF = np.pad(x_BTF, (*widths, (0, 0)), constant_values=-9.0)
    found_BC, statistics = run(variables, longer_BTF, np.pad(mask_BT, widths))
    assert np.isfinite(found_BC).all()
    assert_near(found_BC[: len(x_BTF)], expected_BC, atol=1e-5, why="cudnn")
    assert_near(statistics, expected_statistics, rtol=1e-5, atol=1e-6, why="cudnn")


def test_padding_counts_as_sound_where_it_is_not_masked():
    variables, (x_BTF, mask_BT) = draw_variables(), draw_clips()
    unmasked = jax.jit(functools.partial(make_published(mask_padding=False).apply, train=False))
    masked = jax.jit(functools.partial(make_published().apply, train=False))
    found_BC = unmasked(variables, x_BTF, mask_BT)
    assert_near(found_BC, masked(variables, x_BTF, np.ones_like(mask_BT)), atol=1e-5, why="cudnn")
    differs_B = np.abs(found_BC - masked(variables, x_BTF, mask_BT)).max(axis=1)
    assert (differs_B[1:] > 1e-3).all()


def test_without_the_lstms_recurrence_the_input_still_reaches_the_logits():
    variables = draw_variables()
    lstm = variables["params"]["residual_lstm"]
    variables["params"]["residual_lstm"] = jax.tree.map(np.zeros_like, lstm)  # its states are 0
    x_BTF, mask_BT = draw_clips()
    apply = jax.jit(functools.partial(make_published().apply, train=False))
    other_BTF = np.where(mask_BT[..., None], x_BTF[:, ::-1], 0)
    assert np.ptp(apply(variables, x_BTF, mask_BT) - apply(variables, other_BTF, mask_BT)) > 1e-2
