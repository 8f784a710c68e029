"""SVM and HMM: their numbers against scikit-learn, librosa and a forward algorithm, their runs."""

import dataclasses
import itertools
import json
import logging
import shutil
import sys
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import librosa
import numpy as np
import pytest
import soundfile
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from ser_jax.api import ablate, train
from ser_jax.cli.commands import main
from ser_jax.config import AblationConfig, ClassicalConfig, Config, override
from ser_jax.data.splits import draw_split
from ser_jax.data.store import load_corpus
from ser_jax.errors import UserError
from ser_jax.features.batching import Dataset
from ser_jax.features.normaliser import Normaliser
from ser_jax.inference.evaluate import evaluate
from ser_jax.inference.load import load_run
from ser_jax.inference.predict import predict
from ser_jax.run.events import load_events
from ser_jax.systems import svm
from ser_jax.systems.fitted import fit_classical
from ser_jax.systems.fitted_file import FITTED_FILE
from ser_jax.systems.frames import compute_deltas, find_loud_frames, list_frames
from ser_jax.systems.hmm import fit_hmm, score_hmm
from ser_jax.systems.svm import fit_svm, score_svm
from tests.tiny import make_config, make_keys, make_options

pytest.importorskip("hmmlearn", reason="an extra: install '.[classical]'")

SVM: dict[str, Any] = {"model.name": "svm", "data.synthetic_clips": 32}
HMM: dict[str, Any] = {"model.name": "hmm", "data.synthetic_clips": 32, "classical.states": 2}
CASES = {"svm": SVM, "hmm": HMM}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """One finished run of each, made on the command line; not to be changed."""
    folder = tmp_path_factory.mktemp("classical")
    for name, keys in CASES.items():
        assert main(["train", f"--run_dir={folder / name}", *make_options(keys)]) == 0
    return folder


def train_quietly(run_dir: Path, keys: dict[str, Any]) -> dict[str, Any]:
    return train(make_config(run_dir, keys), observe=lambda event: None)


def read_metrics(run_dir: Path) -> dict[str, Any]:
    return json.loads((run_dir / "metrics.json").read_text())


def without_seconds(metrics: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in metrics.items() if key != "seconds"}


# Numbers.


