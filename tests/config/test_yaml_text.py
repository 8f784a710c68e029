"""Settings files: text stays as written, null is refused if it means nothing, no key is lost."""

import pytest

from ser_jax import AblationConfig, Config, load_config
from ser_jax.cli.arguments import parse
from ser_jax.errors import UserError


@pytest.fixture
def load(tmp_path):
    def load(text, kind=Config):
        path = tmp_path / "c.yaml"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return load_config(str(path), kind)

    return load


@pytest.mark.parametrize("word", ["on", "off"])
def test_a_word_that_yaml_reads_as_a_boolean_stays_a_word(load, word):
    assert load(f"parallel:\n  scan: {word}\n").parallel.scan == word


@pytest.mark.parametrize(
    "text", ["sweep: {parallel.scan: [on, off]}", "sweep: {parallel.scan: ['on', 'off']}"]
)
def test_a_sweep_may_hold_words_that_yaml_reads_as_booleans(load, text):
    assert load(text, AblationConfig).sweep == {"parallel.scan": ["on", "off"]}


@pytest.mark.parametrize("row", ["{parallel: {scan: off}}", "{parallel.scan: off}"])
def test_a_row_may_hold_a_word_that_yaml_reads_as_a_boolean(load, row):
    assert load(f"systems: {{a: {row}}}", AblationConfig).systems["a"] == {"parallel.scan": "off"}


@pytest.mark.parametrize("name", ["2024-01-02", "007", "1e3", "no", "1.50", "12:30"])
def test_a_folder_may_look_like_a_number_or_a_date(load, name):
    assert load(f"run_dir: {name}").run_dir == name


@pytest.mark.parametrize("name", ["1", "on", "2024-01-02"])
def test_a_rows_name_is_text(load, name):
    made = load(f"systems:\n  {name}: {{model.name: cnn}}\n  b:\n", AblationConfig)
    assert list(made.systems) == [name, "b"]


@pytest.mark.parametrize(
    ("text", "found"),
    [("010", 10), ("0", 0), ("+7", 7), ("1_000", 1000), ("0x10", 16), ("08", 8)],
)
def test_whole_numbers_are_decimal_even_with_leading_zeros(load, text, found):
    assert load(f"seed: {text}").seed == found


@pytest.mark.parametrize("text", ["1e-3", "1E-3", "1.e-3", ".001", "0.001", "1.0e-3", "+1e-3"])
def test_scientific_notation_is_a_number(load, text):
    assert load(f"train:\n  learning_rate: {text}").train.learning_rate == 1e-3


@pytest.mark.parametrize(
    ("key", "text"),
    [
        ("seed", "seed:"),
        ("train.epochs", "train:\n  epochs:\n  batch_size: 8"),
        ("train.learning_rate", "train: {learning_rate: null}"),
        ("augment.enabled", "augment: {enabled: ~}"),
        ("augment.normalise", "augment: {normalise: null}"),
        ("model.channels", "model:\n  channels:"),
        ("model.name", "model: {name: }"),
        ("data.labels", "data:\n  labels:"),
    ],
)
def test_a_key_without_a_value_is_refused(load, key, text):
    with pytest.raises(UserError, match=rf"c\.yaml: {key}=null: must be .*; give one, or leave"):
        load(text)


@pytest.mark.parametrize("key", ["seeds", "systems", "sweep", "protocols", "out"])
def test_a_grids_key_without_a_value_is_refused(load, key):
    with pytest.raises(UserError, match=rf"{key}=null: must be"):
        load(f"{key}:\n", AblationConfig)


@pytest.mark.parametrize("word", ["None", "none", "null", "~", ""])
def test_every_spelling_of_null_is_null(load, word, monkeypatch):
    made = load(f"run_dir: {word}\nparallel: {{cache_dir: {word}}}\ndata: {{clip_s: {word}}}")
    assert (made.run_dir, made.parallel.cache_dir, made.data.clip_s) == (None, None, None)


def test_none_is_null_on_the_command_line_as_well():
    made = parse(["train", "--parallel.cache_dir", "none", "--data.clip_s=None"]).config
    assert (made.parallel.cache_dir, made.data.clip_s) == (None, None)


def test_none_is_a_word_where_it_is_one(load):
    assert load("augment: {normalise: none}").augment.normalise == "none"


@pytest.mark.parametrize(
    "text", ["train.epochs: 3\ntrain: {epochs: 4}", "train: {epochs: 4}\ntrain.epochs: 3"]
)
def test_a_key_written_in_both_ways_is_refused(load, text):
    with pytest.raises(UserError, match=r"train\.epochs: is repeated, dotted and below"):
        load(text)


@pytest.mark.parametrize("text", ["? [a, b]\n: 3", "train:\n  ? {a: 1}\n  : 3"])
def test_a_key_that_is_not_a_scalar_is_refused(load, text):
    with pytest.raises(UserError, match=r"is not YAML at line .: a key is not a scalar"):
        load(text)


