"""The command line as a user meets it: keys, files, one-line errors, help, completion."""

import errno
import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

from ser_jax import AblationConfig, UserError, __version__, load_config
from ser_jax.cli.arguments import parse
from ser_jax.cli.commands import main
from ser_jax.config import Config, flatten, to_dict
from ser_jax.data.corpus import PrepareReport

COMMANDS = ["prepare", "train", "evaluate", "predict", "ablate", "report"]
HEAVY = ["jax", "flax", "numpy", "librosa", "tensorflow_datasets", "matplotlib", "sklearn", "rich"]


@pytest.fixture
def write(tmp_path):
    """Writes a file and returns its path."""

    def write(text: str | bytes, name: str = "config.yaml") -> str:
        path = tmp_path / name
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        return str(path)

    return write


def fail(capsys, *argv: str) -> str:
    """Run a command that must fail; its one line."""
    assert main(list(argv)) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    lines = captured.err.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("ser-jax: error: ")
    return lines[0].removeprefix("ser-jax: error: ")


def run_python(*args: str, **kwargs) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, *args], capture_output=True, text=True, **kwargs)


# Keys and files.


def test_no_key_gives_the_defaults():
    assert parse(["train"]).config == Config()


def test_command_line_wins_over_the_file_wherever_it_stands(write):
    path = write("seed: 1\ntrain: {epochs: 2, batch_size: 8}\n")
    for argv in (
        ["--seed", "5", "--config", path],
        ["--config", path, "--seed", "5"],
        [f"--config={path}", "--seed=5"],
        ["--seed", "5", f"--config={path}"],
    ):
        config = parse(["train", *argv]).config
        assert (config.seed, config.train.epochs, config.train.batch_size) == (5, 2, 8)


def test_a_later_file_wins_over_an_earlier_one(write):
    first, second = write("seed: 1\nrun_dir: a\n", "1.yaml"), write("seed: 2\n", "2.yaml")
    config = parse(["train", "--config", first, "--config", second]).config
    assert (config.seed, config.run_dir) == (2, "a")


def test_keys_of_every_type_are_read(write):
    path = write(
        "train: {learning_rate: 1e-5}\nfeatures: {top_db: null}\nmodel:\n  dense: [7, 8]\n"
    )
    config = parse(["train", "--config", path, "--data.root", "2024", "--data.clip_s=3"]).config
    assert config.train.learning_rate == 1e-5
    assert config.features.top_db is None
    assert config.model.dense == (7, 8)
    assert config.data.root == "2024"
    assert config.data.clip_s == 3.0
    config = parse(["train", "--model.channels", "[4, 8]", "--train.learning_rate", "1e-5"]).config
    assert (config.model.channels, config.train.learning_rate) == ((4, 8), 1e-5)
    config = parse(["train", "--features.fmax_hz", "null", "--augment.enabled", "true"]).config
    assert (config.features.fmax_hz, config.augment.enabled) == (None, True)


def test_a_flag_may_stand_alone():
    assert parse(["prepare", "--data.strict", "--data.root", "x"]).config.strict
    assert parse(["prepare", "--data.root", "x", "--data.strict"]).config.strict
    assert not parse(["prepare", "--data.strict", "false"]).config.strict


def test_sections_may_be_written_with_dots_and_left_empty(write):
    config = parse(["train", "--config", write("train.epochs: 3\nmodel:\n")]).config
    assert config.train.epochs == 3


def test_printed_config_is_the_config(write, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["train", "--seed", "3", "--model.channels", "[4]", "--print_config"])
    assert not stop.value.code
    config = load_config(write(capsys.readouterr().out))
    assert config == parse(["train", "--seed", "3", "--model.channels", "[4]"]).config


def test_saved_config_of_a_run_is_read_back_as_it_was(write):
    config = parse(["train", "--train.learning_rate", "1e-7", "--data.clip_s", "2.5"]).config
    assert load_config(write(yaml.safe_dump(to_dict(config)))) == config


# Grids.

GRID = """
seeds: [0, 1]
train: {epochs: 2}
systems:
  slow: {model.name: lstm, train.learning_rate: 1e-4}
  small:
    model: {name: cnn, channels: [4, 8]}
"""


