"""Corpora beside RAVDESS: names, the table of labels, manifests, joined corpora, one measured by
another's network. The files are tones with the names that each corpus documents."""

import dataclasses
import json
import re
from collections import Counter
from pathlib import Path, PurePath

import numpy as np
import pytest
import yaml
from named_corpora import NAMES, RATE_HZ, TINY, write_corpus, write_tone

from ser_jax.api import train
from ser_jax.audio.reading import load_int16
from ser_jax.cli.commands import main
from ser_jax.config import (
    AblationConfig,
    Config,
    DataConfig,
    compute_identity,
    flatten,
    override,
    to_dict,
)
from ser_jax.data.labels import COMMON, TABLE, make_label_table
from ser_jax.data.protocols import check_protocols
from ser_jax.data.sources.filenames import CREMA_D_WOMEN, GRAMMARS
from ser_jax.data.sources.ravdess import EMOTIONS
from ser_jax.data.splits import draw_split
from ser_jax.data.store import load_corpus, load_shard, prepare
from ser_jax.errors import UserError
from ser_jax.grid.cells import list_cells
from ser_jax.inference.evaluate import measure
from ser_jax.run.run_dir import default_run_dir, load_run_config

OTHERS = ["crema_d", "savee", "tess", "emodb"]
CLASSES = {
    "crema_d": ("neutral", "happy", "sad", "angry", "fearful", "disgust"),
    "savee": ("neutral", "happy", "sad", "angry", "fearful", "disgust", "surprised"),
    "tess": ("neutral", "happy", "sad", "angry", "fearful", "disgust", "surprised"),
    "emodb": ("neutral", "happy", "sad", "angry", "fearful", "disgust", "bored"),
    "ravdess": EMOTIONS,
}


@pytest.fixture(scope="module")
def roots(tmp_path_factory) -> dict[str, Path]:
    """A folder per corpus, which must not be written to."""
    return {name: write_corpus(tmp_path_factory.mktemp(name), name) for name in NAMES}


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> str:
    return str(tmp_path_factory.mktemp("store"))


@pytest.fixture
def make_data(roots, store):
    def make(corpus: str, **changes) -> DataConfig:
        root = None if corpus == "joined" else str(roots[corpus])
        return DataConfig(**{
            "corpus": corpus, "root": root, "rate_hz": RATE_HZ, "store_dir": store, **changes
        })  # fmt: skip

    return make


def make_config(data: DataConfig, run_dir: Path) -> Config:
    config = override(Config(data=data), {**TINY, "run_dir": str(run_dir)})
    train(config, observe=lambda event: None)
    return config


@pytest.fixture(scope="module")
def runs(roots, store, tmp_path_factory) -> dict[str, Config]:
    """A run on RAVDESS and one on EmoDB."""
    folder = tmp_path_factory.mktemp("runs")
    made = {}
    for corpus in ("ravdess", "emodb"):
        data = DataConfig(
            corpus=corpus, root=str(roots[corpus]), rate_hz=RATE_HZ, store_dir=store,
            protocol="speakers",
        )  # fmt: skip
        made[corpus] = make_config(data, folder / corpus)
    return made


# Names.


@pytest.mark.parametrize(
    ("corpus", "path", "expected"),
    [
        ("crema_d", "1001_DFA_ANG_XX.wav", ("anger", "1001", "male", "", "DFA", "")),
        ("crema_d", "1091_IEO_SAD_HI.wav", ("sad", "1091", "female", "high", "IEO", "")),
        ("crema_d", "1040_ITH_SAD_X.wav", ("sad", "1040", "male", "", "ITH", "")),
        ("savee", "DC_a01.wav", ("anger", "DC", "male", "", "", "")),
        ("savee", "AudioData/KL/su15.wav", ("surprise", "KL", "male", "", "", "")),
        ("savee", "JE/sa03.wav", ("sadness", "JE", "male", "", "", "")),
        ("tess", "OAF_back_angry.wav", ("angry", "OAF", "female", "", "back", "")),
        ("tess", "YAF_youth_ps.wav", ("pleasant surprise", "YAF", "female", "", "youth", "")),
        ("tess", "OA_bite_neutral.wav", ("neutral", "OAF", "female", "", "bite", "")),
        ("emodb", "03a01Fa.wav", ("happiness", "03", "male", "", "a01", "a")),
        ("emodb", "16b10Lb.wav", ("boredom", "16", "female", "", "b10", "b")),
        ("emodb", "08a02N.wav", ("neutral", "08", "female", "", "a02", "")),
        ("ravdess", "03-01-06-02-01-02-12.wav",
         ("fearful", "12", "female", "strong", "kids", "2")),
    ],
)  # fmt: skip
def test_a_name_says_what_its_corpus_says_it_does(corpus, path, expected):
    named = GRAMMARS[corpus].parse(PurePath(path))
    assert named is not None
    *facts, _, _ = vars(named.facts).values()
    assert tuple(facts) == expected


