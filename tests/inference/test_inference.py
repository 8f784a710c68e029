"""A trained run in use: loaded whole or not at all, measured as it was, heard file by file."""

import csv
import dataclasses
import functools
import io
import json
import math
import os
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import soundfile
import yaml
from hypothesis import given
from hypothesis import strategies as st

from ser_jax.api import train
from ser_jax.cli.commands import main
from ser_jax.config import Config, DataConfig, override
from ser_jax.data.corpus import Corpus
from ser_jax.data.splits import draw_split
from ser_jax.data.store import load_corpus
from ser_jax.errors import UserError
from ser_jax.features.batching import Batch
from ser_jax.features.frontend import make_front_end
from ser_jax.features.normaliser import normalise
from ser_jax.inference import evaluate as evaluate_module
from ser_jax.inference.evaluate import evaluate, measure
from ser_jax.inference.load import LoadedRun, load_run
from ser_jax.inference.predict import cut_windows, list_windows, predict
from ser_jax.systems.build import build
from ser_jax.systems.networks import make_model
from ser_jax.training.checkpoint import Checkpoints
from ser_jax.training.state import TrainState, init_state

SETTINGS = {
    "data.corpus": "synthetic",
    "data.synthetic_actors": 4,
    "data.synthetic_clips": 16,
    "data.rate_hz": 8000,
    "features.n_fft": 512,
    "features.hop_length": 256,
    "features.n_mels": 32,
    "features.normalise": "coefficient",
    "model.channels": [4],
    "model.hidden": 8,
    "model.dense": [8],
    "model.mask_padding": True,
    "train.epochs": 2,
    "train.batch_size": 16,
    "train.learning_rate": 0.01,
}
RATE_HZ, N_FFT = SETTINGS["data.rate_hz"], SETTINGS["features.n_fft"]


@pytest.fixture(scope="module")
def config(tmp_path_factory) -> Config:
    folder = tmp_path_factory.mktemp("trained")
    places = {"run_dir": str(folder / "run"), "data.store_dir": str(folder / "store")}
    return override(Config(), SETTINGS | places)


@pytest.fixture(scope="module")
def run_dir(config) -> Path:
    """A run that must not be written to."""
    train(config, observe=lambda event: None)
    return Path(config.run_dir)


@pytest.fixture(scope="module")
def run(run_dir) -> LoadedRun:
    return load_run(run_dir)


@pytest.fixture(scope="module")
def corpus(config, run_dir) -> Corpus:
    return load_corpus(config.data)


@pytest.fixture
def copied(run_dir, tmp_path) -> Path:
    """A run to spoil."""
    return Path(shutil.copytree(run_dir, tmp_path / "copied"))


def get_clip(corpus: Corpus, number: int) -> np.ndarray:
    return corpus.wave_BN[number, : corpus.length_B[number]]


@pytest.fixture
def write(tmp_path):
    """Writes samples to a file and returns its path."""

    def write(name: str, wave, rate_hz: int = RATE_HZ, **options) -> str:
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        soundfile.write(path, wave, rate_hz, **options)
        return str(path)

    return write


def get_probabilities(predictions) -> np.ndarray:
    return np.array([list(p.probabilities.values()) for p in predictions])


def list_tree(folder: Path) -> dict[str, tuple[int, int]]:
    paths = [folder, *folder.rglob("*")]
    return {str(path): (path.stat().st_mtime_ns, path.stat().st_size) for path in paths}


def add_epoch(run_dir: Path, change, *, is_best: bool) -> None:
    """Save one more epoch, its parameters changed by `change`."""
    checkpoints = Checkpoints(run_dir / "checkpoints")
    latest = checkpoints.latest_epoch()
    assert latest is not None
    facts = checkpoints.load_facts(latest)
    state = load_state(checkpoints, latest, load_run(run_dir).config)
    state = dataclasses.replace(state, params=jax.tree.map(change, state.params))
    if is_best:
        facts["best_epoch"] = latest + 1
    checkpoints.save(latest + 1, state, facts, best_epoch=facts["best_epoch"])
    checkpoints.close()


