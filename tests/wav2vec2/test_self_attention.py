"""Attention and layer drop of wav2vec 2.0 are the same in the forms of CPU and GPU."""

# pyright: reportCallIssue=false, reportAttributeAccessIssue=false
# pyright: reportArgumentType=false, reportOperatorIssue=false

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_wav2vec2 import SHALLOW, make_architecture

from ser_jax.models import layers
from ser_jax.wav2vec2 import blocks, self_attention
from ser_jax.wav2vec2.encoder import Backbone
from ser_jax.wav2vec2.self_attention import attend_fused, attend_plain, find_obstacle

STILL = {**SHALLOW, "hidden_dropout": 0.0, "attention_dropout": 0.0,
         "activation_dropout": 0.0, "layerdrop": 0.0, "apply_spec_augment": False}  # fmt: skip
T = 13
MASK_BT = np.arange(T)[None, :] < np.array([[T], [5]])


@pytest.mark.parametrize(
    ("changes", "obstacle"),
    [
        ({}, ""),
        ({"dtype": "float16", "width": 128}, ""),
        ({"dropout": 0.1}, "has no dropout of attention weights, which is 0.1"),
        ({"cudnn": False}, "needs an NVIDIA GPU"),
        ({"dtype": "float32"}, "does not compute in float32; set train.dtype=bfloat16"),
        ({"width": 60}, "multiple of 8"),
        ({"width": 136}, "at most 128"),
    ],
)
def test_the_fused_kernel_is_used_where_it_can_run(changes, obstacle):
    case = {"cudnn": True, "dtype": jnp.bfloat16, "width": 64, "dropout": 0.0} | changes
    found = find_obstacle(**case)
    assert obstacle in found
    assert bool(obstacle) == bool(found)


def attend_by_softmax(q, k, v, mask_BT, key, rate):
    scores = jnp.einsum("bqhd,bkhd->bhqk", q, k) / np.sqrt(q.shape[-1])
    if mask_BT is not None:
        scores = jnp.where(mask_BT[:, None, None, :], scores, jnp.finfo(jnp.float32).min)
    weights = jax.nn.softmax(scores)
    weights = weights if key is None else layers.drop(weights, rate, key)
    return jnp.einsum("bhqk,bkhd->bqhd", weights, v)


def pull_back(attend, *arguments):
    """The output for random queries, keys and values, and their gradients."""
    qkv = np.random.default_rng(0).normal(size=(4, 2, T, 3, 8)).astype(np.float32)

    @jax.jit
    def run(q, k, v, g):
        out, pull = jax.vjp(lambda q, k, v: attend(q, k, v, *arguments), q, k, v)
        return out, *pull(g)

    return run(*qkv)


@pytest.mark.device
@pytest.mark.parametrize("accelerator", [False, True])
@pytest.mark.parametrize("rate", [0.0, 0.4])
@pytest.mark.parametrize("mask", [None, MASK_BT, MASK_BT & np.array([[True], [False]])])
def test_plain_attention_and_its_gradient_equal_softmax_attention(
    mask, rate, accelerator, monkeypatch
):
    monkeypatch.setattr(self_attention, "on_accelerator", lambda: accelerator)
    arguments = (mask, jax.random.key(1) if rate else None, rate)
    ours = pull_back(attend_plain, *arguments)
    for a, b in zip(ours, pull_back(attend_by_softmax, *arguments), strict=True):
        np.testing.assert_allclose(a, b, atol=2e-6)


@pytest.fixture
def xla_for_cudnn(monkeypatch):
    """What asks for cuDNN's kernel gets XLA's form of the same function."""
    plain = jax.nn.dot_product_attention

    def attend(*arguments, implementation, **settings):
        assert implementation == "cudnn"
        return plain(*arguments, implementation="xla", **settings)

    monkeypatch.setattr(jax.nn, "dot_product_attention", attend)


@pytest.mark.parametrize("mask", [None, MASK_BT])
@pytest.mark.usefixtures("xla_for_cudnn")
def test_fused_attention_equals_plain_attention(mask):
    for a, b in zip(
        pull_back(attend_fused, mask), pull_back(attend_plain, mask, None, 0.0), strict=True
    ):
        np.testing.assert_allclose(a, b, atol=2e-6)


def test_undefined_gradients_of_masked_keys_are_discarded(monkeypatch):
    @jax.custom_vjp
    def attend(q, k, v):
        return q

    def backward(saved, g):
        undefined = jnp.where(MASK_BT[:, :, None, None], 1.0, jnp.nan) * jnp.ones_like(g)
        return g, undefined, undefined

    attend.defvjp(lambda q, k, v: (q, None), backward)
    monkeypatch.setattr(jax.nn, "dot_product_attention", lambda q, k, v, **_: attend(q, k, v))
    for gradient in pull_back(attend_fused, MASK_BT):
        assert np.isfinite(gradient).all()