@pytest.mark.parametrize(
    ("corpus", "path"),
    [
        ("crema_d", "1092_DFA_ANG_XX.wav"), ("crema_d", "1000_DFA_ANG_XX.wav"),
        ("crema_d", "1001_DFA_BOR_XX.wav"), ("crema_d", "1001_DFA_ANG.wav"),
        ("savee", "a01.wav"), ("savee", "XX/a01.wav"), ("savee", "DC/x01.wav"),
        ("savee", "DC/a1.wav"), ("tess", "MAF_back_angry.wav"), ("tess", "OAF_back_bored.wav"),
        ("emodb", "04a01Fa.wav"), ("emodb", "03c01Fa.wav"), ("emodb", "03a01Xa.wav"),
    ],
)  # fmt: skip
def test_other_names_are_refused(corpus, path):
    assert GRAMMARS[corpus].parse(PurePath(path)) is None


def test_crema_d_has_43_actresses_among_91_and_emodb_five_of_ten():
    assert len(CREMA_D_WOMEN) == 43
    names = [f"{speaker:02}a01N.wav" for speaker in range(20)]
    parsed = [named for name in names if (named := GRAMMARS["emodb"].parse(PurePath(name)))]
    genders = Counter(named.facts.gender for named in parsed)
    assert genders == {"female": 5, "male": 5}


@pytest.mark.parametrize(("corpus", "path"), [
    ("crema_d", "1001_DFA_ANG_XX.wav"), ("savee", "DC_sa01.wav"), ("savee", "DC/sa01.wav"),
    ("tess", "OAF_back_angry.wav"), ("emodb", "03a01Fa.wav"),
])  # fmt: skip
def test_letter_case_of_a_name_changes_nothing(corpus, path):
    parse = GRAMMARS[corpus].parse
    assert parse(PurePath(path)) is not None
    for name in (path.upper(), path.lower()):
        assert parse(PurePath(name)) == parse(PurePath(path))


_NAMES = Path(__file__).parents[3] / "shared" / "data" / "names" / "tess_savee_crema_d.txt"


def test_the_grammars_take_published_names():
    if not _NAMES.exists():
        pytest.skip("needs the published names")
    for line in _NAMES.read_text().split()[::20]:
        folder, _, path = line.partition("/")
        corpus = {"CREMA-D": "crema_d", "SAVEE": "savee", "TESS": "tess"}[folder]
        assert GRAMMARS[corpus].parse(PurePath(path)) is not None, line


@pytest.mark.parametrize("corpus", OTHERS)
def test_every_word_of_a_corpus_is_in_the_table(corpus):
    assert {TABLE[word] for word in GRAMMARS[corpus].words} == set(CLASSES[corpus])


# Corpora.


@pytest.mark.parametrize("corpus", OTHERS)
def test_a_corpus_keeps_every_clip_with_what_is_known_of_it(corpus, make_data, roots):
    loaded = load_corpus(make_data(corpus))
    files = {}
    for path in roots[corpus].rglob("*.wav"):
        named = GRAMMARS[corpus].parse(path)
        assert named is not None
        files[named.name] = path, named.facts
    assert sorted(files) == sorted(Path(name).stem for name in loaded.file_names)
    assert loaded.labels == CLASSES[corpus]
    for i, name in enumerate(loaded.file_names):
        path, facts = files[Path(name).stem]
        np.testing.assert_array_equal(
            loaded.wave_BN[i, : loaded.length_B[i]], load_int16(path, RATE_HZ)
        )
        assert loaded.labels[loaded.emotion_B[i]] == TABLE[facts.emotion]
        assert loaded.speakers[loaded.actor_B[i] - 1] == facts.speaker
        for key, values in loaded.attributes.items():
            assert values[i] == getattr(facts, key)
    known = {
        "crema_d": {"gender", "intensity", "statement"},
        "savee": {"gender"},
        "tess": {"gender", "statement"},
        "emodb": {"gender", "statement", "repetition"},
    }
    assert set(loaded.attributes) == known[corpus]  # and nothing is made up


