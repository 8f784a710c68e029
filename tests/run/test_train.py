"""train(): what a run directory holds, which ones are refused, and settings that change a run."""

import csv
import dataclasses
import itertools
import json
import re
import shutil
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn import metrics as reference

from ser_jax.api import train
from ser_jax.augment.epochs import open_epochs
from ser_jax.config import Config
from ser_jax.data.sources import download
from ser_jax.data.splits import draw_split
from ser_jax.data.store import load_corpus
from ser_jax.errors import UserError
from ser_jax.features.batching import cut_batches, take
from ser_jax.features.corpus_features import fit_to_training, load_clips, load_inputs, make_dataset
from ser_jax.machine.cores import name_processor
from ser_jax.run.events import load_events
from ser_jax.systems import network
from ser_jax.systems.build import build
from ser_jax.training.checkpoint import Checkpoints
from ser_jax.training.loop import Diverged
from tests.tiny import Child, make_config, make_template, read_run, read_state
from tests.tolerance import PLATFORM

EMOTIONS = ["neutral", "calm", "happy", "sad", "angry", "fearful", "disgust", "surprised"]


def train_quietly(run_dir: Path, **changes: Any) -> dict[str, Any]:
    keys = {name.replace("__", "."): value for name, value in changes.items()}
    return train(make_config(run_dir, keys), observe=lambda event: None)


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    """A finished run, with figures; not to be changed."""
    run_dir = tmp_path_factory.mktemp("finished") / "run"
    train(make_config(run_dir))
    return run_dir


@pytest.fixture
def copy(finished, tmp_path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "run"))


def list_files(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# What a run writes.


def test_a_run_directory_holds_all_that_a_reader_wants(finished):
    names = {path.name for path in finished.iterdir()}
    assert names == {
        "config.yaml", "metrics.json", "events.jsonl", "predictions.csv", "known_clips.txt",
        "tensorboard", "checkpoints", "figures",
    }  # fmt: skip
    assert {path.name for path in (finished / "figures").iterdir()} == {
        "confusion.png", "curves.png", "groups.png", "spectrogram.png", "spectrogram.npz"
    }  # fmt: skip
    events = load_events(finished)
    assert [event["event"] for event in events] == ["start", "epoch", "epoch", "end"]
    assert [event["epoch"] for event in events[1:3]] == [1, 2]
    metrics = json.loads((finished / "metrics.json").read_text())
    assert metrics["best_epoch"] == events[2]["best_epoch"]
    assert (metrics["protocol"], metrics["seed"], metrics["test"]["labels"]) == (
        "study", 0, EMOTIONS,
    )  # fmt: skip
    kept = {int(path.name) for path in (finished / "checkpoints").iterdir()}
    assert kept == {2, metrics["best_epoch"]}


def predict(run_dir: Path, part: str) -> tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]:
    """True and predicted classes of a part, and its clips' attributes, from the files of a run."""
    config = make_config(run_dir)
    inputs = load_inputs(config.data, config.features)
    corpus = inputs.corpus
    split = draw_split(config.data, config.seed, corpus)
    masked = config.model.mask_padding
    normaliser = fit_to_training(inputs, split.train, config.features, masked)
    _, _, programs = build(config.model, config.train, 8)
    metrics = json.loads((run_dir / "metrics.json").read_text())
    checkpoints = Checkpoints(run_dir / "checkpoints", read_only=True)
    state = checkpoints.load_state(metrics["best_epoch"], make_template(config))
    checkpoints.close()
    index = getattr(split, part)
    logits_BC = programs.predict(
        state.variables, make_dataset(inputs, normaliser), cut_batches(index, 7)
    )
    attributes = {name: values[index] for name, values in corpus.attributes.items()}
    return corpus.emotion_B[index], logits_BC[: len(index)].argmax(1), attributes


def test_predictions_name_each_test_clip_with_its_speaker_and_both_classes(finished):
    config = make_config(finished)
    corpus = load_corpus(config.data)
    index = draw_split(config.data, config.seed, corpus).test
    with (finished / "predictions.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    true_B, predicted_B, attributes = predict(finished, "test")
    assert [row["file"] for row in rows] == [corpus.file_names[clip] for clip in index]
    assert [int(row["actor"]) for row in rows] == corpus.actor_B[index].tolist()
    assert [row["emotion"] for row in rows] == [EMOTIONS[label] for label in true_B]
    assert [row["predicted"] for row in rows] == [EMOTIONS[label] for label in predicted_B]
    for name, values in attributes.items():
        assert [row[name] for row in rows] == values.tolist()


def test_metrics_say_what_computed_them_and_how_many_parameters(finished):
    metrics = json.loads((finished / "metrics.json").read_text())
    params = make_template(make_config(finished)).params
    expected = sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(params))
    assert (metrics["parameters"], metrics["trained_parameters"]) == (expected, expected)
    computer = name_processor() if PLATFORM == "cpu" else jax.devices()[0].device_kind
    assert computer in metrics["device"]
    assert metrics["versions"]["jax"] == jax.__version__


