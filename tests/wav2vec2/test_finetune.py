"""Fine-tuning trains what the settings say, computes what is frozen once, and stands on its own."""

import dataclasses
import functools
import json
import shutil
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict
from tiny import make_config, make_keys, make_options
from tiny_wav2vec2 import SHALLOW, make_architecture, make_torch
from transformers import Wav2Vec2ForPreTraining

import ser_jax
from ser_jax.cli.commands import main
from ser_jax.config import BackboneConfig, ModelConfig, TrainConfig
from ser_jax.errors import UserError
from ser_jax.features.batching import Batch, cut_batches, cut_buckets
from ser_jax.features.corpus_features import load_inputs
from ser_jax.inference.evaluate import evaluate
from ser_jax.run.events import load_events
from ser_jax.systems.networks import make_model
from ser_jax.training.optimizer import make_optimizer, make_schedule
from ser_jax.training.state import init_state, merge_params
from ser_jax.training.step import train_step
from ser_jax.wav2vec2.architecture import BackboneSpec
from ser_jax.wav2vec2.finetune import choose_entry, init_params, prepare_backbone
from ser_jax.wav2vec2.frozen_parts import is_frozen, split_params
from tests.tolerance import assert_near

QUIET = {f"backbone.{name}": 0.0 for name in
         ("hidden_dropout", "attention_dropout", "activation_dropout", "layer_drop",
          "mask_time_prob")}  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save_network("base", tmp_path_factory.mktemp("pretrained") / "it")


def save_network(layout, path):
    architecture = make_architecture(layout, **SHALLOW)
    make_torch(architecture, Wav2Vec2ForPreTraining).save_pretrained(path)
    return path


def make_run(folder, run_dir, **changes):
    keys = {"features.kind": "wave", "model.name": "wav2vec2", "backbone.path": str(folder),
            "backbone.projector": 8, "train.learning_rate": 1e-3}  # fmt: skip
    return make_config(run_dir, keys | changes)


def train_quietly(config):
    """Train without figures."""
    return ser_jax.train(config, observe=lambda event: None)


def make_spec(layout="base", settings=None, **changes):
    return BackboneSpec(make_architecture(layout, **changes), BackboneConfig(**settings or {}))


CONVOLUTION = ("backbone", "feature_extractor", "conv_layers", "0", "conv", "kernel")
PROJECTION = ("backbone", "feature_projection", "projection", "kernel")
POSITION = ("backbone", "encoder", "pos_conv_embed", "conv", "weight_v")
LAYERS = [("backbone", "encoder", "layers", str(n), "layer_norm", "scale") for n in range(3)]
LAST_NORM = ("backbone", "encoder", "layer_norm", "scale")
LORA = ("backbone", "encoder", "layers", "0", "attention", "q_proj", "lora_a")
HEAD = ("projector", "kernel")


@pytest.mark.parametrize(
    ("settings", "layout", "trained"),
    [
        ({}, "base", [PROJECTION, POSITION, *LAYERS, LAST_NORM, HEAD]),
        ({"freeze": "none"}, "base", [CONVOLUTION, PROJECTION, POSITION, *LAYERS, LAST_NORM, HEAD]),
        ({"freeze": "all"}, "base", [HEAD]),
        ({"freeze_layers": 2}, "base", [LAYERS[2], HEAD]),
        ({"freeze_layers": 2}, "large", [LAYERS[2], LAST_NORM, HEAD]),
        ({"lora_rank": 2}, "base", [LORA, HEAD]),
    ],
)
def test_settings_say_what_is_trained(settings, layout, trained):
    spec = make_spec(layout, settings)
    paths = [CONVOLUTION, PROJECTION, POSITION, *LAYERS, LAST_NORM, LORA, HEAD]
    found = [path for path in paths if not is_frozen(path, spec)]
    assert [path for path in found if path != LORA or settings.get("lora_rank")] == trained


def test_trained_and_frozen_parameters_together_are_all_parameters():
    spec = make_spec(settings={"lora_rank": 2}, **SHALLOW)
    config = ModelConfig(name="wav2vec2")
    params = init_params(config, spec, 8, 0, None)
    trained, frozen = split_params(params, spec)
    assert not set(flatten_dict(trained)) & set(flatten_dict(frozen))
    whole = flatten_dict(merge_params(trained, frozen))
    assert set(whole) == set(flatten_dict(params))