def compute_librosa_statistics(config: Config) -> tuple[np.ndarray, np.ndarray]:
    """Statistics of every clip's own MFCC and deltas by librosa, and the clips' classes."""
    corpus, features = load_corpus(config.data), config.features
    rows = []
    for wave_N, length in zip(corpus.wave_BN, corpus.length_B, strict=True):
        mel_FT = librosa.feature.melspectrogram(
            y=wave_N.astype(np.float32) / 32768, sr=corpus.rate_hz, n_fft=features.n_fft,
            hop_length=features.hop_length, n_mels=features.n_mels,
        )  # fmt: skip
        mfcc_FT = librosa.feature.mfcc(S=librosa.power_to_db(mel_FT), n_mfcc=features.n_mfcc)
        mfcc_FT = mfcc_FT[:, : 1 + length // features.hop_length]
        x_FT = np.vstack([mfcc_FT, librosa.feature.delta(mfcc_FT, mode="nearest")])
        rows.append(np.concatenate([x_FT.mean(1), x_FT.std(1), x_FT.min(1), x_FT.max(1)]))
    return np.stack(rows), corpus.emotion_B


def test_the_svm_decides_like_scikit_learn_on_librosas_features(folder):
    run = load_run(folder / "svm")
    x_BF, label_B = compute_librosa_statistics(run.config)
    corpus = load_corpus(run.config.data)
    split = draw_split(run.config.data, run.config.seed, corpus)
    gamma: Any = 1 / x_BF.shape[1]
    reference = make_pipeline(StandardScaler(), SVC(C=10, gamma=gamma))
    reference.fit(x_BF[split.train], label_B[split.train])
    expected_B = reference.predict(x_BF[split.test])
    assert len(set(expected_B)) > 3
    found_CC = np.array(read_metrics(folder / "svm")["test"]["confusion"])
    expected_CC = np.zeros_like(found_CC)
    np.add.at(expected_CC, (label_B[split.test], expected_B), 1)
    assert np.abs(found_CC - expected_CC).sum() <= 2  # one clip on the border


@pytest.mark.parametrize("n_classes", [2, 3, 5])
@pytest.mark.parametrize("kernel", ["rbf", "linear", "poly"])
def test_the_kept_arrays_score_like_the_fitted_svm(kernel, n_classes):
    rng = np.random.default_rng(0)
    x_BF, label_B = rng.normal(size=(60, 4)) * 3 + 1, np.arange(60) % n_classes
    x_BF[:, 0] += label_B
    settings = ClassicalConfig(kernel=kernel, balanced=True)
    arrays = fit_svm(x_BF, label_B, settings, 2.0)
    scaled_BF = StandardScaler().fit_transform(x_BF)
    keys: Any = {"gamma": 0.25, "break_ties": n_classes > 2}
    svc = SVC(C=2.0, kernel=kernel, class_weight="balanced", **keys)
    svc.fit(scaled_BF, label_B)
    found_BC = score_svm(arrays, x_BF, kernel)
    np.testing.assert_array_equal(found_BC.argmax(1), svc.predict(scaled_BF))
    if n_classes > 2:
        np.testing.assert_allclose(found_BC, svc.decision_function(scaled_BF), atol=1e-9)


@pytest.mark.parametrize("width", [3, 9])
def test_deltas_are_librosas(width):
    x_TF = np.random.default_rng(0).normal(size=(12, 3))
    expected_FT = librosa.feature.delta(x_TF.T, width=width, mode="nearest")
    np.testing.assert_allclose(compute_deltas(x_TF, width), expected_FT.T, atol=1e-12)


def test_a_clip_shorter_than_the_width_has_deltas():
    assert np.isfinite(compute_deltas(np.ones((1, 3)), 9)).all()


def compute_log_likelihood(model: dict[str, np.ndarray], x_TF: np.ndarray) -> float:
    """The forward algorithm, in logarithms, over mixtures of Gaussians of any covariance."""
    K, M, F = model["mean_KMF"].shape
    emission_TK = np.zeros((len(x_TF), K))
    for k, t in itertools.product(range(K), range(len(x_TF))):
        density = 0.0
        for m in range(M):
            cov_FF = model["covariance"][k, m]
            cov_FF = np.diag(cov_FF) if cov_FF.ndim == 1 else cov_FF
            off_F = x_TF[t] - model["mean_KMF"][k, m]
            norm = np.sqrt((2 * np.pi) ** F * np.linalg.det(cov_FF))
            density += (
                model["weight_KM"][k, m] * np.exp(-off_F @ np.linalg.inv(cov_FF) @ off_F / 2) / norm
            )
        emission_TK[t, k] = density
    alpha_K, total = model["start_K"] * emission_TK[0], 0.0
    for emission_K in emission_TK[1:]:
        total += np.log(alpha_K.sum())
        alpha_K = (alpha_K / alpha_K.sum()) @ model["transition_KK"] * emission_K
    return total + np.log(alpha_K.sum())


@pytest.mark.parametrize("topology", ["ergodic", "left_to_right"])
@pytest.mark.parametrize(
    ("mixtures", "covariance"), [(1, "diag"), (1, "full"), (2, "diag"), (2, "full")]
)
def test_the_likelihood_of_a_clip_is_that_of_the_forward_algorithm(topology, mixtures, covariance):
    rng = np.random.default_rng(0)
    clips = [rng.normal(size=(T, 3)) + np.linspace(0, 3, T)[:, None] for T in (9, 14, 11, 8, 20)]
    settings = ClassicalConfig(
        topology=topology, mixtures=mixtures, covariance=covariance, states=3, iterations=4
    )
    arrays = fit_hmm(clips, settings, 0, "calm").arrays
    model = {("covariance" if "cov" in name else name): array for name, array in arrays.items()}
    expected = [compute_log_likelihood(model, x_TF) / len(x_TF) for x_TF in clips]
    of_one = {name.replace("_", "_C", 1): array[None] for name, array in arrays.items()}
    np.testing.assert_allclose(score_hmm(of_one, clips, settings)[:, 0], expected, rtol=1e-8)
    np.testing.assert_allclose(model["transition_KK"].sum(1), 1)
    if topology == "left_to_right":
        np.testing.assert_array_equal(model["start_K"], [1, 0, 0])
        assert not np.tril(model["transition_KK"], -1).any()
        assert model["transition_KK"][0, 2] == 0


def test_an_hmm_finds_the_parts_of_a_clip_in_their_order():
    rng = np.random.default_rng(0)
    clips = [
        np.repeat([0.0, 5.0, -3.0], 8)[:, None] + rng.normal(0, 0.3, (24, 2)) for _ in range(6)
    ]
    settings = ClassicalConfig(topology="left_to_right", states=3)
    fitted = fit_hmm(clips, settings, 0, "calm")
    np.testing.assert_allclose(fitted.arrays["mean_KMF"][:, 0, 0], [0, 5, -3], atol=0.2)
    assert fitted.converged
    assert fitted.iterations < settings.iterations


def test_a_greater_tolerance_ends_sooner():
    rng = np.random.default_rng(0)
    clips = [rng.normal(size=(40, 2)) for _ in range(4)]
    fits = [
        fit_hmm(clips, ClassicalConfig(states=4, tolerance=tolerance), 0, "calm")
        for tolerance in (1e-6, 0.1)
    ]
    assert fits[0].iterations > fits[1].iterations


def test_iterations_used_up_are_no_convergence_and_no_warning(caplog):
    rng = np.random.default_rng(0)
    clips = [rng.normal(size=(30, 2)) for _ in range(4)]
    settings = ClassicalConfig(states=4, iterations=2, tolerance=0)
    with caplog.at_level(logging.DEBUG):
        assert not fit_hmm(clips, settings, 0, "calm").converged
    assert not caplog.records


def test_equal_frames_leave_variance_to_a_state():
    rng = np.random.default_rng(0)
    clips = [np.concatenate([np.zeros((20, 2)), rng.normal(5, 1, (20, 2))]) for _ in range(4)]
    arrays = fit_hmm(clips, ClassicalConfig(states=2), 0, "calm").arrays
    assert arrays["covariance_KMF"].min() > 0.02 * np.concatenate(clips).var()


def make_dataset(x_BTF: np.ndarray, frames_B: list[int]) -> Dataset:
    F = x_BTF.shape[2]
    normaliser = Normaliser(jnp.ones(F), jnp.full(F, 2.0))
    rest: Any = {"frames_B": np.array(frames_B), "label_B": None, "draw": None}
    return Dataset(x_BTF=x_BTF, normaliser=normaliser, **rest)


def test_padding_is_not_read():
    x_BTF = np.random.default_rng(0).normal(size=(2, 12, 3)).astype(np.float32)
    longer_BTF = np.concatenate([x_BTF, np.full((2, 5, 3), 1e3, np.float32)], axis=1)
    index, settings, features = np.arange(2), ClassicalConfig(), Config().features
    found = list_frames(make_dataset(longer_BTF, [12, 7]), index, settings, features)
    expected = list_frames(make_dataset(x_BTF, [12, 7]), index, settings, features)
    assert [len(clip) for clip in found] == [12, 7]
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one, other)
    np.testing.assert_allclose(found[0][:, :3], (x_BTF[0] - 1) / 2, rtol=1e-6)