def test_systems_are_typed_and_dotted(write):
    grid = parse(["ablate", "--config", write(GRID)]).config
    assert grid.systems == {
        "slow": {"model.name": "lstm", "train.learning_rate": 1e-4},
        "small": {"model.name": "cnn", "model.channels": (4, 8)},
    }
    assert grid == load_config(write(GRID), AblationConfig)


def test_command_line_wins_over_what_a_system_sets(write):
    argv = ["ablate", "--train.learning_rate=0.5", "--config", write(GRID), "--seeds", "[7]"]
    grid = parse([*argv, "--model.channels", "[3]"]).config
    assert grid.train.learning_rate == 0.5
    assert grid.model.channels == (3,)
    assert grid.seeds == (7,)
    assert grid.systems == {"slow": {"model.name": "lstm"}, "small": {"model.name": "cnn"}}


@pytest.mark.parametrize(
    ("system", "said"),
    [
        ("{model.nme: cnn}", "systems.a: model.nme: unknown key; did you mean model.name?"),
        ("{model.name: rnn}", "systems.a: model.name=rnn: must be one of cnn, lstm, cnn_lstm"),
        ("{model.hidden: many}", "systems.a: model.hidden=many: must be a whole number"),
        ("{model.hidden: 0}", "systems.a: model.hidden=0: must be at least 1"),
        ("{seeds: [1]}", "systems.a: seeds: unknown key"),
        ("[1]", "must be a mapping"),
    ],
)
def test_a_bad_system_is_named(write, capsys, system, said):
    path = write(f"systems:\n  a: {system}\n")
    assert said in fail(capsys, "ablate", "--config", path)


# Bad input: one line, with the key or file, the value and the remedy.


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        ("train --train.epoch 3", "--train.epoch: unknown key; did you mean --train.epochs?"),
        ("train --epochs 3", "--epochs: unknown key; did you mean --train.epochs?"),
        ("train --run-dir x", "--run-dir: unknown key; did you mean --run_dir?"),
        ("train --zzz=3", "--zzz: unknown key; see ser-jax train --help"),
        ("train --train.epochs ten", "train.epochs=ten: must be a whole number"),
        ("train --data.fold 2.5", "data.fold=2.5: must be a whole number"),
        ("train --train.learning_rate x", "train.learning_rate=x: must be a number"),
        ("train --data.strict maybe", "data.strict=maybe: must be true or false"),
        ("train --data.clip_s x", "data.clip_s=x: must be a number or null"),
        ("train --model.name rnn", "model.name=rnn: must be one of cnn, lstm, cnn_lstm"),
        ("train --model.channels 3", "model.channels=3: must be a list, each entry a whole number"),
        ("train --train.epochs -3", "train.epochs=-3: must be at least 1"),
        ("train --augment.p 2", "augment.p=2.0: must lie between 0 and 1"),
        ("train --seed", "--seed: its value is missing"),
        ("train --config", "--config: its value is missing"),
        ("train extra", "extra: not expected here"),
        ("tran", "tran: unknown command; did you mean train?"),
        ("--frob", "--frob: not expected here; see ser-jax --help"),
        ("predict", "RUN_DIR, FILE: missing; see ser-jax predict --help"),
        ("predict run", "FILE: missing"),
        ("predict run a.wav --format xml", "format=xml: must be one of table, json, csv"),
        ("evaluate run --split tests", "split=tests: must be one of test, val, train, all"),
        (
            "evaluate run --data.corpus x",
            "data.corpus=x: must be one of ravdess, synthetic, crema_d, savee, tess, emodb, ",
        ),
        ("report", "DIR: missing"),
        ("train --config none.yaml", "none.yaml: cannot read: No such file or directory"),
        ("train --config .", ".: cannot read: Is a directory"),
    ],
)
def test_bad_command_line_is_one_line(capsys, argv, said):
    assert fail(capsys, *argv.split()).startswith(said)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("train: {epoch: 3}", "train.epoch: unknown key; did you mean train.epochs?"),
        ("modle: {name: cnn}", "modle.name: unknown key; did you mean model.name?"),
        ("modle: {}", "modle: unknown key"),
        ("7: 3", "7: unknown key"),
        ("train: {epochs: many}", "train.epochs=many: must be a whole number"),
        ("train: {epochs: {a: 1}}", "train.epochs={'a': '1'}: must be a whole number"),
        ("train: 3", "train=3: write its keys below it"),
        ("model: {name: rnn}", "model.name=rnn: must be one of"),
        ("- 1\n- 2", "is not a mapping"),
        ("only text", "is not a mapping"),
        ("", "is empty"),
        ("# nothing\n", "is empty"),
        ("a: [1, 2\nb: }", "is not YAML at line 2"),
        ("train: {epochs: 1}\ntrain: {epochs: 2}", "key 'train' is repeated"),
        ("a: !!python/object:os.system 1", "is not YAML"),
        (b"\xff\xfe\x00\x01junk", "is not text"),
        (b"\x00\x01\x02", "is not YAML"),
    ],
)
def test_bad_config_file_is_one_line_that_names_it(write, capsys, text, said):
    path = write(text)
    line = fail(capsys, "train", "--config", path)
    assert line.startswith(f"{path}: ")
    assert said in line
    with pytest.raises(UserError, match=path):
        load_config(path)