@pytest.mark.parametrize(
    ("changes", "entry"),
    [
        ({}, "features"),
        ({"backbone.freeze": "all"}, "pooled"),
        ({"backbone.freeze": "none"}, "wave"),
        ({"backbone.cache": False}, "wave"),
        ({"augment.enabled": True}, "wave"),
    ],
)
def test_frozen_parts_are_computed_once_without_augmentation(folder, changes, entry):
    assert choose_entry(make_run(folder, None, **changes)) == entry


POOLED = {"backbone.freeze": "all", "backbone.weighted_layers": True}


def make_quiet_run(folder, run_dir, masked=False, **changes):
    """No dropout and plain SGD: what computes the same function has the same losses."""
    keys = QUIET | {
        "model.mask_padding": masked, "backbone.normalise_before_padding": masked,
        "train.optimizer": "sgd", "train.learning_rate": 0.05,
    }  # fmt: skip
    return make_run(folder, run_dir, **keys | changes)


@pytest.fixture(scope="module")
def get_quiet_results(folder, tmp_path_factory):
    """A function of settings: accuracy and losses of their run, trained when first asked for."""

    @functools.cache
    def get(*, cache, pooled=False, masked=False):
        run_dir = tmp_path_factory.mktemp("quiet") / "run"
        changes = (POOLED if pooled else {}) | {"backbone.cache": cache}
        metrics = train_quietly(make_quiet_run(folder, run_dir, masked=masked, **changes))
        return metrics["test"]["accuracy"], load_losses(run_dir)

    return get


def load_losses(run_dir):
    """Those of training and validation, of each epoch."""
    epochs = [event for event in load_events(run_dir) if event["event"] == "epoch"]
    return [[event["train_loss"], event["val_loss"]] for event in epochs]


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("pooled", [False, True])
def test_training_on_cached_features_equals_training_on_samples(get_quiet_results, pooled, masked):
    results = [
        get_quiet_results(cache=cache, pooled=pooled, masked=masked) for cache in (True, False)
    ]
    accuracies, losses = zip(*results, strict=True)
    assert accuracies[0] == accuracies[1]
    assert_near(*losses, rtol=1e-5, why="cudnn")


def test_a_run_does_not_need_the_checkpoint_it_started_from(folder, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    changes: dict[str, Any] = {"train.epochs": 1}
    metrics = train_quietly(make_quiet_run(copy, tmp_path / "run", **changes))
    shutil.rmtree(copy)
    report = evaluate(tmp_path / "run")
    assert report["accuracy"] == metrics["test"]["accuracy"]


def test_checkpoints_hold_only_trained_parameters(folder, tmp_path):
    changes = {"train.epochs": 1, "backbone.freeze": "all"}
    train_quietly(make_run(folder, tmp_path / "run", **changes))
    small = sum(p.stat().st_size for p in (tmp_path / "run" / "checkpoints").rglob("*"))
    kept = (tmp_path / "run" / "backbone" / "frozen.safetensors").stat().st_size
    assert small < kept


def test_a_random_start_takes_only_the_sizes(folder, tmp_path):
    made = []
    for pretrained in (True, False):
        config = make_run(folder, None, **{"backbone.pretrained": pretrained})
        prepared = prepare_backbone(config, load_inputs(config.data, config.features))
        params = merge_params(prepared.variables["params"], prepared.kept)
        made.append(flatten_dict(params))
    assert {p: a.shape for p, a in made[0].items()} == {p: a.shape for p, a in made[1].items()}
    assert np.abs(made[0][PROJECTION] - made[1][PROJECTION]).max() > 0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"backbone.path": None}, "backbone.path: missing; name a folder"),
        ({"backbone.path": "/no/such"}, "backbone.path=/no/such: no such folder"),
        ({"data.rate_hz": 8000}, "data.rate_hz=8000: "),
        ({"backbone.freeze_layers": 9}, "backbone.freeze_layers=9: the network has 2 layers"),
        ({"backbone.attention": "fused", "backbone.attention_dropout": 0.1},
         "backbone.attention=fused: has no dropout of attention weights"),
        ({"backbone.attention": "fused", "backbone.attention_dropout": 0.0},
         "backbone.attention=fused: needs an NVIDIA GPU"),
        ({"features.kind": "mfcc"}, "model.name=wav2vec2: requires features.kind=wave"),
        ({"model.name": "lstm"},
         "model.name=lstm: requires features.kind=mfcc, mfcc_chroma or logmel"),
        ({"backbone.freeze": "all", "backbone.lora_rank": 2}, "backbone.lora_rank=2: has no eff"),
        ({"backbone.layer_drop": 1.0}, "backbone.layer_drop=1.0: must lie in [0, 1)"),
        ({"backbone.lora_targets": ("x",)}, "backbone.lora_targets=x: must be of q_proj"),
        ({"train.warmup": 1.0}, "train.warmup=1.0: must lie in [0, 1)"),
        ({"train.buckets": 2}, "train.buckets=2: requires model.mask_padding=true"),
    ],
)  # fmt: skip
def test_bad_settings_say_which_key(folder, tmp_path, changes, message):
    with pytest.raises(UserError) as caught:
        ser_jax.train(make_run(folder, tmp_path / "run", **changes))
    assert message in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_command_line_trains_evaluates_and_exports(folder, tmp_path, capsys):
    options = make_options({
        "features.kind": "wave", "model.name": "wav2vec2", "backbone.path": str(folder),
        "train.epochs": 1, "backbone.lora_rank": 2,
    })  # fmt: skip
    assert main(["train", *options, f"--run_dir={tmp_path / 'run'}"]) == 0
    assert main(["evaluate", str(tmp_path / "run")]) == 0
    assert main(["export", str(tmp_path / "run"), str(tmp_path / "out")]) == 0
    assert "model.safetensors" in capsys.readouterr().out
    assert main(["export", str(tmp_path / "run"), str(tmp_path / "out")]) == 2