@pytest.mark.parametrize("kind", ["mfcc", "logmel", "mfcc_chroma"])
def test_silence_at_both_ends_is_left_out(kind):
    assert find_loud_frames(np.array([-70.0, -20, -60, -10, -50]), 30) == slice(1, 4)
    keys = {"features.kind": kind, "features.n_mels": 16, "features.n_mfcc": 2}
    features = override(Config(), keys).features
    db_TF = np.full((9, 16), -80.0, np.float32)
    db_TF[3:6] = -10
    first_T = db_TF.sum(1) / 4  # what an orthonormal DCT makes of 16 equal bands
    x_TF = np.stack([first_T, 0 * first_T], axis=1) if kind != "logmel" else db_TF
    settings = ClassicalConfig(trim_db=30, deltas=0)
    (clip,) = list_frames(make_dataset(x_TF[None], [9]), np.array([0]), settings, features)
    assert len(clip) == 3


def test_the_penalty_is_chosen_on_validation(tmp_path):
    metrics = train_quietly(tmp_path / "run", SVM | {"classical.penalty": (1e-6, 10.0, 1e-5)})
    fits = [event for event in load_events(tmp_path / "run") if event["event"] == "fit"]
    assert [event["penalty"] for event in fits] == [1e-6, 10.0, 1e-5]
    accuracies = [event["val_accuracy"] for event in fits]
    assert accuracies[1] == max(accuracies) > accuracies[0]
    assert metrics["val"]["accuracy"] == accuracies[1]


# Runs.


@pytest.mark.parametrize("name", CASES)
def test_a_run_directory_holds_what_a_networks_does_but_curves_and_checkpoints(folder, name):
    run_dir = folder / name
    assert {path.name for path in run_dir.iterdir()} == {
        "config.yaml", "metrics.json", "events.jsonl", "tensorboard", FITTED_FILE, "figures",
        "predictions.csv",
        "known_clips.txt",
    }  # fmt: skip
    assert {path.name for path in (run_dir / "figures").iterdir()} == {
        "confusion.png", "groups.png", "spectrogram.png", "spectrogram.npz"
    }  # fmt: skip
    events = load_events(run_dir)
    n_fits = {"svm": 1, "hmm": 8}[name]
    assert [event["event"] for event in events] == ["start", *["fit"] * n_fits, "end"]
    metrics = read_metrics(run_dir)
    assert (metrics["model"], metrics["epochs"], metrics["best_epoch"]) == (name, 0, 0)
    assert metrics["test"]["accuracy"] > 0.3  # chance is 1/8
    variables = load_run(run_dir).variables
    assert metrics["parameters"] == sum(array.size for array in variables.values())
    assert len((run_dir / "predictions.csv").read_text().splitlines()) == 1 + metrics["test"]["n"]