def make_case(n_frames=T, mask=None, **settings):
    """A small backbone's loss of its parameters and of a key, and the parameters."""
    module = Backbone(make_architecture("base", **STILL | settings))
    x_BN = jnp.zeros((1, module.config.receptive_field))
    params = jax.jit(module.init)(jax.random.key(0), x_BN)["params"]
    z_BTC = jax.random.normal(jax.random.key(1), (2, n_frames, module.config.conv_dim[-1]))

    def compute(params, key, **changes):
        h_BTH = module.clone(**changes).apply(
            {"params": params}, z_BTC, mask, train=True, rngs={"dropout": key},
            method="contextualise",
        )  # fmt: skip
        real_BT = jnp.ones(h_BTH.shape[:2], bool) if mask is None else mask
        return jnp.where(real_BT[:, :, None], jnp.sin(h_BTH), 0).astype(jnp.float32).sum()

    return compute, params


def check_equal(one, other):
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-4)


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("mask", [None, MASK_BT])
@pytest.mark.usefixtures("xla_for_cudnn")
def test_a_network_computes_the_same_as_it_does_on_an_accelerator(mask, fused, monkeypatch):
    compute, params = make_case(mask=mask)
    key = jax.random.key(2)
    expected = jax.jit(jax.value_and_grad(compute))(params, key)
    for module in (self_attention, blocks):
        monkeypatch.setattr(module, "on_accelerator", lambda: True)
    if fused:
        monkeypatch.setattr(blocks, "find_obstacle", lambda **_: "")
    check_equal(jax.jit(jax.value_and_grad(compute))(params, key), expected)


def lower_for_cuda(monkeypatch, **settings):
    from jax._src.cudnn import fused_attention_stablehlo

    # JAX asks for the version of a cuDNN that a machine without a GPU does not have.
    monkeypatch.setattr(fused_attention_stablehlo, "check_cudnn_version", lambda: 91300)
    monkeypatch.setattr(blocks, "has_fused_attention", lambda: True)
    monkeypatch.setattr(blocks, "on_accelerator", lambda: True)
    compute, params = make_case(**settings)
    gradient = jax.jit(jax.grad(functools.partial(compute, dtype=jnp.bfloat16)))
    traced = gradient.trace(params, jax.random.key(2))
    return traced.lower(lowering_platforms=("cuda",)).as_text()


@pytest.mark.parametrize("mask", [None, MASK_BT])
def test_training_in_bfloat16_on_cuda_calls_cudnn_both_ways_and_stores_no_weights(
    mask, monkeypatch
):
    text = lower_for_cuda(monkeypatch, mask=mask)
    assert text.count("@__cudnn$fmhaSoftmax(") == text.count("@__cudnn$fmhaSoftmaxBackward(") == 2
    assert "2x4x16x16x" not in text  # clips, heads, and 13 frames padded


def test_training_with_dropout_of_attention_weights_on_cuda_is_plain(monkeypatch):
    text = lower_for_cuda(monkeypatch, attention_dropout=0.1)
    assert "fmha" not in text
    assert "2x4x16x16x" in text


def skip_by_selection(keep):
    return jnp.ones_like(keep), keep


@pytest.mark.device
def test_layerdrop_by_selection_equals_layerdrop_by_branch(monkeypatch):
    compute, params = make_case(layerdrop=0.5)
    keys = jax.random.split(jax.random.key(3), 4)

    def run():
        compiled = jax.jit(jax.value_and_grad(compute)).lower(params, keys[0]).compile()
        return " conditional(" in compiled.as_text(), [compiled(params, key) for key in keys]

    branches, expected = run()
    monkeypatch.setattr(blocks, "choose_skipping", skip_by_selection)
    branches_now, selected = run()
    assert (branches, branches_now) == (True, False)
    check_equal(selected, expected)
    skipped = [
        all(not np.any(leaf) for leaf in jax.tree.leaves(gradients["encoder"]["layers"][number]))
        for _, gradients in selected
        for number in ("0", "1")
    ]
    assert any(skipped)
    assert not all(skipped)


@pytest.mark.parametrize("platform", ["cuda", "cpu"])
def test_layerdrop_branches_only_on_cpu(platform):
    traced = jax.jit(blocks.choose_skipping).trace(True)
    text = traced.lower(lowering_platforms=(platform,)).as_text()
    computed, taken = re.findall(r"stablehlo.return (%\w+), (%\w+) :", text)[0]
    assert (computed == "%arg0", taken == "%arg0") == (platform == "cpu", platform == "cuda")
