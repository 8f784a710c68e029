"""Manifests: any corpus as a CSV file, with errors that name row and remedy."""

import collections
import dataclasses
import re
import shlex
import unicodedata
from pathlib import Path

import numpy as np
import pytest
import yaml
from named_corpora import RATE_HZ, TINY, write_tone

from ser_jax.api import train
from ser_jax.audio.reading import load_int16
from ser_jax.cli.commands import main
from ser_jax.config import Config, DataConfig, override
from ser_jax.data.protocols import check_protocols
from ser_jax.data.splits import draw_split
from ser_jax.data.store import load_corpus, prepare
from ser_jax.errors import UserError
from ser_jax.inference.evaluate import evaluate
from ser_jax.run.run_dir import default_run_dir

EMOTIONS = ("joy", "Sadness", "anger")
HEAD = "path,emotion,speaker,gender"


@pytest.fixture
def rows(tmp_path) -> list[str]:
    """A header and 24 rows: 4 speakers, 3 emotions, 2 clips of each."""
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


def test_columns_may_come_in_any_order_and_others_are_ignored(rows, write):
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
    "empty": (lambda rows: b"", r"is empty; its header is path,emotion,speaker"),
    "head alone": (lambda rows: rows[:1], "holds no clips; write a row for each"),
    "no speaker": (
        lambda rows: [",".join(row.split(",")[:2]) for row in rows],
        r"row 1: the header lacks speaker \(it names path, emotion\); columns are path, emotion, s",
    ),
    "column twice": (replace_row(1, "path,emotion,speaker,Speaker"), "row 1: names speaker twice"),
    "ragged": (replace_row(5, "clips/a3.wav,joy,a"), "row 5: has 3 values, but the header names 4"),
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
        r"row 9: path=clips/../clips/a0.wav: appears in row 2 already as path=clips/a0.wav; delete",
    ),
    "encoding": (
        lambda rows: "\n".join([*rows[:3], "clips/ä.wav,joy,a,f"]).encode("latin-1"),
        "row 4: is not UTF-8 text; save the file as CSV in UTF-8",
    ),
    "one speaker": (
        keep_speaker,
        "row 2: speaker=a: is the only speaker; data.protocol=speakers needs several; add spea",
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


# What else a manifest may say.


def add_column(rows: list[str], name: str, values) -> list[str]:
    return [f"{rows[0]},{name}", *(f"{row},{values(row)}" for row in rows[1:])]


def split_by_speaker(row: str) -> str:
    return {"a": "train", "b": "Training", "c": "dev", "d": "test"}[row.split(",")[2]]


def test_a_manifest_s_own_split_is_taken_unless_another_is_named(rows, write, tmp_path):
    data = write(add_column(rows, "split", split_by_speaker))
    assert data.protocol == "given"
    config = override(Config(data=data), {**TINY, "run_dir": str(tmp_path / "run")})
    split = draw_split(config.data, config.seed, corpus := load_corpus(data))
    parts = [split.train, split.val, split.test]
    speakers = [sorted({corpus.speakers[n - 1] for n in corpus.actor_B[part]}) for part in parts]
    assert speakers == [["a", "b"], ["c"], ["d"]]
    metrics = train(config, observe=lambda event: None)
    assert metrics["protocol"] == "given"
    assert set(metrics["test"]["by"]) == {"emotion", "gender"}
    assert dataclasses.replace(data, protocol="speakers").protocol == "speakers"
    assert default_run_dir(config).name.startswith("lstm-mine-given-seed0-")


def test_one_speaker_may_have_a_split_of_its_own(rows, write):
    turn = iter(["train", "train", "dev", "test"] * 6)
    same = [rows[0], *(re.sub(r",[abcd],\w$", ",a,f", row) for row in rows[1:])]
    one = add_column(same, "split", lambda row: next(turn))
    write(one)
    data = write(one)
    assert data.protocol == "given"
    check_protocols([(data, 0)])


def test_a_run_of_a_given_split_is_measured_on_recordings_that_have_none(rows, write, tmp_path):
    split = write(add_column(rows, "split", split_by_speaker))
    config = override(Config(data=split), {**TINY, "run_dir": str(tmp_path / "run")})
    train(config, observe=lambda event: None)
    write(rows)
    assert evaluate(tmp_path / "run", split, "all")["n"] == len(rows) - 1


def test_an_unknown_word_for_a_part_is_named_if_the_split_is_taken(rows, write):
    odd = add_column(rows, "split", lambda row: "tarin" if ",a," in row else "test")
    write(odd)
    with pytest.raises(UserError, match=r"mine.csv: split: unknown: tarin \(6 rows\); known are"):
        load_corpus(write(odd))
    load_corpus(dataclasses.replace(write(odd), protocol="speakers"))
    write(empty := add_column(rows, "split", lambda row: "" if "a3" in row else "test"))
    with pytest.raises(UserError, match="row 5: has no split; fill it in"):
        load_corpus(write(empty))


@pytest.mark.parametrize(("others", "eval_part"), [("test", "val"), ("train", "test")])
def test_eval_means_test_beside_train_and_validation_beside_test(others, eval_part, rows, write):
    marked = add_column(rows, "split", lambda row: "eval" if ",a," in row else others)
    write(marked)
    corpus = load_corpus(write(marked))
    assert set(corpus.attributes["split"][corpus.actor_B == 1]) == {eval_part}


def test_speakers_in_two_parts_of_a_given_split_are_named(rows, write, capsys):
    turn = iter(["train", "train", "dev", "test"] * 6)
    mixed = add_column(rows, "split", lambda row: next(turn))
    write(mixed)
    check_protocols([(write(mixed), 0)])
    assert "4 speakers are in two parts, so that the test is easier" in capsys.readouterr().err


def cut_rows(tmp_path, spans, name="long") -> list[str]:
    """A file per speaker, of which each row is a part."""
    rows = ["path,start,end,emotion,speaker"]
    for speaker in "abcd":
        path = f"clips/{speaker}_{name}.wav"
        write_tone(tmp_path / path, 400, ord(speaker), clip_s=2.0)
        rows += [
            f"{path},{start},{end},{EMOTIONS[n % 3]},{speaker}"
            for n, (start, end) in enumerate(spans)
        ]
    return rows


def test_parts_of_a_file_are_clips_of_their_own(write, tmp_path):
    spans = [(n * 0.25, n * 0.25 + 0.25) for n in range(6)]
    corpus = load_corpus(write(cut_rows(tmp_path, spans)))
    assert len(corpus.file_names) == 24
    assert corpus.file_names[1] == "clips/a_long.wav#0.25-0.5"
    whole_N = load_int16(tmp_path / "clips/a_long.wav", RATE_HZ)
    for row in range(6):
        start = round(spans[row][0] * RATE_HZ)
        np.testing.assert_array_equal(
            corpus.wave_BN[row], whole_N[start : start + corpus.length_B[row]]
        )


@pytest.mark.parametrize(
    ("span", "said"),
    [
        ((1.0, 0.5), "row 2: start=1.0, end=0.5: a segment starts at 0 s or later and"),
        ((-1, 0.5), "row 2: start=-1, end=0.5: a segment starts"),
        (("x", 0.5), "row 2: start=x: is not a number of seconds; correct it"),
    ],
)
def test_a_part_that_is_not_in_its_file_is_an_error(span, said, write, tmp_path):
    with pytest.raises(UserError, match=said):
        load_corpus(write(cut_rows(tmp_path, [span, (0, 0.2)])))


@pytest.mark.parametrize(("span", "end"), [((500, 3000), "3000"), ((2.0, ""), "inf")])
def test_a_part_that_begins_beyond_its_file_is_left_out_and_named(span, end, write, tmp_path):
    spans = [span, *((n * 0.25, n * 0.25 + 0.25) for n in range(5))]
    report = prepare(write(cut_rows(tmp_path, spans)))
    assert report.clips == 20
    assert len(report.bad) == 4
    said = f"row 2: start={span[0]:g}, end={end}: clips/a_long.wav lasts 2.000 s; times are in sec"
    assert any(said in line for line in report.bad)


def test_a_part_that_ends_beyond_its_file_is_cut_there_and_named_once(write, tmp_path, capsys):
    spans = [(0.5, 3.0), *((n * 0.25, n * 0.25 + 0.25) for n in range(5))]
    data = write(cut_rows(tmp_path, spans))
    for _ in range(2):
        corpus = load_corpus(data)
    row = corpus.file_names.index("clips/a_long.wav#0.5-3.0")
    assert corpus.length_B[row] == round(1.5 * RATE_HZ)
    (line,) = capsys.readouterr().err.splitlines()
    assert "4 rows end after their files; they are cut there; the first: " in line
    assert "row 2: start=0.5, end=3: clips/a_long.wav lasts 2.000 s" in line


def test_parts_that_overlap_across_the_split_are_named(write, tmp_path, capsys):
    spans = [(n * 0.25, n * 0.25 + 0.3) for n in range(6)]
    data = write(cut_rows(tmp_path, spans), protocol="study")
    check_protocols([(data, 0)])
    assert "parts of recordings overlap across the split" in capsys.readouterr().err
    check_protocols([(dataclasses.replace(data, protocol="loso"), 0)])
    assert "overlap" not in capsys.readouterr().err


def test_the_same_file_twice_may_be_two_parts_of_it(rows, write):
    again = [*rows, "clips/a0.wav,anger,a,f"]
    with pytest.raises(UserError, match=r"row 26: .*or give their segments of the file in c"):
        load_corpus(write(again))
    parts = add_column(again, "start,end", lambda row: "0,0.1" if "a0" in row else ",")
    with pytest.raises(UserError, match=r"start=0, end=0.1: appears in row 2 already; delete one"):
        load_corpus(write(parts))
    parts[-1] = "clips/a0.wav,joy,a,f,0.1,0.2"
    assert len(load_corpus(write(parts)).file_names) == 25


def test_a_speaker_of_two_genders_is_refused(rows, write):
    mixed = [*rows[:3], rows[3].replace(",a,f", ",a,M"), *rows[4:]]
    with pytest.raises(
        UserError, match="speaker=a: is female in row 2 and male in row 4; correct"
    ) as e:
        load_corpus(write([row.replace(",f", ",female") for row in mixed]))
    assert "\n" not in str(e.value)


def test_all_unknown_emotions_stand_in_one_error_whose_remedy_works(rows, write, capsys):
    codes = [r.replace(",joy,", ",3,").replace(",Sadness,", ",no,") for r in rows]
    codes = [row.replace(",anger,", ",2.5 (a: b),") for row in codes]
    data = write(codes)
    flags = ["prepare", "--data.corpus=manifest", f"--data.root={data.root}",
             f"--data.store_dir={data.store_dir}", f"--data.rate_hz={RATE_HZ}"]  # fmt: skip
    assert main(flags) == 2
    said = capsys.readouterr().err
    assert "3 (8 rows from row 2), no (8 rows from row 3), 2.5 (a: b) (8 rows from row 4)" in said
    (remedy,) = re.findall(r"as in (--data.labels '.*?'),", said)
    assert main([*flags, *shlex.split(remedy)]) == 0
    assert "8 happy, 8 sad, 8 angry" in capsys.readouterr().out
    assert main([*flags, "--data.labels={3: happy, no: sad, '2.5 (a: b)': null}"]) == 0
    assert "8 happy, 8 sad\n" in capsys.readouterr().out


def test_words_that_yaml_reads_as_numbers_or_truths_are_words(rows, write, tmp_path, capsys):
    data = write([row.replace(",joy,", ",3,").replace(",anger,", ",no,") for row in rows])
    tree = "data:\n  labels:\n    3: happy\n    no: no\n    n: neutral\n"
    (tmp_path / "c.yaml").write_text(tree)
    with pytest.raises(SystemExit):
        main(["train", "--config", str(tmp_path / "c.yaml"), "--print_config"])
    labels = yaml.safe_load(capsys.readouterr().out)["data"]["labels"]
    assert labels == {"3": "happy", "no": "no", "n": "neutral"}
    assert load_corpus(dataclasses.replace(data, labels=labels)).labels == ("happy", "sad", "no")
    numbered = DataConfig(labels={3: "happy", 4.5: None})  # pyright: ignore[reportArgumentType]
    assert numbered.labels == {"3": "happy", "4.5": None}
    with pytest.raises(UserError, match=r"YAML reads False out of yes, no, on.* in quotes"):
        DataConfig(labels={False: "happy"})  # pyright: ignore[reportArgumentType]


def test_changes_of_files_are_seen_behind_a_path_from_home(rows, write, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    at_home = [rows[0], *(f"~/{row}" for row in rows[1:])]
    before = load_corpus(write(at_home))
    write_tone(tmp_path / "clips/a0.wav", 777)
    assert load_corpus(write(at_home)).checksum != before.checksum


def test_several_manifests_are_joined_under_names_of_their_own(rows, write, tmp_path):
    data = write(rows)
    (tmp_path / "other.csv").write_text("\n".join([rows[0], *rows[7:]]))
    roots = {"one": data.root, "two": str(tmp_path / "other.csv")}
    joined = DataConfig(corpus="joined", roots=roots, rate_hz=RATE_HZ, store_dir=data.store_dir)
    corpus = load_corpus(joined)  # whose clips of the second are copies of the first's
    assert set(corpus.attributes["corpus"]) == {"one"}
    assert len(corpus.file_names) == 24
    assert joined.title == "one+two"
    same = {"manifest": data.root, "mine": str(tmp_path / "other.csv")}
    with pytest.raises(UserError, match=r"another corpus is called mine too; give this manifest"):
        load_corpus(dataclasses.replace(joined, roots=same))
    with pytest.raises(
        UserError, match=r"data.roots.iemocap=folder: no such corpus; .*\{mine: FILE"
    ):
        dataclasses.replace(joined, roots={"iemocap": "folder", "one": data.root})


def test_a_corpus_of_one_class_is_refused_before_it_is_read(rows, write, capsys):
    data = write([row.replace("Sadness", "joy").replace("anger", "happy") for row in rows])
    with pytest.raises(UserError, match="emotion=joy: all 24 clips are happy; a network needs two"):
        check_protocols([(data, 0)])


def test_classes_and_genders_that_a_part_lacks_are_named_with_a_remedy(rows, write, capsys):
    check_protocols([(write(rows), 0)])
    said = capsys.readouterr().err
    assert re.search(
        r"no (fe)?male speakers in test; with 4 speakers take data.protocol=loso", said
    )
    check_protocols([(write(rows, protocol="loso"), 0)])
    assert capsys.readouterr().err == ""


# How other programs and systems write a manifest.


def write_sentences(rows: list[str], delimiter: str, **said: str) -> list[str]:
    """The rows with a column of sentences, some of them `said` of the clip's stem."""
    sentences = [said.get(Path(row.split(",")[0]).stem, "fine") for row in rows[1:]]
    rows = [f"{row},{one}" for row, one in zip(rows, ["sentence", *sentences], strict=True)]
    return [row.replace(",", delimiter) for row in rows]


@pytest.mark.parametrize(
    "said", [{"a3": '"Hello'}, {"a3": '"Hello', "b2": 'said "no"', "c1": '"Bye'}, {"d5": '"End'}]
)
def test_a_stray_quote_takes_no_row_of_a_table_with_tabs(said, rows, write):
    corpus = load_corpus(write(write_sentences(rows, "\t", **said)))
    assert corpus.checksum == load_corpus(write(rows)).checksum


def test_a_stray_quote_joins_no_two_rows_in_the_middle_of_a_table(rows, write):
    turned = [",".join(row.split(",")[:1] + row.split(",")[:0:-1]) for row in rows]
    said = {4: 'x"', 5: '"y', 9: 'z"', 10: '"w', 11: 'v"'}
    moved = []
    for number, row in enumerate(turned):
        path, rest = row.split(",", 1)
        moved.append(f"{path}\t{said.get(number, 'note')}\t{rest}".replace(",", "\t"))
    corpus = load_corpus(write(moved))
    assert corpus.checksum == load_corpus(write(rows)).checksum


def test_a_stray_quote_between_commas_is_an_error_that_names_its_row(rows, write):
    spoilt = write_sentences(rows, ",", a3='"Hello')
    with pytest.raises(
        UserError, match="row 5: a quote opens here and takes the rows after it into"
    ):
        load_corpus(write(spoilt))
    with pytest.raises(
        UserError, match="row 5: a quote opens here and takes the rows after it into"
    ):
        load_corpus(write([*spoilt, *[f"{row},{'x' * 500}" for row in rows[1:]] * 20]))


def test_quoted_cells_may_hold_delimiters_quotes_and_lines(rows, write):
    whole = ['"Well, yes,\nno, fine"', '"she said ""go"""', '"a\n\nb"', '"one\ntwo,three"']
    written = [f"{row},{whole[n % 4] if n else 'sentence'}" for n, row in enumerate(rows)]
    assert load_corpus(write(written)).checksum == load_corpus(write(rows)).checksum


@pytest.mark.parametrize("first", ["sep=;", "SEP=;", '"sep=;"'])
def test_excel_s_own_first_line_is_not_the_header(first, rows, write):
    written = [first, *(row.replace(",", ";") for row in rows)]
    assert load_corpus(write(written)).checksum == load_corpus(write(rows)).checksum
    spoilt = [*written[:3], "clips/z.wav;joy;a;f"]
    with pytest.raises(UserError, match=r"row 4: path=clips/z.wav: no such file"):
        load_corpus(write(spoilt))


def test_excel_s_unicode_text_is_read(rows, write):
    text = "\r\n".join(row.replace(",", "\t") for row in rows)
    assert load_corpus(write(text.encode("utf-16"))).checksum == load_corpus(write(rows)).checksum


def test_empty_cells_beyond_the_header_are_ignored_and_missing_ones_are_named(rows, write):
    checksum = load_corpus(write(rows)).checksum
    assert load_corpus(write([*rows[:9], *(f"{row},," for row in rows[9:])])).checksum == checksum
    with pytest.raises(
        UserError, match=r"row 10: has 3 values.*write a ',' for each column, even where"
    ):
        load_corpus(write([*rows[:9], *(row.rpartition(",")[0] for row in rows[9:])]))


@pytest.mark.parametrize("blank", ["nan", "NaN", "None", "<NA>", "NA", "null", "unknown"])
def test_a_program_s_word_for_an_empty_cell_is_no_value(blank, rows, write):
    corpus = load_corpus(
        write([rows[0], *(re.sub(r",\w+$", f",{blank}", row) for row in rows[1:])])
    )
    assert corpus.attributes == {}
    half = [re.sub(r",\w+$", f",{blank}", row) if n % 2 else row for n, row in enumerate(rows)]
    assert set(load_corpus(write(half)).attributes["gender"]) == {"", "female", "male"}


def test_a_speaker_that_is_an_empty_cell_is_an_error(rows, write):
    with pytest.raises(UserError, match="row 2: speaker=nan: stands for an empty cell; fill"):
        load_corpus(write([row.replace(",a,", ",nan,") for row in rows]))


@pytest.mark.parametrize(
    "spelt",
    [("01", "1"), ("1.0", "1"), ("Anna", "anna"), ("S 1", "s_01"), ("s-007", "s-7")],
)
def test_one_speaker_spelt_in_two_ways_is_warned_of(spelt, rows, write, capsys):
    first, second = spelt
    load_corpus(
        write([row.replace(",a,", f",{first},").replace(",b,", f",{second},") for row in rows])
    )
    err = capsys.readouterr().err
    assert f"mine.csv: speaker: {first}, {second}: count as different people" in err


@pytest.mark.parametrize("other", ["10", "11", "a0", "1.5", "100"])
def test_speakers_of_different_numbers_are_not_warned_of(other, rows, write, capsys):
    load_corpus(write([row.replace(",a,", ",1,").replace(",b,", f",{other},") for row in rows]))
    assert "count as different people" not in capsys.readouterr().err


def test_letters_composed_in_two_ways_are_one_speaker_one_word_and_one_file(rows, write, tmp_path):
    forms = ("NFC", "NFD")
    spelt = [rows[0]]
    for number, row in enumerate(rows[1:]):
        path, emotion, speaker, gender = row.split(",")
        here, there = forms[number % 2], forms[(number + 1) % 2]
        stem = f"clips/ü{Path(path).stem}.wav"
        (tmp_path / path).rename(tmp_path / unicodedata.normalize(here, stem))
        word = "fröhlich" if emotion == "joy" else emotion
        cells = (stem, word, f"José {speaker}", gender)
        spelt.append(",".join(unicodedata.normalize(there, cell) for cell in cells))
    corpus = load_corpus(write(spelt, labels={"fröhlich": "happy"}))
    assert corpus.labels == ("happy", "sad", "angry")
    assert corpus.speakers == ("José a", "José b", "José c", "José d")


def test_paths_of_windows_are_found_or_named_as_what_they_are(rows, write):
    corpus = load_corpus(write([row.replace("/", "\\") for row in rows]))
    assert len(corpus.file_names) == 24
    with pytest.raises(UserError, match="as with 23 more rows; this is a Windows path; giv"):
        load_corpus(write([rows[0], *(f"C:\\me\\{row}" for row in rows[1:])]))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("a0.wav", "a0.WAV"), r"a0.WAV\); there is a0.wav; use the same letter case"),
        (("clips/", "https://x.org/"), "as with 23 more rows; URLs are not downloaded; do"),
        (("clips/a", "clips/z"), "as with 5 more rows; paths are relative to the folder of the"),
    ],
)
def test_files_that_are_missing_are_counted_with_their_remedy(change, said, rows, write):
    with pytest.raises(UserError, match=f"row 2: path=.*: no such file .*{said}"):
        load_corpus(write([row.replace(*change) for row in rows]))


