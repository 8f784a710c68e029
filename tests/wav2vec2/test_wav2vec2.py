"""wav2vec 2.0 of both layouts computes what PyTorch's does, and no input makes it NaN."""

# Linen's apply may return a pair, which none of these calls asks for.
# pyright: reportCallIssue=false, reportArgumentType=false, reportAttributeAccessIssue=false
# pyright: reportOperatorIssue=false, reportAssignmentType=false

import functools
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from tiny_wav2vec2 import (
    LAYOUTS,
    SHALLOW,
    build_torch,
    flax_wav2vec2,
    get_params,
    make_architecture,
    make_torch,
    make_waves,
)
from transformers import Wav2Vec2FeatureExtractor, Wav2Vec2ForSequenceClassification

from ser_jax.config import BackboneConfig, ModelConfig
from ser_jax.errors import UserError
from ser_jax.systems.networks import make_model
from ser_jax.wav2vec2.architecture import Architecture, BackboneSpec, read_architecture
from ser_jax.wav2vec2.blocks import Lora
from ser_jax.wav2vec2.convolutions import convolve_frames, convolve_same
from ser_jax.wav2vec2.encoder import Backbone
from ser_jax.wav2vec2.masks import draw_spans, make_frame_mask, normalise_wave
from ser_jax.wav2vec2.parameter_names import to_flax
from tests.heap import trim_heap
from tests.tolerance import assert_near

RATE = 16000


def run_torch(model, x_BN, mask_BN):
    mask = None if mask_BN is None else torch.tensor(mask_BN).long()
    return model(torch.tensor(x_BN), attention_mask=mask, output_hidden_states=True).hidden_states


def check_states(ours, theirs, architecture):
    assert len(ours) == len(theirs) == architecture.num_hidden_layers + 1
    for h_BTH, expected in zip(ours, theirs, strict=True):
        assert_near(h_BTH, expected, atol=1e-4, why="cudnn")


@pytest.mark.device
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("seconds", [(0.1, 0.06), (1.0, 0.3), (12.0, 5.27)])
def test_hidden_states_are_pytorchs(layout, seconds, masked):
    architecture = make_architecture(layout)
    model = make_torch(architecture)
    x_BN, mask_BN = make_waves([int(s * RATE) for s in seconds])
    mask = mask_BN if masked else None
    ours = jax.jit(functools.partial(Backbone(architecture).apply, all_layers=True))(
        {"params": get_params(model)}, x_BN, mask
    )
    with torch.no_grad():
        theirs = [state.numpy() for state in run_torch(model, x_BN, mask)]
    check_states(ours, theirs, architecture)