# The functions behind the commands.


def test_commands_reach_their_functions(monkeypatch, capsys, tmp_path):
    import ser_jax.data.store
    import ser_jax.report.rebuild

    seen = []
    report = PrepareReport(
        "synthetic",
        tmp_path,
        True,
        8,
        {"song": ("s.wav",), "duplicates": ("b.wav", "c.wav")},
        (),
        ("a.wav: empty",),
        {("sad", "01", "male"): 5, ("happy", "02", ""): 3},
        2**20,
        1.5,
    )
    monkeypatch.setattr(ser_jax.data.store, "prepare", lambda data: (seen.append(data), report)[1])
    assert main(["prepare", "--data.corpus", "synthetic"]) == 0
    assert seen[0].corpus == "synthetic"
    out = capsys.readouterr().out
    assert "8 clips, 1.0 MiB, built in 1.5 s" in out
    assert "2 speakers (1 male), 3 to 5 clips each" in out
    assert "5 sad, 3 happy" in out
    assert "skipped: 1 song, 2 duplicate, 1 unreadable" in out
    assert "  duplicate: b.wav\n  duplicate: c.wav\n" in out

    monkeypatch.setattr(ser_jax.report.rebuild, "rebuild", lambda folder: [Path(folder) / "a.png"])
    assert main(["report", "out"]) == 0
    assert capsys.readouterr().out == "out/a.png\n"


def stop_prepare(monkeypatch, error: BaseException):
    import ser_jax.data.store

    def stop(data):
        raise error

    monkeypatch.setattr(ser_jax.data.store, "prepare", stop)


def test_interrupt_says_how_to_resume(monkeypatch, capsys):
    stop_prepare(monkeypatch, KeyboardInterrupt())
    assert main(["prepare"]) == 130
    err = capsys.readouterr().err.strip()
    assert "\n" not in err
    assert "the same command" in err


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EFBIG, errno.EACCES])
def test_an_unwritable_disk_is_one_line(monkeypatch, capsys, number):
    stop_prepare(monkeypatch, OSError(number, "No way", "/x/file"))
    assert fail(capsys, "prepare").startswith("/x/file: No way; ")


def test_a_bug_keeps_its_traceback(monkeypatch):
    stop_prepare(monkeypatch, ZeroDivisionError())
    with pytest.raises(ZeroDivisionError):
        main(["prepare"])


def test_a_message_of_several_lines_becomes_one(monkeypatch, capsys):
    stop_prepare(monkeypatch, UserError("a.wav:\n  bad"))
    assert fail(capsys, "prepare") == "a.wav: bad"


def test_closed_pipe_is_quiet():
    command = f"{sys.executable} -m ser_jax train --print_config | true"
    done = subprocess.run(command, shell=True, capture_output=True, text=True)
    assert done.stderr == ""


