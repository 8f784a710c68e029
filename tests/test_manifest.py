"""Manifests: any corpus by a CSV file, whose errors name row and remedy before all else."""

import collections
import dataclasses
import re
from pathlib import Path

import numpy as np
import pytest
from named_corpora import RATE_HZ, TINY, write_tone

from ser_jax.cli import main
from ser_jax.config import Config, DataConfig, override
from ser_jax.corpora import check_protocols, load_corpus, prepare
from ser_jax.errors import UserError
from ser_jax.run import train

pytestmark = pytest.mark.usefixtures("compile_quickly")
EMOTIONS = ("joy", "Sadness", "anger")
HEAD = "path,emotion,speaker,gender"


@pytest.fixture
def rows(tmp_path) -> list[str]:
    """A head and 24 rows: 4 speakers, 3 emotions, 2 clips of each."""
    rows = [HEAD]
    for speaker in "abcd":
        for number, emotion in enumerate(EMOTIONS * 2):
            path = f"clips/{speaker}{number}.wav"
            write_tone(tmp_path / path, 300 * (1 + number % 3), 10 * ord(speaker) + number)
            rows.append(f"{path},{emotion},{speaker},{'f' if speaker in 'ab' else 'male'}")
    return rows


@pytest.fixture
def write(tmp_path):
    """Writes a manifest and returns the settings that name it."""

    def write(rows: list[str] | bytes, **changes) -> DataConfig:
        path = tmp_path / "mine.csv"
        path.write_bytes(rows if isinstance(rows, bytes) else "\n".join(rows).encode())
        return DataConfig(
            corpus="manifest", root=str(path), rate_hz=RATE_HZ, store_dir=str(tmp_path / "store"),
            **changes,
        )  # fmt: skip

    return write


def test_a_manifest_is_a_corpus_of_its_own_words_and_speakers(rows, write):
    corpus = load_corpus(write(rows))
    assert corpus.name == "mine"
    assert corpus.labels == ("happy", "sad", "angry")
    assert corpus.speakers == ("a", "b", "c", "d")
    assert set(corpus.attributes) == {"gender"}
    for i, file_name in enumerate(corpus.file_names):
        speaker, number = Path(file_name).stem
        assert corpus.speakers[corpus.actor_B[i] - 1] == speaker
        assert corpus.emotion_B[i] == int(number) % 3
        assert corpus.attributes["gender"][i] == ("female" if speaker in "ab" else "male")


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_spreadsheets_ways_of_writing_csv_are_all_read(rows, write, delimiter):
    text = "\r\n".join(row.replace(",", delimiter) for row in [*rows[:1], "", *rows[1:]])
    assert (
        load_corpus(write(b"\xef\xbb\xbf" + text.encode())).checksum
        == load_corpus(write(rows)).checksum
    )


def test_columns_may_stand_in_any_order_and_others_are_passed_over(rows, write):
    checksum = load_corpus(write(rows)).checksum
    turned = [",".join([*row.split(",")[::-1], "x"]) for row in rows]
    turned[0] = "Gender,Speaker,Emotion,Path,age"
    assert load_corpus(write(turned)).checksum == checksum


def test_a_corpus_column_keeps_equal_speakers_apart(rows, write):
    named = [f"{row},{'one' if n % 2 else 'two'}" for n, row in enumerate(rows)]
    named[0] = f"{HEAD},corpus"
    corpus = load_corpus(write(named))
    assert len(corpus.speakers) == 8
    assert set(corpus.attributes["corpus"]) == {"one", "two"}


def test_changed_facts_or_clips_build_another_store(rows, write, tmp_path):
    first = prepare(write(rows)).folder
    assert prepare(write(rows)).folder == first
    changed = [row.replace(",a,f", ",e,f") for row in rows]
    second = prepare(write(changed)).folder
    write_tone(tmp_path / "clips/a0.wav", 999, clip_s=0.3)
    assert len({first, second, prepare(write(rows)).folder}) == 3


def test_a_manifest_trains_and_its_metrics_name_only_what_it_knows(rows, write, tmp_path):
    config = override(Config(data=write(rows)), {**TINY, "run_dir": str(tmp_path / "run")})
    metrics = train(config, observe=lambda event: None)
    assert (metrics["corpus"], metrics["protocol"]) == ("mine", "speakers")
    assert set(metrics["test"]["by"]) == {"emotion", "gender"}
    assert metrics["test"]["n"] == 6  # one speaker of four


def replace_row(number: int, row: str):
    return lambda rows: [*rows[: number - 1], row, *rows[number:]]