def load_state(checkpoints: Checkpoints, epoch: int, config: Config) -> TrainState:
    model, tx, _ = build(config.model, config.train, 8)
    size = {"n_frames": 9, "n_features": config.features.n_mfcc}  # no parameter knows of frames
    init = functools.partial(init_state, model, tx, seed=0, dropout=0.0, **size)
    return checkpoints.load_state(epoch, jax.eval_shape(init))


# Loading.


def test_a_loaded_run_says_what_it_is(run, config, corpus):
    assert run.config.model == config.model
    assert run.labels == corpus.labels
    assert run.n_samples == corpus.wave_BN.shape[1]
    assert run.checksum == corpus.checksum
    assert 1 <= run.best_epoch <= 2


def test_a_run_in_use_is_not_touched(run_dir, write, corpus):
    before = list_tree(run_dir)
    predict(run_dir, [write("a.wav", get_clip(corpus, 0))])
    evaluate(run_dir)
    assert list_tree(run_dir) == before


def test_the_best_epoch_is_used_and_not_the_latest(copied, write, corpus):
    file = write("a.wav", get_clip(corpus, 0))
    before = predict(copied, [file])
    add_epoch(copied, jnp.zeros_like, is_best=False)
    assert predict(copied, [file]) == before
    add_epoch(copied, jnp.zeros_like, is_best=True)
    assert get_probabilities(predict(copied, [file])) == pytest.approx(1 / 8)


def test_a_network_of_nan_is_refused(copied, write, corpus):
    add_epoch(copied, lambda leaf: jnp.full_like(leaf, jnp.nan), is_best=True)
    with pytest.raises(UserError, match=r"no finite numbers.*learning_rate"):
        predict(copied, [write("a.wav", get_clip(corpus, 0))])
    with pytest.raises(UserError, match=r"no finite numbers.*learning_rate"):
        evaluate(copied)


def test_an_unfinished_run_is_used_with_a_warning(copied, capsys):
    (copied / "metrics.json").unlink()
    run = load_run(copied)
    assert capsys.readouterr().err == (
        f"warning: {copied}: training is not finished; this is its best epoch so far, "
        f"{run.best_epoch}\n"
    )


def test_a_run_may_be_moved_and_its_recordings_too(copied, run):
    change_config(copied, "data", "root", "/elsewhere")
    assert load_run(copied).best_epoch == run.best_epoch


def change_config(run_dir: Path, section: str, key: str, value) -> None:
    path = run_dir / "config.yaml"
    tree = yaml.safe_load(path.read_text())
    tree[section][key] = value
    path.write_text(yaml.safe_dump(tree))


@pytest.mark.parametrize(
    ("section", "key", "value"),
    [("model", "name", "lstm"), ("model", "hidden", 16), ("features", "hop_length", 128)],
)
def test_a_config_of_another_network_is_refused(copied, section, key, value):
    change_config(copied, section, key, value)
    with pytest.raises(UserError, match=r"config\.yaml: says another run .*; undo the change"):
        load_run(copied)


def test_a_state_of_another_network_is_refused(copied, monkeypatch):
    monkeypatch.setattr("ser_jax.inference.load._check_identity", lambda *args: None)
    change_config(copied, "model", "hidden", 16)
    with pytest.raises(UserError, match=r"checkpoints/2: .* does not match .*undo the change"):
        load_run(copied)


@pytest.mark.parametrize("text", ["", "data: [", "data: 3\n", "seed: x\n", "\0\0", "a: {b: 1}\n"])
def test_a_damaged_config_is_refused(copied, text):
    (copied / "config.yaml").write_text(text)
    with pytest.raises(UserError, match=r"config\.yaml: "):
        load_run(copied)