def test_a_shard_is_the_same_corpus_with_its_own_samples_alone(make_data):
    data = make_data("emodb", labels={"boredom": None})
    whole = load_corpus(data)
    part = load_shard(data, lambda n_clips: np.arange(1, n_clips, 2))
    for field in dataclasses.fields(whole):
        if field.name not in ("wave_BN", "attributes"):
            np.testing.assert_array_equal(getattr(part, field.name), getattr(whole, field.name))
    np.testing.assert_array_equal(part.wave_BN[1::2], whole.wave_BN[1::2])
    assert not part.wave_BN[::2].any()


@pytest.mark.parametrize("corpus", OTHERS)
def test_a_useless_folder_is_an_error_with_the_corpus_own_grammar(corpus, tmp_path):
    example = GRAMMARS[corpus].expected.split()[4].rstrip(",")
    with pytest.raises(UserError, match=rf"holds no wav or flac.*{re.escape(example)}"):
        load_corpus(DataConfig(corpus=corpus, root=str(tmp_path), store_dir=str(tmp_path)))
    write_tone(tmp_path / "hello.wav", 200)
    with pytest.raises(UserError, match=rf"1 wav or flac file, .* of {GRAMMARS[corpus].title};"):
        load_corpus(DataConfig(corpus=corpus, root=str(tmp_path), store_dir=str(tmp_path)))
    with pytest.raises(UserError, match=rf"data.root: missing.*data.corpus={corpus}"):
        DataConfig(corpus=corpus)


def test_joined_corpora_keep_speakers_apart_and_have_the_classes_of_all(make_data, roots):
    parts = {name: str(roots[name]) for name in ("emodb", "ravdess", "tess")}
    loaded = load_corpus(make_data("joined", roots=parts))
    assert loaded.name == "emodb+ravdess+tess"
    assert loaded.labels == COMMON
    assert len(loaded.speakers) == 6 + 6 + 2  # EmoDB's 03 is not RAVDESS' 03
    assert {"emodb/03", "ravdess/03", "tess/OAF"} < set(loaded.speakers)
    assert Counter(loaded.attributes["corpus"].tolist()) == {"emodb": 42, "ravdess": 48, "tess": 70}
    alone = load_corpus(make_data("emodb"))
    rows = np.flatnonzero(loaded.attributes["corpus"] == "emodb")
    assert [loaded.file_names[row] for row in rows] == [f"emodb/{n}" for n in alone.file_names]
    np.testing.assert_array_equal(loaded.wave_BN[rows], alone.wave_BN)
    np.testing.assert_array_equal(
        np.array(loaded.labels)[loaded.emotion_B[rows]], np.array(alone.labels)[alone.emotion_B]
    )
    intensity = loaded.attributes["intensity"]
    assert set(intensity[rows].tolist()) == {""}  # EmoDB has none


# Labels.


def test_labels_change_classes_but_not_the_store(make_data):
    plain = make_data("emodb")
    changed = make_data("emodb", labels={"boredom": None, "Fear": "sad"})
    assert prepare(plain).folder == prepare(changed).folder
    before, after = load_corpus(plain), load_corpus(changed)
    assert after.labels == ("neutral", "happy", "sad", "angry", "disgust")
    assert len(after.file_names) == len(before.file_names) - 6
    counts = Counter(np.array(after.labels)[after.emotion_B].tolist())
    assert counts == {"neutral": 6, "happy": 6, "sad": 12, "angry": 6, "disgust": 6}
    assert after.checksum != before.checksum


def test_ravdess_takes_labels_too_and_is_left_alone_without(make_data):
    assert load_corpus(make_data("ravdess")).speakers == ()
    merged = load_corpus(make_data("ravdess", labels={"calm": "neutral"}))
    assert merged.labels == tuple(name for name in EMOTIONS if name != "calm")
    assert (merged.emotion_B == 0).sum() == 12


def test_a_new_class_is_a_word_mapped_onto_itself_and_a_slip_is_an_error():
    assert make_label_table({"Excited": "excited", "thrilled": "excited"})["thrilled"] == "excited"
    with pytest.raises(UserError, match=r"data.labels.joyful=hapy: no such class; known are neut"):
        make_label_table({"joyful": "hapy"})


def test_the_table_is_shown_as_settings_that_can_be_given_back(capsys, tmp_path):
    assert main(["labels", "--data.labels", "{boredom: null}"]) == 0
    text = capsys.readouterr().out
    assert yaml.safe_load(text) == {"data": {"labels": {**TABLE, "boredom": None}}}
    (tmp_path / "labels.yaml").write_text(text)
    with pytest.raises(SystemExit):
        main(["train", "--config", str(tmp_path / "labels.yaml"), "--print_config"])
    assert yaml.safe_load(capsys.readouterr().out)["data"]["labels"]["boredom"] is None