def compute_reference(true_B: np.ndarray, predicted_B: np.ndarray) -> dict[str, float]:
    rest: Any = {"zero_division": 0}
    seen = np.union1d(true_B, predicted_B)
    return {
        "accuracy": reference.accuracy_score(true_B, predicted_B),
        "weighted_f1": reference.f1_score(true_B, predicted_B, average="weighted", **rest),
        "macro_f1": reference.f1_score(true_B, predicted_B, average="macro", labels=seen, **rest),
        "uar": reference.recall_score(
            true_B, predicted_B, average="macro", labels=np.unique(true_B), **rest
        ),
        "n": len(true_B),
    }


@pytest.mark.parametrize("part", ["val", "test"])
def test_every_figure_of_metrics_json_is_scikit_learns(finished, part):
    found = json.loads((finished / "metrics.json").read_text())[part]
    true_B, predicted_B, attributes = predict(finished, part)
    groups = {"emotion": np.array(EMOTIONS)[true_B]} | attributes
    matrix = reference.confusion_matrix(true_B, predicted_B, labels=range(8))
    np.testing.assert_array_equal(found["confusion"], matrix)
    figures = {name: found[name] for name in ("accuracy", "weighted_f1", "macro_f1", "uar", "n")}
    assert figures == pytest.approx(compute_reference(true_B, predicted_B))
    assert set(found["by"]) == {"emotion", "gender", "intensity", "statement"}
    scores: Any = reference.recall_score, reference.precision_score, reference.f1_score
    options: Any = {"average": None, "labels": range(8), "zero_division": 0}
    recall_C, precision_C, f1_C = (score(true_B, predicted_B, **options) for score in scores)
    for name, by_value in found["by"].items():
        assert set(by_value) == set(groups[name])
        for value, figures in by_value.items():
            if name == "emotion":
                at = EMOTIONS.index(value)
                shown = [figures[key] for key in ("accuracy", "precision", "f1", "n")]
                n = int((true_B == at).sum())
                assert shown == pytest.approx([recall_C[at], precision_C[at], f1_C[at], n]), value
                continue
            rows = groups[name] == value
            expected = compute_reference(true_B[rows], predicted_B[rows])
            assert figures == pytest.approx(expected), (name, value)


def test_the_same_seed_gives_the_same_numbers_in_another_process(finished, tmp_path):
    status, output = Child(train_elsewhere, make_config(tmp_path / "run")).wait()
    assert status == 0, output
    assert read_run(tmp_path / "run") == read_run(finished)


def train_elsewhere(config: Config) -> int:
    train(config, observe=lambda event: None)
    return 0


def test_another_seed_gives_other_numbers(finished, tmp_path):
    train_quietly(tmp_path / "run", seed=1, data__split_seed=0)
    best = json.loads((tmp_path / "run" / "metrics.json").read_text())["best_epoch"]
    assert read_state(tmp_path / "run", best) != read_state(finished, best)


# A directory that is there already.


def test_a_finished_run_is_read_and_not_trained_again(copy, monkeypatch):
    monkeypatch.setattr(network, "fit", None)
    before = list_files(copy)
    metrics = train(make_config(copy))
    assert metrics == json.loads((copy / "metrics.json").read_text())
    assert list_files(copy) == before


def test_a_finished_run_without_figures_gets_them(copy, monkeypatch):
    monkeypatch.setattr(network, "fit", None)
    for path in (copy / "figures").glob("*.png"):
        path.unlink()
    train_quietly(copy)
    assert not list((copy / "figures").glob("*.png"))  # a grid draws its own
    train(make_config(copy))
    assert len(list((copy / "figures").glob("*.png"))) == 4


def test_a_run_without_its_metrics_is_scored_from_its_checkpoints(copy, finished):
    (copy / "metrics.json").unlink()
    train_quietly(copy)
    assert read_run(copy) == read_run(finished)


def test_a_run_whose_log_is_ahead_of_its_checkpoint_is_cut_back(copy, finished):
    (copy / "metrics.json").unlink()
    with (copy / "events.jsonl").open("a") as file:
        file.write('{"event": "epoch", "epoch": 3, "step": 9, "train_loss": 1.0}\n{"event": "ep')
    train_quietly(copy)
    assert read_run(copy) == read_run(finished)