def test_rows_that_repeat_others_are_left_out_and_counted(rows, write, capsys):
    checksum = load_corpus(write(rows)).checksum
    for _ in range(2):
        assert load_corpus(write([*rows, *rows[1:4]])).checksum == checksum
    said = "row 26: path=clips/a0.wav: repeats a row above, as do 2 more; they are left out"
    assert capsys.readouterr().err.count(said) == 1
    with pytest.raises(
        UserError, match=r"row 26: .*repeats a row above, as do 2 more \(data.strict"
    ):
        load_corpus(write([*rows, *rows[1:4]], strict=True))
    with pytest.raises(UserError, match=r"row 26: path=clips/a0.wav: appears in row 2 already"):
        load_corpus(write([*rows, "clips/a0.wav,anger,a,f"]))


def test_files_that_are_links_to_one_are_named_with_it_and_counted(rows, write, tmp_path):
    for number in range(3):
        (tmp_path / f"clips/link{number}.wav").symlink_to("a0.wav")
    linked = [*rows, *(f"clips/link{number}.wav,anger,b,f" for number in range(3))]
    said = "row 26: path=clips/link0.wav: appears in row 2 already as path=clips/a0.wav, as do 2 m"
    with pytest.raises(UserError, match=said):
        load_corpus(write(linked))


def test_many_unknown_words_are_counted_and_the_first_are_named(rows, write):
    words = [re.sub(r",(joy|Sadness|anger),", f",w{n},", row) for n, row in enumerate(rows)]
    with pytest.raises(
        UserError, match=r"24 words are not in it: w1 \(row 2\), .* and 4 more;"
    ) as e:
        load_corpus(write(words))
    assert "w20" in str(e.value)
    assert "w21" not in str(e.value)


@pytest.mark.parametrize("program", ["sep=;", "utf-16"])
def test_a_split_is_seen_however_the_table_is_written(program, rows, write):
    marked = [row.replace(",", ";") for row in add_column(rows, "split", split_by_speaker)]
    text = "\n".join(["sep=;", *marked] if program == "sep=;" else marked)
    content = text.encode("utf-16" if program == "utf-16" else "utf-8")
    write(content)
    assert write(content).protocol == "given"