# Settings.


def test_settings_of_other_corpora_leave_the_identity_of_ravdess_alone():
    settings = flatten(to_dict(Config()))
    assert settings["data.protocol"] == "study"
    assert not {"data.roots", "data.labels"} & {key.rpartition(".")[0] for key in settings}
    elsewhere = override(Config(), {"data.root": "/a", "data.store_dir": "/b"})
    assert compute_identity(elsewhere) == compute_identity(Config())


def test_folders_decide_no_identity_but_corpora_labels_and_the_manifest_do():
    def identify(**changes) -> str:
        return compute_identity(Config(data=DataConfig(**changes)))

    assert identify(corpus="emodb", root="/a") == identify(corpus="emodb", root="/b")
    joined = identify(corpus="joined", roots={"emodb": "/a", "tess": "/b"})
    assert joined == identify(corpus="joined", roots={"tess": "/c", "emodb": "/d"})
    assert joined != identify(corpus="joined", roots={"savee": "/a", "tess": "/b"})
    assert identify(corpus="manifest", root="/a/x.csv") == identify(
        corpus="manifest", root="/b/x.csv"
    )
    assert identify(corpus="manifest", root="x.csv") != identify(corpus="manifest", root="y.csv")
    assert identify(labels={"calm": None}) != identify()


@pytest.mark.parametrize("protocol", ["emobox6", "luna5", "luna5_val2"])
def test_ravdess_folds_are_refused_for_another_corpus(protocol):
    with pytest.raises(UserError, match=rf"data.protocol={protocol}: its folds are of RAVDESS'"):
        DataConfig(corpus="emodb", root="x", protocol=protocol)
    systems = {"a": {}}
    grid = AblationConfig(
        data=DataConfig(corpus="emodb", root="x"), protocols=(protocol,), systems=systems
    )
    with pytest.raises(UserError, match=rf"data.protocol={protocol}: its folds are of RAVDESS'"):
        list_cells(grid)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"roots": {"emodb": "x"}}, "data.roots=.*requires data.corpus=joined"),
        ({"corpus": "joined"}, "data.roots={}: name at least two"),
        ({"corpus": "joined", "root": "x"}, "data.root=x: data.corpus=joined requires data.roots"),
        ({"corpus": "joined", "roots": {"emodb": "x", "iemocap": "y"}}, "data.roots.iemocap=y: no"),
        ({"corpus": "manifest"}, "data.root: missing; with data.corpus=manifest name the CSV"),
    ],
)
def test_settings_that_do_not_fit_are_an_error(changes, said):
    with pytest.raises(UserError, match=said):
        DataConfig(**changes)


def test_run_directories_name_corpus_and_protocol():
    joined = DataConfig(corpus="joined", roots={"tess": "a", "emodb": "b"})
    manifest = DataConfig(corpus="manifest", root="/x/my corpus.csv", protocol="speakers5", fold=2)
    assert default_run_dir(Config(data=joined)).name.startswith(
        "cnn_lstm-emodb+tess-speakers-seed0-"
    )
    assert default_run_dir(Config(data=manifest)).name.startswith(
        "cnn_lstm-my_corpus-speakers5-2-seed0-"
    )


# Splits.


def test_other_corpora_are_split_by_speakers_unless_told_otherwise(make_data):
    for corpus in ("crema_d", "savee", "emodb"):
        config = Config(data=make_data(corpus))
        assert config.data.protocol == "speakers"
        loaded = load_corpus(config.data)
        split = draw_split(config.data, config.seed, loaded)
        parts = [
            set(loaded.actor_B[index].tolist()) for index in (split.train, split.val, split.test)
        ]
        assert sum(map(len, parts)) == len(loaded.speakers) == len(set.union(*parts))
    assert Config(data=make_data("ravdess")).data.protocol == "study"
    grid = AblationConfig(data=make_data("emodb"), systems={"a": {}})
    assert grid.protocols == ("speakers",)


def test_loso_leaves_out_each_speaker_of_any_corpus(make_data):
    data = make_data("savee", protocol="loso")
    grid = AblationConfig(data=data, protocols=("loso",), systems={"a": {}})
    cells = list_cells(grid)
    assert [cell.fold for cell in cells] == [1, 2, 3, 4]
    loaded = load_corpus(data)
    tested = [draw_split(cell.config.data, cell.config.seed, loaded).test for cell in cells]
    np.testing.assert_array_equal(np.sort(np.concatenate(tested)), np.arange(28))
    assert [set(loaded.actor_B[index].tolist()) for index in tested] == [{1}, {2}, {3}, {4}]


