"""Configs: checked as they are made, overridden by key, told apart by what decides a run."""

import dataclasses
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ser_jax.config import (
    AblationConfig,
    AugmentConfig,
    Config,
    DataConfig,
    FeaturesConfig,
    ModelConfig,
    TrainConfig,
    compute_identity,
    flatten,
    override,
    to_dict,
)
from ser_jax.errors import UserError


def test_defaults_are_the_studys_protocol():
    config = Config()
    assert config.data.protocol == "study"
    assert (config.train.epochs, config.train.batch_size, config.train.optimizer) == (
        10,
        32,
        "adam",
    )
    assert config.train.learning_rate == 1e-3
    assert config.train.early_stop_epochs == 0
    assert config.model.channels == (64, 64, 128, 128)
    assert (config.model.hidden, config.model.dense, config.model.dropout) == (256, (128,), 0.2)
    assert not config.model.mask_padding
    augment = config.augment
    assert (augment.noise_min, augment.noise_max) == (0.001, 0.015)
    assert (augment.stretch_min, augment.stretch_max) == (0.8, 1.2)
    assert (augment.pitch_min, augment.pitch_max) == (-4, 4)
    assert (augment.shift_min_s, augment.shift_max_s) == (-0.5, 0.5)
    assert augment.p == 0.5


@pytest.mark.parametrize(
    ("kind", "key", "value"),
    [
        (DataConfig, "rate_hz", 100),
        (DataConfig, "fold", 0),
        (DataConfig, "clip_s", 0.0),
        (DataConfig, "trim_db", 0.0),
        (DataConfig, "trim_margin_s", -0.1),
        (DataConfig, "synthetic_actors", 25),
        (DataConfig, "synthetic_clips", 61),
        (DataConfig, "workers", 0),
        (AugmentConfig, "workers", 0),
        (FeaturesConfig, "n_fft", 8),
        (FeaturesConfig, "hop_length", 0),
        (FeaturesConfig, "n_mfcc", 129),
        (FeaturesConfig, "top_db", 0.0),
        (FeaturesConfig, "fmin_hz", -1.0),
        (AugmentConfig, "p", 1.5),
        (AugmentConfig, "noise_min", 0.5),
        (AugmentConfig, "stretch_min", 0.0),
        (AugmentConfig, "pitch_max", 30.0),
        (AugmentConfig, "time_masks", -1),
        (AugmentConfig, "band_mask_bands", -1),
        (AugmentConfig, "feature_shift_frames", -1),
        (AugmentConfig, "time_warp", 0.6),
        (AugmentConfig, "band_warp", float("nan")),
        (ModelConfig, "dropout", 1.0),
        (ModelConfig, "hidden", 0),
        (ModelConfig, "layers", 0),
        (ModelConfig, "scales", ()),
        (ModelConfig, "patch", (16, 0)),
        (ModelConfig, "channels", ()),
        (ModelConfig, "dense", (128, 0)),
        (ModelConfig, "norm_momentum", 1.0),
        (ModelConfig, "norm_epsilon", 0.0),
        (TrainConfig, "epochs", 0),
        (TrainConfig, "learning_rate", 0.0),
        (TrainConfig, "learning_rate", float("nan")),
        (TrainConfig, "early_stop_epochs", -1),
        (TrainConfig, "label_smoothing", 1.0),
        (TrainConfig, "mixup", -0.1),
        (TrainConfig, "focal_gamma", float("inf")),
        (TrainConfig, "average_decay", 1.0),
        (Config, "seed", -1),
        (Config, "seed", 20240101123456),
        (DataConfig, "split_seed", 2**32),
        (AblationConfig, "seeds", (0, -1)),
    ],
)
def test_a_value_out_of_range_is_refused_by_name(kind, key, value):
    with pytest.raises(UserError, match=key) as caught:
        kind(**{key: value})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("value", [float("inf"), float("nan")])
@pytest.mark.parametrize("section", ["data", "features", "augment", "model", "train", "classical"])
def test_no_number_may_be_infinite_or_nan(section, value):
    flat = flatten(to_dict(getattr(Config(), section)))
    keys = [key for key, default in flat.items() if isinstance(default, float)]
    assert keys
    for key in keys:
        with pytest.raises(UserError, match=rf"{section}\."):
            override(Config(), {f"{section}.{key}": value})


def test_mel_bands_above_half_the_rate_are_refused():
    with pytest.raises(UserError, match=r"features\.fmax_hz=9000"):
        Config(features=FeaturesConfig(fmax_hz=9000.0))
    Config(data=DataConfig(rate_hz=22050), features=FeaturesConfig(fmax_hz=9000.0))


