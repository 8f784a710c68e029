"""A run goes to PyTorch's transformers with its logits, and comes back as a backbone."""

import functools
import json
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from tiny import make_config
from tiny_wav2vec2 import LAYOUTS, SHALLOW, make_architecture, make_torch
from transformers import (
    AutoFeatureExtractor,
    AutoModelForAudioClassification,
    Wav2Vec2FeatureExtractor,
    Wav2Vec2ForPreTraining,
)

import ser_jax
from ser_jax.errors import UserError
from ser_jax.export.hugging_face import export
from ser_jax.inference.predict import predict
from ser_jax.wav2vec2.published import load_architecture
from tests.tolerance import assert_near

WAYS: dict[str, dict[str, Any]] = {
    "as the study": {},
    "masked": {"model.mask_padding": True, "backbone.normalise_before_padding": True},
    "not normalised": {"model.mask_padding": True, "backbone.normalise_before_padding": True},
    "low rank, weighted": {
        "backbone.lora_rank": 2, "backbone.weighted_layers": True, "model.mask_padding": True,
        "backbone.normalise_before_padding": True,
    },
    "normalised after padding": {"model.mask_padding": True, "backbone.freeze": "all"},
}  # fmt: skip


def make_run(run_dir, folder, way):
    keys = {
        "features.kind": "wave", "model.name": "wav2vec2", "backbone.path": str(folder),
        "train.epochs": 1, "train.learning_rate": 1e-2, "backbone.projector": 8,
    }  # fmt: skip
    return make_config(run_dir, keys | WAYS[way])


@pytest.fixture(scope="module")
def get_run(tmp_path_factory):
    """A function of layout and way: the run's folder, trained when it is first asked for."""

    @functools.cache
    def get(layout, way):
        path = tmp_path_factory.mktemp("trained")
        model = make_torch(make_architecture(layout, **SHALLOW), Wav2Vec2ForPreTraining)
        model.save_pretrained(path / "pretrained")
        extract = Wav2Vec2FeatureExtractor(do_normalize=way != "not normalised")
        extract.save_pretrained(path / "pretrained")
        config = make_run(path / "run", path / "pretrained", way)
        ser_jax.train(config, observe=lambda event: None)
        return path / "run"

    return get


@pytest.mark.parametrize("way", list(WAYS)[:4])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_pytorch_gives_the_logits_of_the_run(get_run, tmp_path, capsys, layout, way):
    run_dir = get_run(layout, way)
    capsys.readouterr()
    export(run_dir, tmp_path / "out")
    pads = way == "as the study" or layout == "base"
    assert ("the run pads clips to 16000 samples" in capsys.readouterr().err) == pads
    model = AutoModelForAudioClassification.from_pretrained(tmp_path / "out").eval()
    extract = AutoFeatureExtractor.from_pretrained(tmp_path / "out")
    rng, waves, files = np.random.default_rng(0), [], []
    for number, length in enumerate((16000, 9000, 5000)):
        wave = np.rint(3000 * rng.normal(size=length)).astype(np.int16)
        files.append(tmp_path / f"{number}.wav")
        soundfile.write(files[-1], wave, 16000)
        waves.append(wave.astype(np.float32) / 32768)
    if not extract.return_attention_mask:  # then padding is part of the clip
        waves = [np.pad(wave, (0, 16000 - len(wave))) for wave in waves]
    inputs = extract(waves, sampling_rate=16000, padding=True, return_tensors="pt")
    assert extract.do_normalize == (way != "not normalised")
    assert ("attention_mask" in inputs) == (way != "as the study")
    with torch.no_grad():
        theirs = torch.log_softmax(model(**inputs).logits.double(), -1).numpy()
    found = predict(run_dir, files)
    for row, prediction in zip(theirs, found, strict=True):
        ours = [prediction.probabilities[model.config.id2label[c]] for c in range(8)]
        assert_near(np.log(ours), row, atol=1e-4, why="cudnn")


def test_one_short_clip_is_heard_as_by_the_run_where_the_warning_is_heeded(get_run, tmp_path):
    run_dir = get_run("base", "as the study")
    export(run_dir, tmp_path / "out")
    model = AutoModelForAudioClassification.from_pretrained(tmp_path / "out").eval()
    extract = AutoFeatureExtractor.from_pretrained(tmp_path / "out")
    wave_N = np.rint(3000 * np.random.default_rng(0).normal(size=9000)).astype(np.int16)
    soundfile.write(tmp_path / "a.wav", wave_N, 16000)
    (found,) = predict(run_dir, tmp_path / "a.wav")
    ours = np.log(list(found.probabilities.values()))

    def hear(**padding):
        wave = wave_N.astype(np.float32) / 32768
        inputs = extract(wave, sampling_rate=16000, return_tensors="pt", **padding)
        with torch.no_grad():
            return torch.log_softmax(model(**inputs).logits.double(), -1).numpy()[0]

    theirs = hear(padding="max_length", max_length=extract.max_length, truncation=True)
    assert_near(ours, theirs, atol=1e-4, why="cudnn")
    assert np.abs(ours - hear()).max() > 1e-2  # else there were nothing to warn of


def test_a_run_that_normalises_otherwise_than_the_feature_extractor_is_told(
    get_run, tmp_path, capsys
):
    export(get_run("base", "normalised after padding"), tmp_path / "out")
    said = "the run normalises clips after padding them to 16000 samples"
    assert said in capsys.readouterr().err


def test_exported_run_is_a_backbone_again(get_run, tmp_path):
    run_dir = get_run("base", "as the study")
    folder = export(run_dir, tmp_path / "out")
    assert load_architecture(folder).hidden_size == 32
    config = make_run(tmp_path / "again", folder, "as the study")
    assert ser_jax.train(config, observe=lambda event: None)["epochs"] == 1


def test_folder_that_holds_something_is_left_alone(get_run, tmp_path):
    run_dir = get_run("base", "as the study")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").write_text("kept")
    with pytest.raises(UserError, match="exists and is not empty; name a new folder"):
        export(run_dir, tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["mine"]


def test_run_of_another_network_says_so(tmp_path):
    config = make_config(tmp_path / "run", {"train.epochs": 1})
    ser_jax.train(config, observe=lambda event: None)
    with pytest.raises(UserError, match="a run of lstm, which transformers does not have"):
        export(tmp_path / "run", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_config_names_labels_and_pooling(get_run, tmp_path):
    run_dir = get_run("base", "as the study")
    tree = json.loads((export(run_dir, tmp_path / "out") / "config.json").read_text())
    assert tree["architectures"] == ["Wav2Vec2ForSequenceClassification"]
    assert tree["id2label"]["0"] == "neutral"
    assert tree["label2id"]["surprised"] == 7
    assert tree["classifier_proj_size"] == 8
    assert tree["use_weighted_layer_sum"] is False