def test_two_speakers_cannot_be_split_apart_but_the_study_split_takes_them(make_data):
    data = make_data("tess")
    with pytest.raises(UserError, match=r"data.protocol=speakers: needs at least 3 speakers.*2;"):
        check_protocols([(data, 0)])
    check_protocols([(dataclasses.replace(data, protocol="study"), 0)])


# One corpus on another's network.


def test_results_carry_the_protocol_and_the_corpus(runs):
    for corpus, config in runs.items():
        metrics = json.loads((Path(config.run_dir) / "metrics.json").read_text())
        assert (metrics["corpus"], metrics["protocol"]) == (corpus, "speakers")
        assert load_run_config(config.run_dir) == config
    by = json.loads((Path(runs["emodb"].run_dir) / "metrics.json").read_text())["test"]["by"]
    assert set(by) == {"emotion", "gender", "statement"}  # EmoDB knows no intensity


@pytest.mark.parametrize("corpus", OTHERS)
def test_a_network_is_measured_on_the_classes_that_it_shares_with_another_corpus(
    corpus, runs, make_data
):
    found = measure(runs["ravdess"].run_dir, make_data(corpus))
    report, other = found.report, load_corpus(make_data(corpus))
    assert (found.corpus, found.part, found.protocol) == (corpus, "all", "speakers split")
    assert report["labels"] == list(EMOTIONS)
    names = Counter(np.array(other.labels)[other.emotion_B].tolist())
    left_out = names.pop("bored", 0)
    assert report.get("left_out", {}) == ({"bored": left_out} if left_out else {})
    counts = dict(zip(EMOTIONS, np.sum(report["confusion"], axis=1), strict=True))
    assert {name: n for name, n in counts.items() if n} == names
    recalls = [report["by"]["emotion"][name]["accuracy"] for name in names]
    assert report["uar"] == pytest.approx(np.mean(recalls))  # absent classes weigh nothing


def test_evaluate_says_what_was_left_out_and_what_is_absent(runs, roots, capsys):
    command = ["evaluate", str(runs["emodb"].run_dir)]
    assert main([*command, "--data.corpus", "ravdess", "--data.root", str(roots["ravdess"])]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "ravdess, all clips; trained on the speakers split of emodb" in said
    assert "left out, since the run does not know their classes: 6 calm, 6 surprised" in said
    assert "no clips of bored: predicting them counts as wrong" in said
    flags = ["--data.labels", "{calm: neutral, surprised: happy}"]
    root = ["--data.corpus", "ravdess", "--data.root", str(roots["ravdess"])]
    assert main([*command, *root, *flags]) == 0
    assert "left out" not in capsys.readouterr().out


def test_a_split_of_recordings_that_are_not_the_runs_is_refused(runs, make_data):
    with pytest.raises(UserError, match="split=test: these are not the recordings"):
        measure(runs["emodb"].run_dir, make_data("ravdess"), split="test")


def test_predictions_name_the_protocol_of_their_network(runs, roots, capsys):
    file = next(roots["emodb"].rglob("*.wav"))
    assert main(["predict", str(runs["emodb"].run_dir), str(file)]) == 0
    assert "lstm trained on the speakers split of emodb" in " ".join(
        capsys.readouterr().out.split()
    )


# The key data.source, which is gone.


def test_corpora_of_tensorflow_datasets_are_refused_in_one_line_that_says_how(tmp_path, capsys):
    path = tmp_path / "old.yaml"
    path.write_text("data: {corpus: savee, source: tfds, root: /datasets}")
    for options in (["--data.source=tfds"], ["--data.source", "folder"], ["--config", str(path)]):
        assert main(["train", "--data.corpus=savee", *options]) == 2
        said = capsys.readouterr().err
        assert re.fullmatch(r"ser-jax: error: .*data.source: .* folders: .* data.root .*\n", said)
    with pytest.raises(UserError, match=r"^data.source: .* data.root"):
        override(Config(), {"data.corpus": "savee", "data.source": "tfds"})


def test_settings_of_a_run_that_read_a_folder_under_that_key_are_still_read(tmp_path, capsys):
    changes = {"data.corpus": "savee", "data.root": str(tmp_path)}
    assert override(Config(), {**changes, "data.source": "folder"}) == override(Config(), changes)
    path = tmp_path / "old.yaml"
    path.write_text(f"data: {{corpus: savee, source: folder, root: {tmp_path}}}")
    with pytest.raises(SystemExit):
        main(["train", "--config", str(path), "--print_config"])
    assert yaml.safe_load(capsys.readouterr().out)["data"]["root"] == str(tmp_path)