@pytest.fixture(scope="module")
def step_case():
    """A small network of no batch norm under plain SGD, a ragged batch, and a step of training."""
    model = make_model(ModelConfig(name="lstm", hidden=8, dense=(8,)), 8)
    tx = make_optimizer(TrainConfig(optimizer="sgd", learning_rate=0.5))
    init = functools.partial(init_state, model, tx, seed=0, n_frames=6, n_features=3, dropout=0.0)
    rng = np.random.default_rng(1)
    batch = Batch(
        jnp.asarray(rng.normal(size=(8, 6, 3)).astype(np.float32)),
        jnp.asarray(np.ones((8, 6), bool)),
        jnp.asarray(rng.integers(0, 8, 8)),
        jnp.asarray((np.arange(8) < 5).astype(np.float32)),
    )

    @functools.partial(jax.jit, static_argnums=1)
    def step(state, parts):
        return train_step(state, batch, model=model, tx=tx, accumulate=parts)

    return tx, jax.jit(init)(), step


@pytest.mark.parametrize("parts", [2, 4])
def test_a_batch_computed_in_parts_equals_the_whole_batch(step_case, parts):
    _, state, step = step_case
    results = [step(state, n) for n in (1, parts)]
    for a, b in zip(*(jax.tree.leaves((s.params, sums)) for s, sums in results), strict=True):
        assert_near(a, b, atol=1e-6, why="cudnn")


def test_frozen_parameters_are_used_and_unchanged(step_case):
    tx, state, step = step_case
    trained = {name: leaf for name, leaf in state.params.items() if name != "lstm"}
    frozen = {"lstm": state.params["lstm"]}
    part = dataclasses.replace(state, params=trained, frozen=frozen, opt_state=tx.init(trained))
    whole, _ = step(state, 1)
    after, _ = step(part, 1)
    assert set(after.params) == set(trained)
    for name in trained:
        for a, b in zip(
            jax.tree.leaves(after.params[name]), jax.tree.leaves(whole.params[name]), strict=True
        ):
            assert_near(a, b, atol=1e-7, why="cudnn")
    assert set(after.variables["params"]) == set(state.params)


def test_the_learning_rate_rises_then_falls_to_zero():
    schedule = make_schedule(TrainConfig(schedule="linear", warmup=0.2), 100)
    rates = np.array([float(schedule(step)) for step in range(101)])
    assert rates.argmax() in (19, 20)
    assert rates[0] == pytest.approx(1 / 20)
    assert rates.max() == 1
    assert rates[100] == 0
    assert (np.diff(rates[:20]) > 0).all()
    assert (np.diff(rates[20:]) < 0).all()
    constant = make_schedule(TrainConfig(warmup=0.1), 10)
    assert [float(constant(step)) for step in range(4)] == [1, 1, 1, 1]


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_the_backbone_has_its_own_learning_rate(optimizer):
    train = TrainConfig(optimizer=optimizer, learning_rate=0.1, backbone_learning_rate=0.01)
    tx: Any = make_optimizer(train)
    params = {"backbone": {"w": jnp.ones(3)}, "classifier": {"w": jnp.ones(3)}}
    updates, _ = tx.update(jax.tree.map(jnp.ones_like, params), tx.init(params), params)
    ratio = updates["classifier"]["w"] / updates["backbone"]["w"]
    assert_near(ratio, 10, rtol=1e-5, why="cudnn")


