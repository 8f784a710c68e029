"""Normalisation by clip, speaker and corpus: NumPy's figures, gains undone, everywhere the same."""

import csv
import dataclasses
import functools
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import soundfile

import ser_jax
from ser_jax.api import ablate
from ser_jax.augment.waveform import make_take_augmented
from ser_jax.config import (
    AblationConfig,
    AugmentConfig,
    Config,
    FeaturesConfig,
    compute_identity,
    override,
)
from ser_jax.data.corpus import Corpus
from ser_jax.data.store import load_corpus
from ser_jax.errors import UserError
from ser_jax.features.batching import take
from ser_jax.features.cmvn import compute_statistics, normalise_clips
from ser_jax.features.corpus_features import compute_inputs, fit_to_training, make_dataset
from ser_jax.features.frontend import make_front_end
from ser_jax.features.normaliser import Normaliser
from ser_jax.inference import evaluate as evaluate_module
from ser_jax.inference.evaluate import evaluate, measure
from ser_jax.inference.load import load_run
from ser_jax.inference.normalising import fit_to_windows
from ser_jax.inference.predict import predict

RATE_HZ = 8000
FEATURES = FeaturesConfig(hop_length=512, n_fft=1024, n_mels=16, n_mfcc=8)
KINDS = ("clip", "speaker", "corpus")
SETTINGS = {
    "data.corpus": "synthetic", "data.synthetic_actors": 4, "data.synthetic_clips": 16,
    "data.rate_hz": RATE_HZ, "features.hop_length": 1024, "features.n_fft": 1024,
    "model.name": "lstm", "model.hidden": 8, "model.dense": [8], "train.epochs": 1,
}  # fmt: skip


def make_corpus(gains: tuple[float, ...] = (1.0, 0.1), n_samples: int = 6000) -> Corpus:
    """The same four clips by each speaker, at another gain; zeros after 4000 to 5500 samples."""
    rng = np.random.default_rng(0)
    length_B = np.array([4000, 4500, 5000, 5500] * len(gains), np.int32)
    wave_BN = np.zeros((4 * len(gains), n_samples))
    wave_BN[:, :6000] = np.tile(rng.normal(0, 3000, (4, 6000)), (len(gains), 1))
    wave_BN = np.rint(wave_BN * np.repeat(gains, 4)[:, None]).astype(np.int16)
    wave_BN[np.arange(n_samples) >= length_B[:, None]] = 0
    n_clips = len(wave_BN)
    return Corpus(
        name="made", rate_hz=RATE_HZ, labels=("happy", "sad"), wave_BN=wave_BN, length_B=length_B,
        emotion_B=np.arange(n_clips, dtype=np.int32) % 2,
        actor_B=np.repeat(np.arange(1, len(gains) + 1), 4).astype(np.int32),
        attributes={"corpus": np.repeat(["a", "b", "b"][: len(gains)], 4)},
        file_names=tuple(map(str, range(n_clips))), checksum="made",
        speakers=tuple(f"s{number}" for number in range(len(gains))),
    )  # fmt: skip


def compute_own(corpus: Corpus, kind: Any, *, masked: bool = True):
    features = dataclasses.replace(FEATURES, normalise=kind)
    return compute_inputs(corpus, features, masked=masked)