def refuse(run_dir: Path, remedy: str, **changes: Any) -> str:
    """The one line with which `train` refuses; nothing in the directory has changed."""
    before = list_files(run_dir)
    with pytest.raises(UserError, match=remedy) as caught:
        train_quietly(run_dir, **changes)
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith((str(run_dir), f"run_dir={run_dir}"))
    assert list_files(run_dir) == before
    return message


def test_another_runs_directory_is_refused(copy):
    message = refuse(copy, "choose another --run_dir", train__batch_size=8)
    assert "holds another run (train.batch_size=16, not 8)" in message


def test_a_folder_that_is_no_run_is_refused(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    assert "no run directory" in refuse(tmp_path, "choose another --run_dir")


def test_a_file_is_no_run_directory(tmp_path):
    path = tmp_path / "file"
    path.write_text("mine")
    assert "no run directory" in refuse(path, "choose another --run_dir")
    with pytest.raises(UserError, match="file"):
        train_quietly(path / "below")
    assert path.read_text() == "mine"


def test_an_empty_folder_will_do(tmp_path, finished):
    train_quietly(tmp_path)
    assert read_run(tmp_path) == read_run(finished)


def test_a_folder_with_nothing_but_its_configuration_is_trained(copy, finished):
    for path in copy.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        elif path.name != "config.yaml":
            path.unlink()
    train_quietly(copy)
    assert read_run(copy) == read_run(finished)


@pytest.mark.parametrize(
    "text", ["", "[1, 2]", "{", "\0", "seed: [1", "train: 3", "train: {epochs: x}", "nothing: 1"]
)
def test_a_damaged_configuration_is_refused(copy, text):
    (copy / "config.yaml").write_text(text)
    assert "config.yaml" in refuse(copy, "run_dir|no such key|no keys below it|is a section")


def test_damaged_metrics_are_refused(copy):
    (copy / "metrics.json").write_text('{"test": ')
    assert "metrics.json" in refuse(copy, "delete it")


def cut_short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def test_damaged_checkpoints_are_refused(copy):
    (copy / "metrics.json").unlink()
    files = sorted(path for path in (copy / "checkpoints").rglob("*") if path.is_file())
    refused = []
    for path, damage in itertools.product(files, (cut_short, Path.unlink)):
        whole = path.read_bytes()
        damage(path)
        try:
            train_quietly(copy)
        except UserError as error:
            refused.append(str(error))
        else:  # nothing that is needed was in it
            (copy / "metrics.json").unlink()
        path.write_bytes(whole)
    assert len(refused) > 2
    for message in refused:
        assert re.match(rf"{copy}/checkpoints/\d+: damaged checkpoint", message)
        assert "; copy it again from where it is whole, or " in message
        assert "\n" not in message


def test_other_recordings_than_before_are_refused(copy, monkeypatch):
    (copy / "metrics.json").unlink()
    config = make_config(copy)
    corpus = load_clips(config.data)
    other = dataclasses.replace(corpus, checksum="0123456789abcdef")
    monkeypatch.setattr(network, "load_clips", lambda *_: other)
    message = refuse(copy, "give the same data.root")
    assert "0123456789abcdef" in message
    assert corpus.checksum in message


@pytest.mark.parametrize(
    "changes",
    [{"data__protocol": "emobox6", "data__fold": 7}, {"data__synthetic_clips": 8},
     {"model__name": "cnn", "model__channels": (4,) * 6}, {"augment__enabled": True,
      "augment__backend": "host", "augment__stretch_min": 0.2}],
)  # fmt: skip
def test_settings_that_cannot_be_trained_leave_nothing_behind(changes, tmp_path):
    with pytest.raises(UserError) as caught:
        train_quietly(tmp_path / "run", **changes)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_a_fold_that_ravdess_lacks_is_refused_before_a_download(monkeypatch, tmp_path):
    downloaded = []
    monkeypatch.setattr(download, "ensure_ravdess", downloaded.append)
    with pytest.raises(UserError, match=r"data.fold=9: data.protocol=luna5 has folds 1 to 5"):
        train_quietly(
            tmp_path / "run", data__corpus="ravdess", data__protocol="luna5", data__fold=9
        )
    assert not downloaded


# Settings.


def test_training_does_not_stop_early_unless_told_to(tmp_path):
    still = {"train__learning_rate": 1e-12, "train__optimizer": "sgd", "train__best_by": "loss"}
    metrics = train_quietly(tmp_path / "off", train__epochs=5, **still)
    assert (metrics["epochs"], metrics["best_epoch"]) == (5, 1)
    metrics = train_quietly(tmp_path / "on", train__epochs=5, train__early_stop_epochs=2, **still)
    assert (metrics["epochs"], metrics["best_epoch"]) == (3, 1)
    epochs = [e["epoch"] for e in load_events(tmp_path / "on") if e["event"] == "epoch"]
    assert epochs == [1, 2, 3]
    (tmp_path / "on" / "metrics.json").unlink()  # gone on with, it stays stopped
    metrics = train_quietly(tmp_path / "on", train__epochs=5, train__early_stop_epochs=2, **still)
    assert metrics["epochs"] == 3


def test_a_profile_is_written_on_request(tmp_path, finished):
    train_quietly(tmp_path / "run", train__profile=2)
    traces = list((tmp_path / "run" / "profile").rglob("*.xplane.pb"))
    assert len(traces) == 1
    assert traces[0].stat().st_size > 1000
    assert read_run(tmp_path / "run") == read_run(finished)
    assert not (finished / "profile").exists()


def test_bfloat16_trains_and_keeps_its_parameters_in_float32(tmp_path, finished):
    metrics = train_quietly(tmp_path / "run", train__dtype="bfloat16")
    config = make_config(tmp_path / "run", {"train.dtype": "bfloat16"})
    checkpoints = Checkpoints(tmp_path / "run" / "checkpoints", read_only=True)
    state = checkpoints.load_state(metrics["best_epoch"], make_template(config))
    checkpoints.close()
    leaves = jax.tree.leaves(state.params)
    assert all(leaf.dtype == jnp.float32 and bool(jnp.isfinite(leaf).all()) for leaf in leaves)
    losses = [e["train_loss"] for e in load_events(tmp_path / "run") if e["event"] == "epoch"]
    full = [e["train_loss"] for e in load_events(finished) if e["event"] == "epoch"]
    assert losses != full
    assert losses == pytest.approx(full, rel=0.02)


def test_a_diverging_run_says_which_key_to_change(tmp_path):
    with pytest.raises(Diverged, match=r"^train\.learning_rate=.*choose a smaller one") as caught:
        train_quietly(tmp_path / "run", train__learning_rate=1e30, train__optimizer="sgd")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run" / "metrics.json").exists()


@pytest.mark.slow
@pytest.mark.parametrize("when", ["epoch", "once"])
def test_augmentation_touches_training_clips_only(when):
    changes = {"augment.enabled": True, "augment.workers": 1, "augment.p": 1.0,
               "augment.when": when, "augment.backend": "host"}  # fmt: skip
    config = make_config(None, changes)
    inputs = load_inputs(config.data, config.features)
    split = draw_split(config.data, config.seed, inputs.corpus)
    normaliser = fit_to_training(inputs, split.train, config.features, False)
    plain = make_dataset(inputs, normaliser)
    with open_epochs(inputs, plain, split.train, config.augment, seed=0, epochs=2) as load_epoch:
        first, second = (np.asarray(load_epoch(epoch).x_BTF) for epoch in (1, 2))
    x_BTF = np.asarray(plain.x_BTF)
    held_out = np.concatenate([split.val, split.test])
    for augmented in (first, second):
        np.testing.assert_array_equal(augmented[held_out], x_BTF[held_out])
        assert (augmented[split.train] != x_BTF[split.train]).any(axis=(1, 2)).all()
    same = (first[split.train] == second[split.train]).all()
    assert same == (when == "once")


def test_what_the_networks_see_of_training_clips_sets_the_scale():
    config = make_config(None)
    inputs = load_inputs(config.data, config.features)
    split = draw_split(config.data, config.seed, load_corpus(config.data))
    normaliser = fit_to_training(inputs, split.train, config.features, False)
    index_B = jnp.asarray(split.train)
    x_BTF = np.asarray(take(make_dataset(inputs, normaliser), index_B).x_BTF)
    np.testing.assert_allclose(x_BTF.mean((0, 1)), 0, atol=1e-3)
    np.testing.assert_allclose(x_BTF.std((0, 1)), 1, atol=1e-3)


@pytest.mark.parametrize("name", ["lstm", "cnn"])
def test_a_streamed_run_ends_as_one_on_the_device(name, tmp_path):
    changes: dict[str, Any] = {"model__name": name, "augment__enabled": name == "lstm"}
    resident = train_quietly(tmp_path / "resident", **changes)
    streamed = train_quietly(tmp_path / "streamed", parallel__placement="stream", **changes)
    assert streamed["test"] == resident["test"]
    assert streamed["best_epoch"] == resident["best_epoch"]


def test_streaming_is_refused_where_it_cannot_be(tmp_path):
    with pytest.raises(UserError, match=r"^parallel\.placement=stream: "):
        train_quietly(tmp_path / "run", parallel__placement="stream", parallel__mode="pmap")