def test_what_is_no_run_directory_is_refused_and_left_alone(tmp_path):
    with pytest.raises(UserError, match="no such run directory; ser-jax train makes one"):
        load_run(tmp_path / "nowhere")
    with pytest.raises(UserError, match="not a run directory; ser-jax train makes one"):
        load_run(tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_run_killed_before_its_first_checkpoint_is_refused_and_left_alone(copied):
    for epoch in (copied / "checkpoints").iterdir():
        shutil.rmtree(epoch)
    for path in (copied / "checkpoints", copied):
        before = list_tree(path)
        with pytest.raises(UserError, match="holds no checkpoint yet; train it with the same"):
            load_run(copied)
        assert list_tree(path) == before
        shutil.rmtree(copied / "checkpoints", ignore_errors=True)


@pytest.mark.parametrize("kept", [0, 0.05, 0.9])
@pytest.mark.parametrize("name", ["facts.json", "state.npz"])
def test_a_truncated_checkpoint_is_refused_in_one_line(copied, capfd, name, kept):
    path = copied / "checkpoints" / "2" / name
    os.truncate(path, int(kept * path.stat().st_size))
    with pytest.raises(UserError, match=r"checkpoints/2: damaged checkpoint.*; copy it again"):
        load_run(copied)
    assert capfd.readouterr().err == ""


# Evaluation.


@pytest.mark.parametrize("split", ["test", "val"])
def test_a_run_measures_as_it_did_when_it_was_trained(run_dir, split):
    written = json.loads((run_dir / "metrics.json").read_text())
    assert evaluate(run_dir, split=split) == written[split]


def test_test_is_the_split_unless_another_is_named(run_dir, config):
    test = evaluate(run_dir, split="test")
    assert measure(run_dir)[:5] == (test, "synthetic", "test", "study split", "synthetic")
    assert measure(run_dir, config.data).part == "test"
    # What a DataConfig says of splits is not the run's own split, and so plays no part.
    other = dataclasses.replace(config.data, protocol="loso", fold=2, split_seed=5)
    assert evaluate(run_dir, other) == test


def test_the_splits_make_up_all(run_dir):
    parts = [evaluate(run_dir, split=split) for split in ("train", "val", "test")]
    confusion = np.sum([part["confusion"] for part in parts], axis=0)
    whole = evaluate(run_dir, split="all")
    assert whole["n"] == 64
    assert np.array_equal(whole["confusion"], confusion)


def test_other_recordings_are_measured_whole_and_cut_to_the_run(
    run_dir, run, corpus, config, write, tmp_path, capsys
):
    root = tmp_path / "root"
    numbers = [0, 9, 22, 35]
    waves = [get_clip(corpus, number) for number in numbers]
    waves[1] = np.concatenate([waves[1]] * 3)
    files = [
        write(f"root/{Path(corpus.file_names[number]).stem}.wav", wave)
        for number, wave in zip(numbers, waves, strict=True)
    ]
    data = override(config.data, {"corpus": "ravdess", "root": str(root)})
    found = measure(run_dir, data)
    assert (found.corpus, found.part) == ("ravdess", "all")
    assert capsys.readouterr().err == (
        f"warning: 1 of 4 clips are longer than the run's {run.n_samples / RATE_HZ:.2f} s "
        "and were cut\n"
    )
    first = {p.file: p.label for p in reversed(predict(run_dir, files))}
    confusion = np.zeros((8, 8), int)
    for number, file in zip(numbers, files, strict=True):
        confusion[corpus.emotion_B[number], run.labels.index(first[file])] += 1
    assert np.array_equal(found.report["confusion"], confusion)


def test_the_same_recordings_elsewhere_are_the_runs_own(
    run_dir, config, corpus, write, tmp_path, capsys
):
    for number, name in enumerate(corpus.file_names):
        write(f"root/{Path(name).stem}.flac", get_clip(corpus, number))
    data = override(config.data, {"corpus": "ravdess", "root": str(tmp_path / "root")})
    assert measure(run_dir, data)[:3] == (evaluate(run_dir), "ravdess", "test")
    assert capsys.readouterr().err == ""


def replace_corpus(monkeypatch, corpus: Corpus, **changes) -> None:
    changed = dataclasses.replace(corpus, **changes)
    monkeypatch.setattr(evaluate_module, "load_corpus", lambda data: changed)


def test_recordings_that_changed_have_no_split_of_the_run(
    run_dir, config, corpus, monkeypatch, capsys
):
    replace_corpus(monkeypatch, corpus, checksum="changed")
    with pytest.raises(UserError, match=r"have changed since training.*--split all"):
        evaluate(run_dir)
    assert evaluate(run_dir, split="all")["n"] == 64
    capsys.readouterr()
    found = measure(run_dir, config.data)
    assert found.part == "all"
    n_heard = sum(
        len(getattr(draw_split(config.data, config.seed, corpus), part))
        for part in ("train", "val")
    )
    assert found.report["known_clips"] == n_heard
    (said,) = [line for line in found.list_warnings() if "trained or validated" in line]
    assert said.endswith(f"on {n_heard} of its clips, which makes its figures too good; leave them "
                         "out")  # fmt: skip
    assert capsys.readouterr().err == ""


def test_a_run_that_does_not_say_what_it_heard_warns_by_the_name_of_the_corpus(
    run_dir, config, corpus, monkeypatch, capsys, tmp_path
):
    shutil.copytree(run_dir, tmp_path / "run")
    (tmp_path / "run" / "known_clips.txt").unlink()
    replace_corpus(monkeypatch, corpus, checksum="changed")
    assert "known_clips" not in measure(tmp_path / "run", config.data).report
    assert "some may be among them" in capsys.readouterr().err


def test_clips_of_another_corpus_that_the_run_has_heard_are_counted(
    run_dir, config, corpus, write, tmp_path
):
    """Whatever their names, their speakers and the other clips are; test clips do not count."""
    split = draw_split(config.data, config.seed, corpus)
    some = [*split.train[:3], *split.val[:2], *split.test[:4]]
    rows = ["path,emotion,speaker"]
    for place, number in enumerate(some):
        write(f"mine/{place}.wav", get_clip(corpus, int(number)))
        rows.append(f"mine/{place}.wav,{corpus.labels[corpus.emotion_B[number]]},s{place % 2}")
    write("mine/new.wav", np.random.default_rng(3).integers(-99, 99, 5000).astype(np.int16))
    rows.append(f"mine/new.wav,{corpus.labels[0]},s0")
    (tmp_path / "mine.csv").write_text("\n".join(rows))
    changes = {"corpus": "manifest", "root": str(tmp_path / "mine.csv"), "protocol": "auto"}
    found = measure(run_dir, override(config.data, changes))
    assert (found.report["n"], found.report["known_clips"]) == (10, 5)
    assert any("trained or validated on 5 of its clips" in said for said in found.list_warnings())
    assert "known_clips" not in evaluate(run_dir)


def test_a_corpus_of_other_emotions_alone_is_refused(run_dir, corpus, monkeypatch):
    others = tuple(f"other {name}" for name in corpus.labels)
    replace_corpus(monkeypatch, corpus, labels=others, checksum="other")
    with pytest.raises(UserError, match=r"knows the emotions neutral, .* has other neutral"):
        evaluate(run_dir, split="all")


def test_another_rate_is_refused(run_dir):
    with pytest.raises(UserError, match=r"data\.rate_hz=16000: .* trained at 8000 Hz; leave"):
        evaluate(run_dir, DataConfig(corpus="synthetic"))


def test_an_unknown_split_is_refused(run_dir):
    with pytest.raises(UserError, match="split=dev: must be one of test, val, train, all"):
        evaluate(run_dir, split="dev")


def test_evaluate_prints_what_was_measured(run_dir, tmp_path, capsys):
    out = ["--out", str(tmp_path)]
    assert main(["evaluate", str(run_dir), *out]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "synthetic, test clips of the study split of synthetic" in said
    assert main(["evaluate", str(run_dir), "--split", "all", *out]) == 0
    out = capsys.readouterr().out
    assert "synthetic, all clips" in out
    assert "64" in out


# Prediction.


def test_probabilities_are_the_networks_softmax(run, run_dir, corpus, write):
    wave_N = get_clip(corpus, 3)
    (prediction,) = predict(run_dir, [write("a.wav", wave_N)])
    padded_BN = np.pad(wave_N, (0, run.n_samples - len(wave_N)))[None] / np.float32(32768)
    x_BTF = normalise(make_front_end(run.config.features, RATE_HZ)(padded_BN), run.normaliser)
    mask_BT = np.arange(x_BTF.shape[1])[None] < 1 + len(wave_N) // 256
    batch = Batch(x_BTF, jnp.asarray(mask_BT), jnp.zeros(1, int), jnp.ones(1))
    model = make_model(run.config.model, 8)
    logits_BC = model.apply(run.variables, batch.x_BTF, batch.mask_BT, train=False)
    expected = np.asarray(jax.nn.softmax(logits_BC[0]))
    assert list(prediction.probabilities) == list(corpus.labels)
    assert np.allclose(list(prediction.probabilities.values()), expected, atol=1e-5)
    assert prediction.label == corpus.labels[int(expected.argmax())]
    assert math.fsum(prediction.probabilities.values()) == pytest.approx(1, abs=1e-12)
    assert (prediction.start_s, prediction.end_s) == (0, round(len(wave_N) / RATE_HZ, 3))


def test_files_get_the_classes_of_the_runs_clips_with_chroma_too(config, corpus, tmp_path, write):
    changes = {
        "features.kind": "mfcc_chroma", "features.n_chroma": 6, "model.name": "reslstm",
        "augment.enabled": True, "run_dir": str(tmp_path / "run"),
    }  # fmt: skip
    train(override(config, changes), observe=lambda event: None)
    with open(tmp_path / "run" / "predictions.csv", newline="") as file:
        measured = {row["file"]: row["predicted"] for row in csv.DictReader(file)}
    assert len(set(measured.values())) > 1
    places = [corpus.file_names.index(name) for name in measured]
    files = [write(f"{place}.wav", get_clip(corpus, place)) for place in places]
    found = [prediction.label for prediction in predict(tmp_path / "run", files)]
    assert found == list(measured.values())


def test_every_format_is_heard_alike(run_dir, corpus, write):
    wave_N = get_clip(corpus, 5)
    exact = [write("a.wav", wave_N), write("a.flac", np.stack([wave_N] * 3, 1))]
    lossy = [write("a.ogg", wave_N), write("a.mp3", wave_N, format="MP3")]
    p_BC = get_probabilities(predict(run_dir, exact + lossy))
    assert np.array_equal(p_BC[0], p_BC[1])
    assert np.abs(p_BC - p_BC[0]).max() < 0.2


def test_any_rate_is_resampled(run_dir, corpus, write):
    import librosa

    wave_N = get_clip(corpus, 5)
    high_N = librosa.resample(wave_N / 32768, orig_sr=RATE_HZ, target_sr=44100)
    files = [write("a.wav", wave_N), write("high.wav", high_N, 44100)]
    low, high = predict(run_dir, files)
    assert high.end_s == pytest.approx(low.end_s, abs=0.001)
    assert np.abs(np.subtract(*get_probabilities([low, high]))).max() < 0.2


def test_silence_has_probabilities(run_dir, write):
    p_BC = get_probabilities(predict(run_dir, [write("a.wav", np.zeros(RATE_HZ))]))
    assert np.isfinite(p_BC).all()
    assert p_BC.sum() == pytest.approx(1)


def test_a_long_file_is_heard_in_windows_with_times(run, run_dir, corpus, write):
    N = run.n_samples
    wave_N = np.concatenate([get_clip(corpus, number) for number in range(8)])
    wave_N = wave_N[: 2 * N + N // 4]
    bounds = [(0, N), (N, 2 * N), (len(wave_N) - N, len(wave_N))]
    whole = predict(run_dir, [write("long.wav", wave_N)])
    parts = [write(f"{a}.wav", wave_N[a:b]) for a, b in bounds]
    assert get_probabilities(whole) == pytest.approx(get_probabilities(predict(run_dir, parts)))
    times = [(round(a / RATE_HZ, 3), round(b / RATE_HZ, 3)) for a, b in bounds]
    assert [(p.start_s, p.end_s) for p in whole] == times


def test_company_changes_no_prediction(run_dir, corpus, write):
    files = [write(f"{number}.wav", get_clip(corpus, number)) for number in range(40)]
    together = predict(run_dir, files)
    assert [p.file for p in together] == files
    assert len({p.label for p in together}) > 1
    alone = [predict(run_dir, [files[number]])[0] for number in (1, 39)]
    picked = [together[1], together[39]]
    assert np.allclose(get_probabilities(alone), get_probabilities(picked), atol=1e-5)


@given(length=st.integers(1, 200), window=st.integers(1, 50), least=st.integers(1, 60))
def test_windows_cover_a_file_up_to_a_short_remainder(length, window, least):
    bounds = list_windows(length, window, least=least)
    starts, ends = zip(*bounds, strict=True)
    assert starts[0] == 0
    assert all(0 <= a < b <= length and b - a <= window for a, b in bounds)
    assert all(a <= b for a, b in zip(starts[1:], ends, strict=False))  # no gap
    assert length - ends[-1] < min(least, window / 2) or ends[-1] == length
    assert len(set(bounds)) == len(bounds) == len(set(ends))


@pytest.mark.parametrize(
    ("length", "expected"),
    [
        (99, [(0, 99)]),
        (100, [(0, 100)]),
        (109, [(0, 100)]),  # less than one analysis window is left out
        (110, [(0, 100), (10, 110)]),  # the last window ends with the file
        (149, [(0, 100), (49, 149)]),
        (150, [(0, 100), (100, 150)]),  # half a window stands alone
        (200, [(0, 100), (100, 200)]),
    ],
)
def test_windows_end_where_the_file_does(length, expected):
    assert list_windows(length, 100, least=10) == expected


@given(
    cuts=st.lists(st.integers(1, 60), min_size=1, max_size=8),
    window=st.integers(1, 50),
    least=st.integers(1, 60),
)
def test_windows_of_blocks_are_those_of_the_whole(cuts, window, least):
    wave_N = np.arange(sum(cuts), dtype=np.int16)
    blocks = np.split(wave_N, np.cumsum(cuts)[:-1])
    found = list(cut_windows(blocks, window, least=least))
    bounds = list_windows(len(wave_N), window, least=least)
    assert [(start, start + len(wave_n)) for start, wave_n in found] == bounds
    for start, wave_n in found:
        np.testing.assert_array_equal(wave_n, wave_N[start : start + len(wave_n)])


def test_windows_are_handed_on_before_the_sound_has_ended():
    given = []

    def give_blocks():
        for number in range(1000):
            given.append(number)
            yield np.full(10, number, np.int16)

    windows = cut_windows(give_blocks(), 25, least=5)
    starts = [next(windows)[0] for _ in range(100)]
    assert starts == list(range(0, 2500, 25))
    assert len(given) <= 251


def spoil(kind: str, folder: Path) -> Path:
    """A file that cannot be heard."""
    path = folder / f"{kind}.wav"
    wave_N = np.sin(np.arange(8000)) / 2
    if kind == "folder":
        path.mkdir()
    elif kind == "text":
        path.write_text("to be or not to be\n" * 99)
    elif kind == "empty":
        path.touch()
    elif kind == "silent":
        soundfile.write(path, wave_N[:0], RATE_HZ)
    elif kind == "short":
        soundfile.write(path, wave_N[: N_FFT - 1], RATE_HZ)
    elif kind == "nan":
        wave_N[99] = np.nan
        soundfile.write(path, wave_N, RATE_HZ, subtype="FLOAT")
    elif kind == "truncated":
        soundfile.write(path, wave_N, RATE_HZ)
        os.truncate(path, 3000)
    return path


BAD = {
    "missing": "no such file; check the path",
    "folder": "is a folder; name the files in it",
    "text": "cannot be decoded",
    "empty": "the file is empty",
    "silent": "holds no samples",
    "short": "0.064 s long; the least is one analysis window, 0.064 s (512 samples)",
    "nan": "holds NaN",
    "truncated": "truncated: ",
}


@pytest.mark.parametrize("kind", BAD)
def test_a_bad_file_is_one_line_and_the_others_are_heard(
    run_dir, corpus, write, tmp_path, capsys, kind
):
    good, other = (write(f"{n}.wav", get_clip(corpus, n)) for n in (0, 1))
    bad = str(spoil(kind, tmp_path))
    assert main(["predict", str(run_dir), good, bad, other, "--format", "csv"]) == 2
    captured = capsys.readouterr()
    rows = list(csv.DictReader(captured.out.splitlines()))
    assert [row["file"] for row in rows] == [good, other]
    assert captured.err.startswith(f"ser-jax: error: {bad}: {BAD[kind]}")
    assert captured.err.count("\n") == 1
    with pytest.raises(UserError, match=kind):
        predict(run_dir, [good, bad])


def test_every_bad_file_is_named_in_order_and_json_stays_valid(run_dir, tmp_path, capsys):
    bad = [str(spoil(kind, tmp_path)) for kind in ("truncated", "missing", "text")]
    assert main(["predict", str(run_dir), *bad, "--format", "json"]) == 2
    captured = capsys.readouterr()
    assert json.loads(captured.out) == []
    lines = captured.err.splitlines()
    assert [line.split(": ")[2] for line in lines] == bad


def test_no_row_is_kept_of_a_long_file_that_ends_badly(run_dir, run, tmp_path, corpus, write):
    wave_N = np.random.default_rng(0).uniform(-0.5, 0.5, 50 * run.n_samples)
    soundfile.write(tmp_path / "cut.flac", wave_N, RATE_HZ)
    os.truncate(tmp_path / "cut.flac", (tmp_path / "cut.flac").stat().st_size * 9 // 10)
    good, errors = write("good.wav", get_clip(corpus, 0)), []
    files = [good, tmp_path / "cut.flac", good]
    assert [p.file for p in predict(run_dir, files, on_error=errors.append)] == [good, good]
    assert str(errors[0]).startswith(f"{tmp_path / 'cut.flac'}: ")


@pytest.mark.parametrize("kind", [str, Path, os.fsencode])
def test_one_path_is_one_file(run_dir, corpus, write, kind):
    path = write("a.wav", get_clip(corpus, 0))
    assert predict(run_dir, kind(path)) == predict(run_dir, [path])


def test_the_shortest_file_is_one_analysis_window(run_dir, write):
    (prediction,) = predict(run_dir, [write("a.wav", np.sin(np.arange(N_FFT)) / 2)])
    assert prediction.end_s == N_FFT / RATE_HZ


def test_predict_prints_json_for_machines(run_dir, corpus, write, capsys):
    file = write("a.wav", get_clip(corpus, 0))
    assert main(["predict", str(run_dir), file, "--format", "json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    (prediction,) = predict(run_dir, [file])
    assert row == dataclasses.asdict(prediction)


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        (b"caf\xe9.wav", "caf\\xe9.wav"),  # Latin-1, which is no UTF-8
        (b"a\nb.wav", "a\\nb.wav"),
        (b"[red]a[", "[red]a["),
        ("\N{GRINNING FACE} é.wav".encode(), "\N{GRINNING FACE} é.wav"),
    ],
)
def test_any_file_name_is_printed(
    run_dir, write, corpus, tmp_path, monkeypatch, capsysbinary, name, shown
):
    monkeypatch.chdir(tmp_path)
    os.rename(write("a.wav", get_clip(corpus, 0)), name)
    line = ["predict", str(run_dir), os.fsdecode(name), "--format"]
    assert main([*line, "csv"]) == 0
    text = os.fsdecode(capsysbinary.readouterr().out)
    (row,) = csv.DictReader(io.StringIO(text, newline=""))
    assert os.fsencode(row["file"]) == name
    assert main([*line, "json"]) == 0
    (row,) = json.loads(capsysbinary.readouterr().out)
    assert os.fsencode(row["file"]) == name
    assert main([*line, "table"]) == 0
    assert f"  {shown}  " in capsysbinary.readouterr().out.decode()


def test_a_file_of_nothing_but_zeros_is_named(run_dir, write, corpus, capsys):
    files = [write("zeros.wav", np.zeros(RATE_HZ)), write("a.wav", get_clip(corpus, 0))]
    assert len(predict(run_dir, files)) >= 2
    assert capsys.readouterr().err == (
        f"warning: {files[0]}: holds only zeros, so its emotion means nothing\n"
    )


def test_channels_that_cancel_are_not_called_zeros(run_dir, write, corpus, capsys):
    clip_N = get_clip(corpus, 0)
    (file,) = files = [write("a.wav", np.stack([clip_N, -clip_N], 1))]
    for _ in range(2):  # each time that it is asked
        assert len(predict(run_dir, files)) == 1
        assert f"warning: {file}: its channels cancel each other" in capsys.readouterr().err


@pytest.mark.parametrize("wrong", [np.zeros(8000), [np.zeros(8000)], io.BytesIO(b"RIFF"), None, 3])
def test_samples_in_place_of_names_are_told(run_dir, wrong):
    with pytest.raises(UserError, match=r"files: holds \w+, needs names of files; write samples"):
        predict(run_dir, wrong)


@pytest.mark.parametrize("address", ["https://example.org/a.wav", "s3://bucket/a.wav"])
def test_an_address_is_no_file(run_dir, address):
    with pytest.raises(UserError, match=f"{address}: is an address, not a file; download it"):
        predict(run_dir, address)


def test_an_empty_name_is_not_called_a_folder(run_dir):
    with pytest.raises(UserError, match="'': no file is named"):
        predict(run_dir, "")


def test_a_packed_run_is_to_be_unpacked(tmp_path, write, corpus):
    (tmp_path / "run.zip").write_bytes(b"PK")
    with pytest.raises(UserError, match=r"run\.zip: is a file, no run directory; unpack it"):
        predict(tmp_path / "run.zip", write("a.wav", get_clip(corpus, 0)))


@pytest.mark.parametrize("name", ["-a.wav", "--a.wav"])
def test_a_name_that_begins_with_a_dash_is_told_how_to_be_given(
    run_dir, write, corpus, tmp_path, monkeypatch, capsys, name
):
    monkeypatch.chdir(tmp_path)
    write(name, get_clip(corpus, 0))
    assert main(["predict", str(run_dir), name, "--format", "csv"]) == 2
    assert f"given as ./{name}" in capsys.readouterr().err
    assert main(["predict", str(run_dir), f"./{name}", "--format", "csv"]) == 0


# Trimmed clips.


def test_a_run_on_trimmed_clips_trims_what_it_is_given(config, corpus, write, tmp_path):
    changes = {"data.trim_db": 25.0, "train.epochs": 1, "run_dir": str(tmp_path / "run")}
    trimmed = override(config, changes)
    metrics = train(trimmed, observe=lambda event: None)
    assert evaluate(trimmed.run_dir) == metrics["test"]
    clip_N, lead = get_clip(corpus, 3), RATE_HZ // 2
    bare, silent = (
        predict(trimmed.run_dir, [write(name, np.pad(clip_N, (n, n)))])[0]
        for name, n in (("bare.wav", 0), ("silent.wav", lead))
    )
    # Frames are counted from the beginning of a file, so what is cut differs by less than one.
    assert silent.start_s == pytest.approx(bare.start_s + lead / RATE_HZ, abs=512 / RATE_HZ)
    assert bare.start_s > 0
    one, other = get_probabilities([bare]), get_probabilities([silent])
    np.testing.assert_allclose(one, other, atol=0.05)