def test_weight_decay_and_clipping_act():
    params = {"classifier": {"w": jnp.ones(3)}}
    zeros = jax.tree.map(jnp.zeros_like, params)
    decay: Any = make_optimizer(TrainConfig(learning_rate=0.1, weight_decay=0.5))
    updates, _ = decay.update(zeros, decay.init(params), params)
    assert_near(updates["classifier"]["w"], -0.05, rtol=1e-5, why="cudnn")
    clip: Any = make_optimizer(TrainConfig(optimizer="sgd", learning_rate=1.0, clip_norm=1.0))
    great = jax.tree.map(lambda w: 100 * w, params)
    updates, _ = clip.update(great, clip.init(params), params)
    assert_near(np.linalg.norm(updates["classifier"]["w"]), 1, rtol=1e-5, why="cudnn")


def test_buckets_hold_every_clip_once_with_others_of_its_length():
    rng = np.random.default_rng(0)
    frames_B = rng.integers(10, 100, 50)
    order = rng.permutation(40)
    batches = cut_buckets(order, frames_B, 3, lambda index: cut_batches(index, 4))
    clips = np.concatenate([row[row >= 0] for _, row in batches])
    assert sorted(clips) == list(range(40))
    for n_frames, row in batches:
        assert frames_B[row[row >= 0]].max() <= n_frames
    assert len({n_frames for n_frames, _ in batches}) == 3


def test_a_run_with_buckets_trains_like_one_without(folder, tmp_path):
    """Layer norms do not see padding, so lengths change nothing but the order of the batches."""
    large = save_network("large", tmp_path / "large")
    changes = QUIET | {
        "model.mask_padding": True, "backbone.normalise_before_padding": True,
        "train.batch_size": 64, "train.optimizer": "sgd", "train.buckets": 2,
    }  # fmt: skip
    metrics = train_quietly(make_run(large, tmp_path / "run", **changes))
    assert np.isfinite(metrics["test"]["accuracy"])


def test_a_grid_of_heads_trains_like_its_cells_one_by_one(folder, tmp_path):

    from ser_jax.api import ablate
    from ser_jax.config import AblationConfig, override

    keys = make_keys({
        "features.kind": "wave", "model.name": "wav2vec2", "backbone.path": str(folder),
        "backbone.projector": 8, "backbone.freeze": "all", "backbone.weighted_layers": True,
        "train.optimizer": "sgd", "train.learning_rate": 0.05,
    })  # fmt: skip
    grid = override(AblationConfig(), keys | {
        "systems": {"heads": {}}, "seeds": (0, 1), "batching": "vmap",
        "out": str(tmp_path / "grid"),
    })  # fmt: skip
    ablate(grid)
    found = [
        json.loads(path.read_text()) for path in sorted((tmp_path / "grid").rglob("metrics.json"))
    ]
    assert [metrics["seed"] for metrics in found] == [0, 1]
    for metrics in found:
        seed = {"seed": metrics["seed"]}
        alone = train_quietly(override(make_config(tmp_path / f"{seed}", keys), seed))
        assert alone["test"]["accuracy"] == metrics["test"]["accuracy"]
        assert alone["best_epoch"] == metrics["best_epoch"]


@pytest.mark.parametrize("entry", ["wave", "features"])
def test_a_mesh_trains_like_one_device(get_quiet_results, folder, tmp_path, entry):
    """In two parts a batch, moreover, and one device takes it whole."""
    cache = entry == "features"
    changes = {"backbone.cache": cache, "train.accumulate": 2, "parallel.mode": "mesh"}
    train_quietly(make_quiet_run(folder, tmp_path / "run", **changes))
    _, losses = get_quiet_results(cache=cache)
    assert_near(load_losses(tmp_path / "run"), losses, rtol=1e-5, why="cudnn")