@pytest.mark.parametrize(
    "key", ["time_masks", "band_masks", "feature_shift_frames", "time_warp", "band_warp"]
)
def test_augmentation_of_features_is_refused_where_there_are_none(key):
    changes = {"model.name": "wav2vec2", "features.kind": "wave"}
    with pytest.raises(
        UserError, match=rf"augment\.{key}: requires features\.kind=mfcc, mfcc_chroma or logmel"
    ):
        override(Config(), changes | {f"augment.{key}": 0.5 if "warp" in key else 1})
    override(Config(), changes | {"train.mixup": 0.2, "augment.time_mask_frames": 3})


def test_a_config_cannot_be_changed_in_place():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Config().seed = 3  # pyright: ignore[reportAttributeAccessIssue]


def test_override_changes_dotted_keys_and_nothing_else():
    before = Config()
    after = override(before, {"train.epochs": 3, "seed": 5, "model.channels": [8, 16]})
    assert (after.train.epochs, after.seed, after.model.channels) == (3, 5, (8, 16))
    changed = {key for key, value in flatten(to_dict(after)).items()
               if flatten(to_dict(before))[key] != value}  # fmt: skip
    assert changed == {"train.epochs", "seed", "model.channels"}
    assert before == Config()


@pytest.mark.parametrize("key", ["train.epoch", "seeed", "seed.x", "foo.bar"])
def test_override_refuses_a_key_that_does_not_exist(key):
    with pytest.raises(UserError, match=key.removeprefix("train.")):
        override(Config(), {key: 1})


def test_override_checks_keys_together_not_in_their_order():
    changes = {"features.n_mels": 16, "features.n_mfcc": 8}  # 16 mels alone are less than 20 MFCC
    features = override(Config(), changes).features
    assert (features.n_mels, features.n_mfcc) == (16, 8)


def test_override_checks_ranges_again():
    with pytest.raises(UserError, match=r"train\.epochs=0"):
        override(Config(), {"train.epochs": 0})


@pytest.mark.parametrize(
    "changes",
    [{"run_dir": "a"}, {"data.root": "/a"}, {"data.store_dir": "/b"}, {"data.workers": 3},
     {"augment.workers": 2}, {"train.profile": 4}],
)  # fmt: skip
def test_where_and_how_fast_a_run_works_is_no_part_of_its_identity(changes):
    assert compute_identity(override(Config(), changes)) == compute_identity(Config())


def test_every_setting_that_decides_a_result_changes_the_identity():
    changes = {
        "seed": 1, "data.rate_hz": 22050, "data.fold": 2, "data.split_seed": 0,
        "features.n_mfcc": 13, "features.top_db": None, "augment.enabled": True,
        "model.name": "cnn", "model.mask_padding": True,
        "train.epochs": 50, "train.dtype": "bfloat16",
        "train.label_smoothing": 0.1, "train.mixup": 0.2, "train.focal_gamma": 2.0,
        "train.balanced": True, "train.average_decay": 0.9, "augment.time_masks": 1,
        "augment.time_mask_frames": 10, "augment.band_masks": 1, "augment.band_mask_bands": 3,
        "augment.feature_shift_frames": 4, "augment.time_warp": 0.1, "augment.band_warp": 0.1,
    }  # fmt: skip
    identities = {compute_identity(override(Config(), {k: v})) for k, v in changes.items()}
    assert len(identities | {compute_identity(Config())}) == len(changes) + 1


keys = st.text("abc", min_size=1, max_size=3)
trees = st.recursive(
    st.dictionaries(keys, st.integers(), min_size=1),
    lambda inner: st.dictionaries(keys, inner, min_size=1),
)


@given(trees)
def test_flatten_keeps_every_leaf_under_its_path(tree):
    flat = flatten(tree)
    for dotted, leaf in flat.items():
        value = tree
        for key in dotted.split("."):
            value = value[key]
        assert value == leaf
    n_leaves = json.dumps(tree).count(":") - json.dumps(tree).count("{") + 1
    assert len(flat) == n_leaves


def test_to_dict_is_plain_enough_for_json_and_yaml():
    tree = to_dict(AblationConfig(systems={"cnn": {"model.name": "cnn"}}))
    assert json.loads(json.dumps(tree)) == tree
    assert tree["systems"] == {"cnn": {"model.name": "cnn"}}