def list_gradients(tree, prefix=""):
    for name, leaf in tree.items():
        if isinstance(leaf, dict):
            yield from list_gradients(leaf, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", np.asarray(leaf)


def check_states_and_gradients(architecture, lengths):
    x_BN, mask_BN = make_waves(lengths)
    rng = np.random.default_rng(1)
    T = architecture.count_frames(x_BN.shape[1])
    # The mean over features would be constant after a layer norm, and its gradient zero.
    weight = rng.normal(size=(len(lengths), T, architecture.hidden_size)).astype(np.float32)

    def compute(params):
        states = Backbone(architecture).apply({"params": params}, x_BN, mask_BN, all_layers=True)
        return (states[-1] * weight).sum(), states

    params, states, theirs = differentiate_torch(architecture, x_BN, mask_BN, weight)
    trim_heap()  # of some hundred MiB, at the size of base
    tree, ours = jax.jit(jax.grad(compute, has_aux=True))(params)
    check_states(ours, states, architecture)
    gradients = dict(list_gradients(tree))
    greatest = max(np.linalg.norm(g) for g in theirs.values())
    assert set(gradients) - set(theirs) <= {"masked_spec_embed"}
    for name, expected in theirs.items():
        bound = 1e-3 * np.linalg.norm(expected) + 1e-6 * greatest
        assert np.linalg.norm(gradients[name] - expected) <= bound, name


def differentiate_torch(architecture, x_BN, mask_BN, weight):
    """Weights, and PyTorch's states and its gradients by name; its network, perhaps large, goes."""
    model = build_torch(architecture)
    states = run_torch(model, x_BN, mask_BN)
    (states[-1] * torch.tensor(weight)).sum().backward()
    states = [state.detach().numpy() for state in states]
    gradients = {n: p.grad.numpy() for n, p in model.named_parameters() if p.grad is not None}
    return get_params(model), states, dict(list_gradients(to_flax(gradients)))


@pytest.mark.device
@pytest.mark.parametrize("layout", LAYOUTS)
def test_gradients_are_pytorchs(layout):
    check_states_and_gradients(make_architecture(layout), [RATE, RATE // 3])


@pytest.mark.slow
@pytest.mark.parametrize("layout", LAYOUTS)
def test_hidden_states_and_gradients_at_the_size_of_base_are_pytorchs(layout):
    check_states_and_gradients(Architecture(**LAYOUTS[layout]), [RATE, RATE // 10])


def test_stable_layout_equals_transformers_own_flax_network():
    architecture = make_architecture("large")
    model = make_torch(architecture)
    params = get_params(model)
    x_BN, mask_BN = make_waves([RATE, RATE // 2])
    own = flax_wav2vec2.FlaxWav2Vec2Module(model.config)
    with warnings.catch_warnings(action="ignore"):
        shapes = jax.eval_shape(own.init, jax.random.key(0), x_BN, mask_BN)["params"]
    assert jax.tree.map(jnp.shape, params) == jax.tree.map(lambda leaf: leaf.shape, shapes)
    with jax.numpy_rank_promotion("allow"), warnings.catch_warnings(action="ignore"):
        theirs = jax.jit(own.apply)({"params": params}, x_BN, mask_BN.astype(np.int32))[0]
    ours = jax.jit(Backbone(architecture).apply)({"params": params}, x_BN, mask_BN)
    assert_near(ours, theirs, atol=1e-4, why="cudnn")


def draw(*shapes):
    rng = np.random.default_rng(0)
    return [rng.normal(size=shape).astype(np.float32) for shape in shapes]


def check_equal(convolve, plain, x_BTC, kernel_KCD):
    """In values, and in gradients where the output's is random."""

    @functools.partial(jax.jit, static_argnums=0)
    def run(function, g):
        out, pull = jax.vjp(function, x_BTC, kernel_KCD)
        return out, pull(g)

    (g,) = draw(jax.eval_shape(plain, x_BTC, kernel_KCD).shape)
    (ours, gradients), (out, expected) = run(convolve, g), run(plain, g)
    assert_near(ours, out, atol=1e-5, why="cudnn")
    for a, b in zip(gradients, expected, strict=True):
        assert_near(a, b, atol=1e-4, why="cudnn")


@pytest.mark.parametrize(("kernel", "stride"), [(10, 5), (3, 2), (2, 2), (4, 3), (5, 2)])
def test_gradient_of_a_convolution_is_xlas(kernel, stride):
    x_BTC, kernel_KCD = draw((2, 41, 3), (kernel, 3, 4))

    def plain(x, k):
        names = ("NWC", "WIO", "NWC")
        return jax.lax.conv_general_dilated(x, k, (stride,), "VALID", dimension_numbers=names)

    check_equal(lambda x, k: convolve_frames(x, k, stride), plain, x_BTC, kernel_KCD)


@pytest.mark.parametrize("kernel", [16, 7])
def test_gradient_of_the_grouped_convolution_is_xlas(kernel):
    x_BTC, kernel_KCD = draw((2, 21, 8), (kernel, 2, 8))

    def plain(x, k):
        return jax.lax.conv_general_dilated(
            x, k, (1,), ((kernel // 2,) * 2,), dimension_numbers=("NWC", "WIO", "NWC"),
            feature_group_count=4,
        )  # fmt: skip

    check_equal(lambda x, k: convolve_same(x, k, 4), plain, x_BTC, kernel_KCD)


def make_small(layout="base", lora=None, **settings):
    rates = {k: 0.0 for k in ("hidden_dropout", "attention_dropout", "activation_dropout",
                              "layerdrop", "mask_time_prob")}  # fmt: skip
    architecture = make_architecture(layout, **SHALLOW | rates | settings)
    with_mask = make_architecture(layout, **SHALLOW, mask_time_prob=0.1)  # has the mask's embedding
    return Backbone(architecture, lora=lora), get_params(make_torch(with_mask))


@pytest.mark.device
def test_recomputing_layers_gives_the_same_values_and_gradients():
    plain, params = make_small()
    x_BN, mask_BN = make_waves([RATE // 2, RATE // 4])

    def compute(params, module):
        h = module.apply({"params": params}, x_BN, mask_BN, train=True,
                         rngs={"dropout": jax.random.key(0)})  # fmt: skip
        return jnp.where(mask_BN[:, :1, None], jnp.sin(h), 0).sum()

    run = jax.jit(jax.value_and_grad(compute), static_argnums=1)
    results = [run(params, module) for module in (plain, plain.clone(remat=True))]
    for a, b in zip(*map(jax.tree.leaves, results), strict=True):
        assert_near(a, b, atol=2e-4, why="cudnn")


@pytest.mark.device
def test_bfloat16_stays_near_float32():
    module, params = make_small()
    x_BN, mask_BN = make_waves([RATE, RATE // 2])
    exact = jax.jit(module.apply)({"params": params}, x_BN, mask_BN)
    coarse = jax.jit(module.clone(dtype=jnp.bfloat16).apply)({"params": params}, x_BN, mask_BN)
    assert coarse.dtype == jnp.bfloat16
    np.testing.assert_allclose(coarse.astype(jnp.float32), exact, atol=0.15)


def make_network(layout, masked):
    settings = BackboneConfig(normalise_before_padding=masked)
    spec = BackboneSpec(make_architecture(layout, **SHALLOW), settings)
    return make_model(ModelConfig(name="wav2vec2", mask_padding=masked), 8, spec=spec)


@functools.cache
def init_network(layout):
    network = make_network(layout, masked=False)
    x_BN1, mask_BN = np.zeros((1, 400, 1), np.float32), np.ones((1, 400), bool)
    return jax.jit(network.init, static_argnames="train")(
        jax.random.key(0), x_BN1, mask_BN, train=False
    )["params"]


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_silence_short_clips_and_rows_of_padding_give_finite_values(layout, masked):
    network, params = make_network(layout, masked), init_network(layout)
    x_BN, mask_BN = make_waves([390, 100, 0, 300])
    x_BN[3] = 0  # silence
    x_BN1 = x_BN[:, :, None]

    def compute(params):
        logits = network.apply({"params": params}, x_BN1, mask_BN, train=True,
                               rngs={"dropout": jax.random.key(1)})  # fmt: skip
        return logits.sum(), logits

    gradients, logits = jax.jit(jax.grad(compute, has_aux=True))(params)
    assert np.isfinite(logits).all()
    assert all(np.isfinite(g).all() for g in jax.tree.leaves(gradients))


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_logits_are_those_of_pytorchs_classifier_and_its_feature_extractor(
    layout, masked, weighted
):
    architecture = make_architecture(layout, **SHALLOW)
    model = make_torch(
        architecture, Wav2Vec2ForSequenceClassification, num_labels=8,
        use_weighted_layer_sum=weighted,
    )  # fmt: skip
    waves = [0.1 * make_waves([n], n)[0][0] + 0.02 for n in (9000, 4000)]
    padded_BN = np.stack([np.pad(wave, (0, 9000 - len(wave))) for wave in waves])
    extract = Wav2Vec2FeatureExtractor(return_attention_mask=masked)
    inputs = extract(
        waves if masked else list(padded_BN), sampling_rate=RATE, padding=True, return_tensors="pt"
    )
    with torch.no_grad():
        theirs = model(**inputs).logits.numpy()
    settings = BackboneConfig(weighted_layers=weighted, normalise_before_padding=masked)
    config = ModelConfig(name="wav2vec2", mask_padding=masked)
    network = make_model(config, 8, spec=BackboneSpec(architecture, settings))
    mask_BN = np.arange(9000)[None, :] < np.array([[9000], [4000]])
    apply = jax.jit(network.apply, static_argnames="train")
    ours = apply({"params": get_params(model)}, padded_BN[:, :, None], mask_BN, train=False)
    assert_near(ours, theirs, atol=1e-5, why="cudnn")


def test_normalisation_is_the_feature_extractors():
    x_BN, mask_BN = make_waves([3000, 1000])
    waves = [0.3 * row[:n] + 0.1 for row, n in zip(x_BN, (3000, 1000), strict=True)]
    extract = Wav2Vec2FeatureExtractor(return_attention_mask=True)
    theirs = extract(waves, sampling_rate=RATE, padding=True, return_tensors="np").input_values
    padded = np.where(mask_BN, 0.3 * x_BN + 0.1, 0)
    assert_near(normalise_wave(padded, mask_BN), theirs, atol=1e-5, why="cudnn")
    assert (normalise_wave(jnp.zeros((1, 50)), jnp.zeros((1, 50), bool)) == 0).all()


@pytest.mark.parametrize("length", [400, 401, 719, 720, 16000])
def test_frames_of_a_clip_are_counted_as_pytorch_does(length):
    architecture = Architecture()
    model = make_torch(make_architecture("base"))
    mask_BN = np.arange(16000)[None, :] < length
    T = architecture.count_frames(16000)
    theirs = model._get_feature_vector_attention_mask(T, torch.tensor(mask_BN).long())
    np.testing.assert_array_equal(make_frame_mask(architecture, mask_BN, T), theirs.numpy())


def test_the_receptive_field_is_the_shortest_input_with_a_frame():
    architecture = Architecture()
    assert (architecture.receptive_field, architecture.stride) == (400, 320)
    assert [architecture.count_frames(n) for n in (399, 400)] == [0, 1]


def test_masked_spans_lie_on_real_frames_and_cover_their_share():
    length_B = jnp.array([200, 60, 12, 9, 0])
    draw = jax.jit(lambda key: draw_spans(key, length_B, 200, 0.5, 10, least=2))
    masks = np.stack([draw(jax.random.key(seed)) for seed in range(100)])
    real = np.arange(200)[None, :] < np.array(length_B)[:, None]
    assert not (masks & ~real[None]).any()
    assert not masks[:, 3:].any()  # shorter than a span
    assert (masks[:, :3].sum(axis=2) >= 11).all()  # two spans that begin at different frames
    # Ten spans at random of 191 starts: a frame in the middle is free with (1 - 10 / 191) ** 10.
    assert abs(masks[:, 0, 20:180].mean() - (1 - (1 - 10 / 191) ** 10)) < 0.03
    assert (masks[0] == draw(jax.random.key(0))).all()
    assert (masks[0] != masks[1]).any()


def test_specaugment_and_layerdrop_act_only_in_training():
    masking, params = make_small(mask_time_prob=0.5, mask_feature_prob=0.3)
    x_BN, mask_BN = make_waves([RATE])
    run = jax.jit(
        lambda key, train: masking.apply({"params": params}, x_BN, mask_BN, train=train,
                                         rngs={"dropout": key}),
        static_argnums=1,
    )  # fmt: skip
    keys = jax.random.split(jax.random.key(0))
    assert (run(keys[0], False) == run(keys[1], False)).all()
    assert (run(keys[0], True) != run(keys[1], True)).any()
    assert (run(keys[0], True) == run(keys[0], True)).all()
    dropping, params = make_small(layerdrop=0.999999)
    states = jax.jit(
        lambda key: dropping.apply({"params": params}, x_BN, mask_BN, train=True, all_layers=True,
                                   rngs={"dropout": key})
    )(keys[0])  # fmt: skip
    np.testing.assert_array_equal(states[0], states[-1])


def test_lora_changes_nothing_at_first_and_is_trained():
    lora = Lora(4, 8.0, ("q_proj", "v_proj"))
    module, params = make_small(lora=lora)
    x_BN, mask_BN = make_waves([RATE // 2])
    made = jax.jit(module.init)(jax.random.key(0), x_BN)["params"]
    from flax.traverse_util import flatten_dict, unflatten_dict

    flat = flatten_dict(made) | flatten_dict(params)
    added = [path for path in flatten_dict(made) if path[-1].startswith("lora_")]
    assert len(added) == 2 * 2 * 2
    params_with = unflatten_dict(flat)
    plain = jax.jit(module.clone(lora=None).apply)({"params": params}, x_BN, mask_BN)
    adapted = jax.jit(module.apply)({"params": params_with}, x_BN, mask_BN)
    np.testing.assert_array_equal(adapted, plain)
    gradients = jax.jit(
        jax.grad(lambda p: jnp.sin(module.apply({"params": p}, x_BN, mask_BN)).sum())
    )(params_with)
    b = flatten_dict(gradients)[("encoder", "layers", "0", "attention", "q_proj", "lora_b")]
    assert np.abs(b).max() > 0


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        ({"model_type": "hubert"}, "c.json: model_type=hubert: not a wav2vec 2.0 network"),
        ({}, "model_type=None"),
        ({"add_adapter": True}, "add_adapter=True: adapters are not supported"),
        ({"hidden_size": "768"}, "hidden_size=768: must be like 768"),
        ({"hidden_size": 30}, "hidden_size=30: must be a multiple of num_attention_heads=12"),
        ({"conv_dim": [512]}, "conv_stride and conv_kernel need as many entries"),
        ({"hidden_act": "elu"}, "hidden_act=elu: must be one of gelu"),
    ],
)
def test_an_unusable_config_names_the_key(tree, message):
    if tree and "model_type" not in tree:
        tree = {"model_type": "wav2vec2"} | tree
    with pytest.raises(UserError, match=message.replace("(", "\\(")):
        read_architecture(tree, "c.json")