def keep_speaker(rows: list[str]) -> list[str]:
    return [rows[0], *(row for row in rows if ",a," in row)]


def drop_emotion(rows: list[str]) -> list[str]:
    return [row for row in rows if ",joy," not in row or row.startswith(("clips/a0", "clips/b0"))]


def rename_rare(rows: list[str]) -> list[str]:
    return [row.replace(",joy,", ",disgust,") if ",joy,d," in row else row for row in rows]


BAD = {
    "empty": (lambda rows: b"", r"is empty; its head is path,emotion,speaker"),
    "head alone": (lambda rows: rows[:1], "holds no clips; write a row for each"),
    "no speaker": (
        lambda rows: [",".join(row.split(",")[:2]) for row in rows],
        r"row 1: the head lacks speaker \(it names path, emotion\); columns are path, emotion, spe",
    ),
    "column twice": (replace_row(1, "path,emotion,speaker,Speaker"), "row 1: names speaker twice"),
    "ragged": (replace_row(5, "clips/a3.wav,joy,a"), "row 5: has 3 values, but the head names 4"),
    "no emotion": (replace_row(5, "clips/a3.wav,,a,f"), "row 5: has no emotion; fill it in"),
    "unknown emotion": (
        replace_row(6, "clips/a4.wav,longing,a,f"),
        r"row 6: emotion=longing: not in the table of labels .*map it by data.labels",
    ),
    "missing file": (
        replace_row(7, "clips/z.wav,joy,a,f"),
        r"row 7: path=clips/z.wav: no such file .*relative to the folder of the manifest",
    ),
    "duplicate": (
        replace_row(9, "clips/../clips/a0.wav,joy,a,f"),
        r"row 9: path=clips/../clips/a0.wav: stands in row 2 already; delete one",
    ),
    "encoding": (
        lambda rows: "\n".join([*rows[:3], "clips/ä.wav,joy,a,f"]).encode("latin-1"),
        "row 4: is not UTF-8 text; save the file as CSV in UTF-8",
    ),
    "one speaker": (
        keep_speaker,
        "row 2: speaker=a: is the only speaker, whom data.protocol=speakers cannot part; add spea",
    ),
    "two clips of a class": (
        drop_emotion,
        r"row 2: emotion=joy: class happy has 2 clips, fewer than the 3 parts of the split; add",
    ),
}


@pytest.mark.parametrize("kind", BAD)
def test_a_bad_manifest_is_one_line_with_row_and_remedy_and_nothing_is_written(
    kind, rows, write, tmp_path, capsys
):
    spoil, said = BAD[kind]
    data = write(spoil(rows))
    flags = [f"--{key}={'null' if value is None else value}" for key, value in TINY.items()]
    flags += [f"--data.store_dir={data.store_dir}", f"--run_dir={tmp_path}/run"]
    before = collections.Counter(tmp_path.rglob("*"))
    assert main(["train", "--data.corpus=manifest", f"--data.root={data.root}", *flags]) == 2
    captured = capsys.readouterr()
    assert captured.err.count("\n") == 1
    assert captured.err.startswith(f"ser-jax: error: {data.root}: ")
    assert re.search(said, captured.err), captured.err
    assert collections.Counter(tmp_path.rglob("*")) == before


def test_a_class_of_which_nobody_in_training_has_clips_is_named(rows, write):
    data = write([*rename_rare(rows), "clips/d9.wav,disgust,d,m"])
    write_tone(Path(data.root or "").parent / "clips/d9.wav", 500)
    check_protocols([(data, seed) for seed in range(8)])  # whose draws leave speaker d in training
    alone = [dataclasses.replace(data, protocol="loso", fold=fold) for fold in (1, 4)]
    check_protocols([(alone[0], 0)])
    with pytest.raises(UserError, match="fold=4: no training speaker has clips of disgust; take"):
        check_protocols([(alone[1], 0)])


def test_a_missing_manifest_is_an_error(tmp_path, capsys):
    assert main(["prepare", "--data.corpus=manifest", f"--data.root={tmp_path}/no.csv"]) == 2
    assert "no.csv: no such file; with data.corpus=manifest give the CSV" in capsys.readouterr().err
    assert main(["prepare", "--data.corpus=manifest", f"--data.root={tmp_path}"]) == 2
    assert "is a folder; with data.corpus=manifest give the CSV" in capsys.readouterr().err


def test_a_manifest_of_one_speaker_can_still_be_measured(rows, write):
    assert np.unique(load_corpus(write(keep_speaker(rows))).actor_B).tolist() == [1]