@pytest.mark.parametrize("name", CASES)
def test_evaluate_and_predict_find_what_training_found(folder, name, tmp_path, capsys):
    run_dir = folder / name
    metrics = read_metrics(run_dir)
    for part in ("test", "val"):
        assert evaluate(run_dir, split=part) == metrics[part]
    assert main(["evaluate", str(run_dir)]) == 0
    assert f"{metrics['test']['accuracy']:.3f}" in capsys.readouterr().out
    config = load_run(run_dir).config
    corpus = load_corpus(config.data)
    index = draw_split(config.data, config.seed, corpus).test
    files = []
    for clip in index:
        files.append(tmp_path / f"{clip}.wav")
        wave_N = corpus.wave_BN[clip][: corpus.length_B[clip]]
        soundfile.write(files[-1], wave_N, corpus.rate_hz, subtype="PCM_16")
    found = predict(run_dir, files)
    hits = [
        p.label == corpus.labels[corpus.emotion_B[c]] for p, c in zip(found, index, strict=True)
    ]
    assert np.mean(hits) == metrics["test"]["accuracy"]
    for prediction in found:
        assert sum(prediction.probabilities.values()) == pytest.approx(1)
        assert prediction.label == max(prediction.probabilities, key=prediction.probabilities.get)  # pyright: ignore
    assert main(["predict", str(run_dir), str(files[0])]) == 0


@pytest.mark.parametrize("name", CASES)
def test_one_seed_gives_the_same_arrays_and_a_killed_run_is_fitted_anew(folder, name, tmp_path):
    run_dir = Path(shutil.copytree(folder / name, tmp_path / "run"))
    for left in ("metrics.json", FITTED_FILE):
        (run_dir / left).unlink()
    before = load_run(folder / name).variables
    found = train_quietly(run_dir, CASES[name])
    assert without_seconds(found) == without_seconds(read_metrics(folder / name))
    after = load_run(run_dir).variables
    assert before.keys() == after.keys()
    for key, array in before.items():
        np.testing.assert_array_equal(array, after[key])
    assert [event["event"] for event in load_events(run_dir)].count("start") == 1


def test_temperature_makes_validation_likelier(folder):
    run = load_run(folder / "hmm")
    assert run.variables["temperature"] > 0
    assert run.variables["temperature"] != 1


def test_rows_of_a_grid_stand_beside_networks(tmp_path):
    systems: dict[str, Any] = {"cnn": {"model.name": "cnn"}, "svm": SVM, "hmm": HMM}
    keys = make_keys({"data.synthetic_clips": 32, "train.epochs": 1})
    changes = {"out": str(tmp_path), "systems": systems, "seeds": (0,), "workers": 1}
    results = ablate(override(AblationConfig(), keys | changes))
    assert [(cell["system"], cell["status"]) for cell in results["cells"]] == [
        ("cnn", "done"), ("svm", "done"), ("hmm", "done"),
    ]  # fmt: skip
    text = (tmp_path / "results.md").read_text()
    assert all(f"| {name} | study | 0." in text for name in systems)
    assert (tmp_path / "figures" / "confusion-hmm-study.png").exists()
    assert (tmp_path / "figures" / "loss-study.png").exists()  # of the network
    assert (tmp_path / "cells" / "svm-study-1-0" / FITTED_FILE).exists()


# Bad input.