@pytest.mark.parametrize("text", ["[" * 5000, "train: &t {x: *t}"])
def test_endless_nesting_is_refused(load, text):
    with pytest.raises(UserError, match="is nested without end"):
        load(text)


@pytest.mark.parametrize(
    "raw",
    [
        b"\xef\xbb\xbftrain:\n  epochs: 3\n",
        b"train:\r\n  epochs: 3\r\n",
        b'{"train": {"epochs": 3}}',
        b"train.epochs: 3",
    ],
)
def test_other_editors_files_are_read(load, raw):
    assert load(raw).train.epochs == 3


def test_a_file_in_another_encoding_is_refused(load):
    with pytest.raises(UserError, match="is not text in UTF-8"):
        load("train:\n  epochs: 3\n".encode("utf-16"))


def test_a_merged_mapping_gives_way_to_the_rows_own_keys(load):
    text = "systems:\n  a: &a {model.name: cnn, train.epochs: 3}\n  b: {<<: *a, model.name: lstm}"
    made = load(text, AblationConfig)
    assert made.systems["b"] == {"model.name": "lstm", "train.epochs": 3}


@pytest.mark.parametrize("value", ["-1e-3", "-1E0", "-.5"])
def test_a_negative_number_is_a_value_however_it_is_written(value):
    made = parse(["train", "--augment.pitch_min", value]).config
    assert made.augment.pitch_min == float(value)


@pytest.mark.parametrize(
    ("key", "said"), [("train.epochs", "a whole number"), ("train.learning_rate", "a number")]
)
def test_an_empty_value_is_refused_in_words(key, said):
    with pytest.raises(UserError, match=rf"^{key}=: must be {said}"):
        parse(["train", f"--{key}", ""])


def test_variables_in_paths_are_expanded(load, monkeypatch):
    monkeypatch.setenv("PLACE", "/scratch/me")
    made = load("run_dir: $PLACE/run\ndata: {root: '${PLACE}/wav', store_dir: $PLACE}")
    found = made.run_dir, made.data.root, made.data.store_dir
    assert found == ("/scratch/me/run", "/scratch/me/wav", "/scratch/me")


@pytest.mark.parametrize("path", ["$PLACE/run", "${PLACE}/run", "/a/$PLACE"])
def test_an_unset_variable_is_refused(load, monkeypatch, path):
    monkeypatch.delenv("PLACE", raising=False)
    with pytest.raises(UserError, match=r"run_dir=.*: the variable PLACE is not set"):
        load(f"run_dir: {path}")


@pytest.mark.parametrize("name", ["a$b", "$HOME", "5$", "US$ 3"])
def test_a_folder_that_is_there_keeps_its_name(tmp_path, name):
    (tmp_path / name).mkdir()
    assert Config(run_dir=str(tmp_path / name)).run_dir == str(tmp_path / name)


@pytest.mark.parametrize("key", ["run_dir", "data.root", "data.store_dir", "parallel.cache_dir"])
@pytest.mark.parametrize("path", ["gs://bucket/run", "s3://bucket/run", "file:///tmp/run"])
def test_a_url_is_refused_as_a_folder(key, path):
    with pytest.raises(UserError, match=rf"^{key}={path}: is a URL; name a folder"):
        parse(["train", f"--{key}={path}"])


@pytest.mark.parametrize("text", ["seeds: [1, 2, 1]", "folds: [1, 1]", "protocols: [loso, loso]"])
def test_a_repeated_value_of_a_grid_is_refused(load, text):
    key, _, value = text.partition(": ")
    twice = value.strip("[]").split(", ")[0]
    with pytest.raises(UserError, match=rf"^{key}=.*: \['?{twice}'?\] is repeated; name it once"):
        load(text, AblationConfig)


def test_a_row_whose_name_is_too_long_for_a_folder_is_refused(load):
    with pytest.raises(UserError, match=r"^systems\.n+\.\.\.: names a folder"):
        load(f"systems: {{{'n' * 121}: {{}}}}", AblationConfig)


ARGUMENTS = {"units": [6, 5], "sizes": {"rate": 1e-3, "on": True}, "day": "2024-01-02", "no": None}


def test_arguments_of_an_own_network_are_numbers_booleans_or_text(load):
    text = "{units: [6, 5], sizes: {rate: 1e-3, on: true}, day: 2024-01-02, no: null}"
    made = load(f"model: {{name: 'a:B', kwargs: {text}}}")
    assert made.model.kwargs == ARGUMENTS
    made = parse(["train", "--model.name", "a:B", "--model.kwargs", text]).config
    assert made.model.kwargs == ARGUMENTS
    grid = load(f"systems: {{a: {{model: {{name: 'a:B', kwargs: {text}}}}}}}", AblationConfig)
    assert grid.systems["a"]["model.kwargs"] == ARGUMENTS


def test_words_for_emotions_stay_text(load):
    labels = {"3": "4", "no": None, "off": "on"}
    assert load("data: {labels: {3: 4, no: null, off: on}}").data.labels == labels
    made = parse(["train", "--data.labels", "{3: 4, no: null, off: on}"]).config
    assert made.data.labels == labels