PREDICTIONS = [
    SimpleNamespace(file="a, [b].wav", start_s=0.0, end_s=2.5, label="sad",
                    probabilities={"sad": 0.75, "calm": 0.25}),
    SimpleNamespace(file="c.wav", start_s=0.0, end_s=1.0, label="calm",
                    probabilities={"sad": 0.1, "calm": 0.9}),
]  # fmt: skip


def test_predictions_are_machine_readable(capsys):
    import csv

    from ser_jax.cli.printing import print_predictions

    print_predictions(PREDICTIONS, "json")
    rows = json.loads(capsys.readouterr().out)
    assert [row["label"] for row in rows] == ["sad", "calm"]
    assert rows[0]["file"] == "a, [b].wav"
    assert rows[0]["probabilities"] == {"sad": 0.75, "calm": 0.25}

    print_predictions(PREDICTIONS, "csv")
    rows = list(csv.DictReader(capsys.readouterr().out.splitlines()))
    assert [row["file"] for row in rows] == ["a, [b].wav", "c.wav"]
    assert [float(row["calm"]) for row in rows] == [0.25, 0.9]


def test_predictions_are_readable_as_a_table(capsys):
    from ser_jax.cli.printing import print_predictions

    print_predictions(PREDICTIONS, "table")
    out = capsys.readouterr().out
    assert "a, [b].wav" in out
    assert "0.75" in out


# Help and completion.


def test_help_explains_every_key_with_its_default(capsys):
    with pytest.raises(SystemExit):
        main(["train", "--help"])
    text = " ".join(capsys.readouterr().out.split())
    empty = ["data.roots", "data.labels", "model.kwargs"]  # mappings
    keys = [*flatten(to_dict(Config())), *empty]
    for key in keys:
        assert f"--{key} " in text
    assert "twice the time for no more accuracy. (default: 1024)" in text
    assert "Learning rate. (default: 0.001)" in text
    assert text.count("(default: ") == len(keys)


@pytest.mark.parametrize("command", COMMANDS)
def test_help_loads_nothing_heavy(command):
    code = (
        "import sys; from ser_jax.cli.commands import main\n"
        f"try: main(['{command}', '--help'])\n"
        f"finally: assert not (bad := set({HEAVY}) & set(sys.modules)), bad"
    )
    done = run_python("-c", code)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"usage: ser-jax {command}")


def test_version_is_printed(capsys):
    with pytest.raises(SystemExit):
        main(["--version"])
    assert capsys.readouterr().out == f"ser-jax {__version__}\n"


def test_every_exported_name_is_there():
    import ser_jax

    for name in ("Config", "AblationConfig", "UserError", "load_config", "prepare", "load_corpus"):
        assert name in dir(ser_jax)
        assert getattr(ser_jax, name).__name__ == name
    with pytest.raises(AttributeError, match="frob"):
        _ = ser_jax.frob


@pytest.mark.parametrize(
    ("words", "completed"),
    [
        (["tr"], ["train"]),
        (["train", "--train.ep"], ["--train.epochs"]),
        (["train", "--model.name", "c"], ["cnn", "cnn_lstm", "cvt"]),
        (["ablate", "--data.corpus", "syn"], ["synthetic"]),
    ],
)
def test_bash_completes_commands_keys_and_values(tmp_path, words, completed):
    pytest.importorskip("shtab", reason="comes with jsonargparse[shtab]")
    script = tmp_path / "completion.sh"
    script.write_text(
        run_python("-m", "ser_jax", "--print_completion=shtab-bash", check=True).stdout
    )
    code = (
        'source "$0"; COMP_WORDS=(ser-jax "$@"); COMP_CWORD=$#; COMP_TYPE=9\n'
        'COMP_LINE="${COMP_WORDS[*]}"; COMP_POINT=${#COMP_LINE}\n'
        '_shtab_ser_jax ser-jax "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD - 1]}"\n'
        'printf "%s\\n" "${COMPREPLY[@]}"'
    )
    done = subprocess.run(
        ["bash", "-c", code, str(script), *words], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == completed