@pytest.mark.parametrize("masked", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_features_are_normalised_as_numpy_does_it(kind, masked):
    corpus = make_corpus((1.0, 0.1, 0.5))
    raw = compute_inputs(corpus, FEATURES)
    groups = {"clip": np.arange(12), "speaker": corpus.actor_B,
              "corpus": corpus.attributes["corpus"]}[kind]  # fmt: skip
    T = raw.x_BTF.shape[1]
    real_BT = np.arange(T) < (raw.frames_B if masked else np.full(12, T))[:, None]
    expected = np.empty_like(raw.x_BTF)
    for group in np.unique(groups):
        here_B = groups == group
        row_RF = raw.x_BTF[here_B][real_BT[here_B]].astype(np.float64)
        expected[here_B] = (raw.x_BTF[here_B] - row_RF.mean(0)) / row_RF.std(0)
    found = compute_own(corpus, kind, masked=masked)
    np.testing.assert_allclose(found.x_BTF, expected, atol=2e-4)


@pytest.mark.parametrize("kind", ["clip", "speaker"])
def test_speakers_of_different_gain_become_alike(kind):
    raw = compute_inputs(make_corpus(), FEATURES).x_BTF
    made = compute_own(make_corpus(), kind)
    for clip, frames in enumerate(made.frames_B[:4]):
        loud_TF, soft_TF = (x_BTF[clip, :frames] for x_BTF in (raw, raw[4:]))
        assert np.abs(loud_TF - soft_TF).max() > 10
        loud_TF, soft_TF = (x_BTF[clip, :frames] for x_BTF in (made.x_BTF, made.x_BTF[4:]))
        np.testing.assert_allclose(loud_TF, soft_TF, atol=0.05)  # samples are whole numbers


@pytest.mark.parametrize("kind", KINDS)
def test_padding_changes_no_real_frame(kind):
    short, long = (compute_own(make_corpus(n_samples=n), kind) for n in (6000, 9000))
    for clip, frames in enumerate(short.frames_B):
        np.testing.assert_allclose(short.x_BTF[clip, :frames], long.x_BTF[clip, :frames], atol=1e-3)


def test_processes_that_share_the_clips_find_the_same_statistics():
    raw = compute_inputs(make_corpus(), FEATURES)
    group_B = np.repeat([0, 1], 4)
    whole = compute_statistics(raw.x_BTF, raw.frames_B, group_B)
    rows = np.array([0, 1, 4, 6]), np.array([2, 3, 5, 7])
    # Each sum is completed by what the other process would have brought.
    others: list[list[np.ndarray]] = [[], []]
    for own, kept in zip(rows, others, strict=True):

        def keep(part, kept=kept):
            kept.append(part)
            return part

        compute_statistics(raw.x_BTF, raw.frames_B, group_B, rows=own, total=keep)
    means = (others[0][0] + others[1][0]) / np.bincount(group_B, raw.frames_B)[:, None]
    np.testing.assert_allclose(means[group_B], whole.mean_BF, rtol=1e-5)


def test_training_clips_play_no_part():
    inputs = compute_own(make_corpus(), "speaker")
    features = dataclasses.replace(FEATURES, normalise="speaker")
    found = fit_to_training(inputs, np.arange(4), features, True)
    assert not np.asarray(found.mean_F).any()
    assert (np.asarray(found.std_F) == 1).all()


@pytest.mark.parametrize("masked", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_clips_that_no_augmentation_hits_are_as_without_it(kind, masked):
    inputs = compute_own(make_corpus(), kind, masked=masked)
    identity = Normaliser(jnp.zeros(8), jnp.ones(8))
    dataset = make_dataset(inputs, identity, with_waves=True)
    take_augmented = make_take_augmented(
        AugmentConfig(), RATE_HZ, make_front_end(FEATURES, RATE_HZ), own=kind, masked=masked
    )
    index_B = np.array([0, 3, 4, 7])  # two clips of each speaker
    found = jax.jit(take_augmented)(
        dataset, index_B, jax.random.key(0), jnp.int32(1), jnp.float32(0)
    )
    expected = take(dataset, index_B)  # pyright: ignore[reportArgumentType]
    np.testing.assert_allclose(found.x_BTF, expected.x_BTF, atol=5e-4)


def test_a_silent_clip_becomes_zeros():
    x_BTF = np.full((1, 5, 3), -80.0, np.float32)
    assert not np.asarray(normalise_clips(x_BTF, np.array([5]))).any()


def test_a_run_says_how_it_normalises():
    identities = {
        compute_identity(override(Config(), {"features.normalise": kind}))
        for kind in (*KINDS, "coefficient")
    }
    assert len(identities) == 4


def test_the_network_normalises_samples_itself():
    with pytest.raises(UserError, match=r"features\.normalise=clip: .*the network normalises"):
        FeaturesConfig(kind="wave", normalise="clip")


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> str:
    return str(tmp_path_factory.mktemp("cmvn") / "store")


def make_run(folder: Path, store: str, kind: str, **changes: Any) -> Config:
    places = {"run_dir": str(folder / "run"), "data.store_dir": store}
    return override(Config(), SETTINGS | places | {"features.normalise": kind} | changes)


def train(config: Config) -> dict[str, Any]:
    """Train without a word or a figure."""
    return ser_jax.train(config, observe=lambda event: None)


Train = Callable[[str, bool], tuple[Config, dict[str, Any]]]


@pytest.fixture(scope="module")
def trained(tmp_path_factory, store) -> Train:
    """Config and metrics of the run of a kind, masked or not; trained once, not to be changed."""

    @functools.cache
    def get(kind: str, masked: bool) -> tuple[Config, dict[str, Any]]:
        folder = tmp_path_factory.mktemp(kind)
        config = make_run(folder, store, kind, **{"model.mask_padding": masked})
        return config, train(config)

    return get


@pytest.fixture(scope="module")
def sounds(tmp_path_factory, trained) -> list[Path]:
    """Each clip of the corpus as a file of its own."""
    corpus = load_corpus(trained("clip", False)[0].data)
    folder, files = tmp_path_factory.mktemp("sounds"), []
    for clip, name in enumerate(corpus.file_names):
        wave_N = corpus.wave_BN[clip, : corpus.length_B[clip]]
        files.append(folder / f"{Path(name).stem}.wav")
        soundfile.write(files[-1], wave_N, RATE_HZ)
    return files


@pytest.mark.parametrize("masked", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_a_run_measures_and_predicts_as_it_trained(trained, sounds, kind, masked):
    config, metrics = trained(kind, masked)
    assert evaluate(config.run_dir) == metrics["test"]
    corpus, run = load_corpus(config.data), load_run(config.run_dir)
    groups = [sounds]
    if kind == "speaker":  # of many at once: another result than speaker by speaker
        groups = [
            [file for file, speaker in zip(sounds, corpus.actor_B, strict=True) if speaker == actor]
            for actor in np.unique(corpus.actor_B)
        ]
    heard = {
        Path(found.file).stem: found.label
        for files in groups for found in predict(config.run_dir, files)
    }  # fmt: skip
    with (Path(config.run_dir) / "predictions.csv").open() as file:
        rows = list(csv.DictReader(file))
    alike = [heard[Path(row["file"]).stem] == row["predicted"] for row in rows]
    assert np.mean(alike) == 1
    assert fit_to_windows(run, [], bad=()).normaliser is run.normaliser


@pytest.mark.parametrize("kind", ["speaker", "corpus"])
def test_a_file_damaged_at_its_end_changes_no_other_files_results(tmp_path, trained, kind):
    config, _ = trained(kind, False)
    names = [str(tmp_path / name) for name in ("a.flac", "b.flac", "c.flac")]
    rng = np.random.default_rng(0)
    for gain, length_s, name in zip((1, 2, 3), (3, 60, 3), names, strict=True):
        soundfile.write(name, rng.normal(0, 0.05 * gain, length_s * RATE_HZ), RATE_HZ)
    good = [names[0], names[2]]
    expected = predict(config.run_dir, good)
    assert predict(config.run_dir, names)[0].probabilities != expected[0].probabilities
    cut = Path(names[1]).read_bytes()
    Path(names[1]).write_bytes(cut[: 2 * len(cut) // 3])
    errors: list[UserError] = []
    assert predict(config.run_dir, names, errors.append) == expected
    assert "b.flac" in str(*errors)


def test_clips_of_unknown_classes_count_for_their_speakers_statistics(trained, monkeypatch):
    config, _ = trained("speaker", False)
    whole, corpus = measure(config.run_dir, split="all"), load_corpus(config.data)
    labels = ("boredom", *corpus.labels[1:])  # in place of neutral
    other = dataclasses.replace(corpus, labels=labels, checksum="other")
    monkeypatch.setattr(evaluate_module, "load_corpus", lambda data: other)
    found = measure(config.run_dir, split="all")
    kept_B = corpus.emotion_B != 0
    assert found.report["left_out"] == {"boredom": int((~kept_B).sum())}
    np.testing.assert_allclose(
        found.heard.probability_BC, whole.heard.probability_BC[kept_B], atol=1e-5
    )


@pytest.mark.parametrize("backend", ["device", "host"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_run_on_augmented_clips_trains(tmp_path, store, kind, backend):
    changes = {"augment.enabled": True, "augment.backend": backend, "augment.workers": 1}
    config = make_run(tmp_path, store, kind, **changes)
    metrics = train(config)
    assert evaluate(config.run_dir) == metrics["test"]  # pyright: ignore[reportArgumentType]


def test_cells_of_a_grid_train_as_they_do_alone(tmp_path, store, trained):
    changes = {"systems": {"lstm": {}}, "seeds": (0, 1), "protocols": ("study",),
               "batching": "vmap", "out": str(tmp_path / "grid")}  # fmt: skip
    keys = {key: value for key, value in SETTINGS.items() if key != "seed"}
    keys |= {"features.normalise": "speaker", "sweep": {"features.normalise": ["clip", "speaker"]}}
    places = {"data.store_dir": store}
    grid = override(AblationConfig(), keys | places | changes)
    cells = ablate(grid)["cells"]
    assert [cell["status"] for cell in cells] == ["done"] * 4
    for cell in cells:
        kind = cell["sweep"]["features.normalise"]
        alone = trained(kind, False)[1]["test"]
        if cell["seed"] != 0:
            config = make_run(tmp_path, store, kind, seed=cell["seed"])
            alone = train(config)["test"]
            shutil.rmtree(config.run_dir)  # pyright: ignore[reportArgumentType]
        assert np.abs(np.subtract(alone["confusion"], cell["confusion"])).sum() <= 2