def refuse(capsys, *argv: str) -> str:
    assert main(list(argv)) == 2
    error = capsys.readouterr().err
    assert error.startswith("ser-jax: error: ")
    assert error.count("\n") == 1
    return error.removeprefix("ser-jax: error: ")


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"augment.enabled": "true"}, "augment.enabled=true: model.name=svm is not a network"),
        ({"augment.time_masks": 2}, "augment.time_masks=2: model.name=svm is not a network"),
        ({"train.balanced": "true"}, "train.balanced=true: model.name=svm is not a network"),
        ({"train.profile": 3}, "train.profile=3: model.name=svm is not a network"),
        (
            {"features.kind": "wave"},
            "model.name=svm: requires features.kind=mfcc, mfcc_chroma or logmel",
        ),
        (
            {"classical.penalty": "[]"},
            "classical.penalty=[]: must be a list of one or more positive",
        ),
        ({"classical.penalty": "[1, -1]"}, "classical.penalty=[1.0, -1.0]: must be a list"),
        ({"classical.penalty": "1"}, "classical.penalty=1: must be a list"),
        ({"classical.statistics": "[median]"}, "classical.statistics"),
        ({"classical.delta_width": 4}, "classical.delta_width=4: must be odd"),
        ({"classical.deltas": 3}, "classical.deltas=3: must be 0, 1 or 2"),
        ({"classical.trim_db": 0}, "classical.trim_db=0.0: must be positive, or null"),
        ({"classical.states": 0}, "classical.states=0: must be at least 1"),
        (
            {"classical.covariance": "round"},
            "classical.covariance=round: must be one of diag, full",
        ),
    ],
)
def test_a_setting_without_sense_is_refused_in_one_line(capsys, keys, said):
    options = [f"--{key}={value}" for key, value in keys.items()]
    assert refuse(capsys, "train", "--model.name=svm", *options).startswith(said)


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"classical.states": 500}, "classical.states=500: neutral has "),
        (
            {"classical.states": 30, "classical.topology": "left_to_right"},
            "classical.states=30: a clip of neutral has ",
        ),
    ],
)
def test_too_few_frames_are_said_in_one_line(capsys, tmp_path, keys, said):
    options = make_options(HMM | keys)
    assert refuse(capsys, "train", f"--run_dir={tmp_path / 'run'}", *options).startswith(said)


def test_an_emotion_without_training_clips_is_named(folder):
    config = load_run(folder / "svm").config
    corpus = load_corpus(config.data)
    split = draw_split(config.data, config.seed, corpus)
    split = dataclasses.replace(split, train=split.train[corpus.emotion_B[split.train] != 3])
    rest: Any = {"x_BTF": None, "frames_B": None, "normaliser": None, "draw": None}
    dataset = Dataset(label_B=corpus.emotion_B, **rest)  # pyright: ignore
    with pytest.raises(UserError, match="no training clip of sad; take another split"):
        fit_classical(svm.SVM, config, dataset, split, corpus.labels, lambda event: None)


@pytest.mark.parametrize("damage", ["text", "cut", "pickle", "other", "shape", "nan", "missing"])
def test_a_file_that_is_not_ours_is_refused(folder, tmp_path, capsys, damage):
    run_dir = Path(shutil.copytree(folder / "svm", tmp_path / "run"))
    path = run_dir / FITTED_FILE
    arrays = dict(np.load(path))
    if damage == "text":
        path.write_text("no archive")
    elif damage == "cut":
        path.write_bytes(path.read_bytes()[:-100])
    elif damage == "pickle":
        np.savez(path, allow_pickle=True, **(arrays | {"gamma": np.array([{}], object)}))
    elif damage == "other":
        shutil.copy(folder / "hmm" / FITTED_FILE, path)
    elif damage == "shape":
        np.savez(path, **(arrays | {"mean_F": arrays["mean_F"][:-1]}))
    elif damage == "nan":
        np.savez(path, **(arrays | {"intercept_P": arrays["intercept_P"] * np.nan}))
    else:
        path.unlink()
    error = refuse(capsys, "evaluate", str(run_dir))
    said = "holds no fitted svm yet" if damage == "missing" else f"{path}: damaged, or no svm of"
    assert said in error


def test_another_configuration_than_was_fitted_is_refused(folder, tmp_path, capsys):
    run_dir = Path(shutil.copytree(folder / "svm", tmp_path / "run"))
    path = run_dir / "config.yaml"
    path.write_text(path.read_text().replace("seed: 0", "seed: 1"))
    assert "says another run" in refuse(capsys, "evaluate", str(run_dir))


def test_export_of_an_svm_is_refused_in_one_line(folder, tmp_path, capsys):
    argv = ["export", str(folder / "svm"), str(tmp_path / "out"), "--format=transformers"]
    assert "a run of svm, which transformers does not have" in refuse(capsys, *argv)


def test_an_hmm_without_hmmlearn_names_the_command(monkeypatch, tmp_path, capsys):
    monkeypatch.setitem(sys.modules, "hmmlearn.hmm", None)
    argv = ["train", f"--run_dir={tmp_path / 'run'}", *make_options(HMM)]
    assert "pip install 'ser-jax[classical]'" in refuse(capsys, *argv)
