"""Names, the store and the corpus: nothing lost silently, nothing half-written, one order."""

import dataclasses
import errno
import hashlib
import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import soundfile

from ser_jax.audio.reading import find_sound, load_int16
from ser_jax.config import DataConfig
from ser_jax.data import assembly, intake, records, store
from ser_jax.data.corpus import with_clip_length
from ser_jax.data.protocols import check_protocols
from ser_jax.data.sources import checksums, download, find, folders
from ser_jax.data.sources.filenames import GRAMMARS, NamedClip
from ser_jax.data.sources.ravdess import EMOTIONS
from ser_jax.data.store import load_corpus, load_shard, prepare
from ser_jax.errors import UserError
from tests.tiny import Child, make_config

RATE_HZ = 16000


def make_name(emotion: int, actor: int, repetition: int = 1, modality: int = 3, channel: int = 1):
    return f"{modality:02}-{channel:02}-{emotion:02}-01-02-{repetition:02}-{actor:02}"


def write_clip(path: Path, seed: int = 0, n_samples: int = 800) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    wave_N = np.random.default_rng(seed).integers(-9000, 9000, n_samples).astype(np.int16)
    soundfile.write(path, wave_N, RATE_HZ)
    return path


@pytest.fixture
def root(tmp_path) -> Path:
    """Sixteen clips of two actors in folders of their own, wav and flac, of several lengths."""
    for actor in (1, 2):
        for emotion in range(1, 9):
            suffix = "wav" if emotion % 2 else "flac"
            path = tmp_path / "in" / f"Actor_{actor:02}" / f"{make_name(emotion, actor)}.{suffix}"
            write_clip(path, seed=10 * actor + emotion, n_samples=600 + 50 * emotion)
    return tmp_path / "in"


@pytest.fixture
def data(root, tmp_path) -> DataConfig:
    return DataConfig(root=str(root), store_dir=str(tmp_path / "store"))


def list_stores(data: DataConfig) -> list[str]:
    return sorted(
        p.name for p in Path(data.store_dir).iterdir() if p.is_dir() and not p.name.startswith(".")
    )


def parse(file_name: str) -> NamedClip | None:
    return GRAMMARS["ravdess"].parse(Path(file_name))


def test_a_name_says_what_ravdess_says_it_does():
    name = parse("03-01-06-02-01-02-12.wav")
    assert name is not None
    assert name.kind == "speech"
    assert name.name == "03-01-06-02-01-02-12"
    assert dataclasses.asdict(name.facts) == {
        "emotion": "fearful",
        "speaker": "12",
        "gender": "female",
        "intensity": "strong",
        "statement": "kids",
        "repetition": "2",
        "corpus": "",
        "split": "",
    }


@pytest.mark.parametrize(
    ("file_name", "kind"),
    [
        ("03-02-06-02-01-02-12.wav", "song"),
        ("01-01-06-02-01-02-12.mp4", "video"),
        ("02-02-06-02-01-02-12.mp4", "video"),
    ],
)
def test_song_and_video_are_not_speech(file_name, kind):
    name = parse(file_name)
    assert name is not None
    assert name.kind == kind


@pytest.mark.parametrize(
    "file_name",
    [
        "hello.wav",
        "03-01-09-01-01-01-01.wav",
        "03-01-00-01-01-01-01.wav",
        "03-01-01-01-01-01-25.wav",
        "03-01-01-01-01-01-00.wav",
        "04-01-01-01-01-01-01.wav",
        "03-03-01-01-01-01-01.wav",
        "03-01-01-01-01-01.wav",
        "03-01-01-01-01-01-01-01.wav",
        "x03-01-01-01-01-01-01.wav",
        "03-01-01-01-01-01-01 (copy).wav",
    ],
)
def test_other_names_are_refused(file_name):
    assert parse(file_name) is None


def test_a_corpus_holds_every_clip_sample_by_sample_sorted_by_name(root, data):
    corpus = load_corpus(data)
    paths = sorted(root.rglob("*.*"), key=lambda path: path.name)
    assert corpus.file_names == tuple(path.name for path in paths)
    assert corpus.labels == EMOTIONS
    assert corpus.wave_BN.dtype == np.int16
    assert corpus.wave_BN.shape == (16, 1000)
    for i, path in enumerate(paths):
        wave_N = load_int16(path, RATE_HZ)
        assert corpus.length_B[i] == len(wave_N)
        np.testing.assert_array_equal(corpus.wave_BN[i, : len(wave_N)], wave_N)
        assert not corpus.wave_BN[i, len(wave_N) :].any()
        assert corpus.emotion_B[i] == int(path.name[6:8]) - 1
        assert corpus.actor_B[i] == int(path.stem[-2:])
        assert corpus.attributes["gender"][i] == {1: "male", 2: "female"}[corpus.actor_B[i]]
    assert set(corpus.attributes) == {"gender", "intensity", "statement", "repetition"}
    assert set(corpus.attributes["intensity"]) == {"normal"}
    assert set(corpus.attributes["statement"]) == {"dogs"}
    assert set(corpus.attributes["repetition"]) == {"1"}


def test_a_store_is_built_once_and_then_read(root, data):
    assert prepare(data).built
    inode = (prepare(data).folder / "report.json").stat().st_ino
    report = prepare(data)
    assert not report.built
    assert (report.folder / "report.json").stat().st_ino == inode
    assert load_corpus(data).checksum == load_corpus(data).checksum


def test_a_store_of_several_files_keeps_the_order_of_the_clips(root, data, monkeypatch):
    monkeypatch.setattr(records, "_PER_FILE", 5)
    monkeypatch.setattr(records, "_AT_ONCE", 3)
    corpus = load_corpus(data)
    assert len([*prepare(data).folder.glob("*.array_record*")]) == 4
    for path in root.rglob("*.*"):
        wave_N = load_int16(path, RATE_HZ)
        row_N = corpus.wave_BN[corpus.file_names.index(path.name)]
        np.testing.assert_array_equal(row_N[: len(wave_N)], wave_N)
    rows = np.array([0, 4, 5, 9, 15])
    part = load_shard(data, lambda n_clips: rows)
    np.testing.assert_array_equal(part.wave_BN[rows], corpus.wave_BN[rows])


def change_file(root, data):
    path = root / "Actor_01" / f"{make_name(1, 1)}.wav"
    write_clip(path, seed=999)
    os.utime(path, ns=(1, 1))
    return data


def add_file(root, data):
    write_clip(root / f"{make_name(1, 3)}.wav")
    return data


def remove_file(root, data):
    (root / "Actor_01" / f"{make_name(1, 1)}.wav").unlink()
    return data


def change_rate(root, data):
    return dataclasses.replace(data, rate_hz=8000)


@pytest.mark.parametrize("change", [change_file, add_file, remove_file, change_rate])
def test_other_input_or_another_rate_builds_another_store(root, data, change):
    before = load_corpus(data)
    data = change(root, data)
    after = load_corpus(data)
    assert before.checksum != after.checksum
    assert len(list_stores(data)) == 2


def test_other_samples_under_equal_names_sizes_and_times_build_another_store(root, data):
    before, path = load_corpus(data), root / "Actor_01" / f"{make_name(1, 1)}.wav"
    stat = path.stat()
    write_clip(path, seed=999, n_samples=650)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert path.stat().st_size == stat.st_size
    assert load_corpus(data).checksum != before.checksum
    assert len(list_stores(data)) == 2


def test_two_folders_of_equal_content_share_a_store(root, data, tmp_path):
    (root / "Actor_02" / f"{make_name(2, 2)}.flac").write_text("not a sound")
    other = dataclasses.replace(data, root=str(shutil.copytree(root, tmp_path / "other")))
    first, second = prepare(data), prepare(other)
    assert (second.folder, second.built) == (first.folder, False)
    assert str(tmp_path / "other") in second.bad[0]  # each names its own bad clip


def test_files_are_read_again_only_if_they_changed(root, data, monkeypatch):
    monkeypatch.setattr(checksums, "_SETTLED_S", -1.0)
    folder = prepare(data).folder
    (cache,) = Path(data.store_dir).glob("checksums-*.json")
    read: list[Path] = []
    compute = checksums._read_checksum
    monkeypatch.setattr(
        checksums, "_read_checksum", lambda path: (read.append(path), compute(path))[1]
    )
    monkeypatch.setattr(checksums, "_known", {})  # as in another process
    assert prepare(data).folder == folder
    assert read == []
    write_clip(root / "Actor_01" / f"{make_name(1, 1)}.wav", seed=77)
    monkeypatch.setattr(checksums, "_known", {})
    assert prepare(data).folder != folder
    assert [path.name for path in read] == [f"{make_name(1, 1)}.wav"]
    for damage in ("", "[]", '{"a": [1]}', "{"):
        cache.write_text(damage)
        monkeypatch.setattr(checksums, "_known", {})
        assert not prepare(data).built


def test_a_file_just_written_is_not_trusted_by_its_times(data):
    prepare(data)
    (cache,) = [*Path(data.store_dir).glob("checksums-*.json"), None][:1]
    assert cache is None or json.loads(cache.read_text()) == {}


def test_a_file_that_changes_while_it_is_read_is_an_error_and_leaves_no_store(
    root, data, monkeypatch
):
    def change_and_load(path: Path, rate_hz: int) -> np.ndarray:
        write_clip(path, seed=123, n_samples=900)
        return load_int16(path, rate_hz)

    monkeypatch.setattr(folders, "load_clip", change_and_load)
    with pytest.raises(UserError, match="has changed while it was read; run this again"):
        prepare(data)
    assert list_stores(data) == []


def test_copies_of_a_clip_are_left_out_whatever_their_names_and_formats(root, data, capsys):
    before = load_corpus(data)
    wave_N, rate_hz = soundfile.read(root / "Actor_01" / f"{make_name(1, 1)}.wav", dtype="int16")
    soundfile.write(root / f"{make_name(1, 1, repetition=2)}.flac", wave_N, rate_hz)
    soundfile.write(root / f"{make_name(3, 7)}.wav", wave_N, rate_hz)
    capsys.readouterr()
    assert load_corpus(data).checksum == before.checksum
    said = capsys.readouterr().err.splitlines()
    name = f"{make_name(1, 1)}.wav"
    assert said == [
        f"warning: clip left out: {make_name(3, 7)}.wav: the same recording as {name}, but "
        "emotion=happy, not neutral, speaker=07, not 01; correct one of them",
        f"warning: 1 clip left out, a copy of another; the first: "
        f"{make_name(1, 1, repetition=2)}.flac: the same recording as {name}",
    ]
    with pytest.raises(UserError, match=r"speaker=07, not 01 \(data.strict=true"):
        prepare(dataclasses.replace(data, strict=True))


def test_a_copy_that_ravdess_itself_publishes_is_kept(root, data, capsys):
    for number in ("01", "02"):
        write_clip(root / f"03-01-03-01-02-{number}-07.wav", seed=70)
    assert prepare(data).clips == 18
    assert capsys.readouterr().err == ""


def test_an_archive_that_is_not_unpacked_is_named(root, data):
    empty_root(root)
    (root / "Audio.zip").write_bytes(b"PK")
    with pytest.raises(UserError, match=r"holds no wav or flac files \(but 1 .zip; unpack"):
        prepare(data)


def test_folders_whose_names_are_no_utf8_are_read(root, data, tmp_path, capsys):
    strange = os.fsdecode(os.fsencode(tmp_path) + b"/Acad\xe9mie")
    shutil.move(root, strange)
    os.rename(f"{strange}/Actor_02/{make_name(2, 2)}.flac", f"{strange}/Actor_02/caf\udce9.flac")
    found = dataclasses.replace(data, root=strange)
    report = prepare(found)
    assert report.skipped["unnamed"] == ("Actor_02/caf\\xe9.flac",)
    store_dir = f"{tmp_path}/\udce9"
    with pytest.raises(UserError, match=r"data.store_dir=.*: its name is not UTF-8 text"):
        prepare(dataclasses.replace(found, store_dir=store_dir))


def test_what_a_store_holds_is_counted_by_class_speaker_and_gender(data):
    for _ in range(2):  # built, then found
        report = prepare(dataclasses.replace(data, labels={"calm": "neutral"}))
        assert report.counts["neutral", "01", "male"] == 2
        assert report.counts["sad", "02", "female"] == 1
        assert sum(report.counts.values()) == 16


def test_a_cut_clip_takes_the_memory_of_the_cut_alone(root, data, monkeypatch):
    write_clip(root / f"{make_name(1, 3)}.wav", seed=50, n_samples=400_000)
    monkeypatch.setattr(assembly, "_MOST_BYTES", 1e6)
    name = f"{make_name(1, 3)}.wav"
    with pytest.raises(UserError, match=rf"^{name}: lasts 25 s, .* set data.clip_s, as in --data"):
        load_corpus(data)
    with pytest.raises(UserError, match=rf"^{name}: lasts 25 s"):
        load_shard(data, lambda n_clips: np.arange(2))
    short = dataclasses.replace(data, clip_s=0.05)
    tracemalloc.start()
    corpus = load_corpus(short)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert corpus.wave_BN.shape == (17, 800)
    assert peak < 17 * 400_000  # bytes; all clips as long would take twice that
    part = load_shard(short, lambda n_clips: np.arange(n_clips))
    np.testing.assert_array_equal(part.wave_BN, corpus.wave_BN)
    assert (
        part.checksum
        == corpus.checksum
        == load_corpus(dataclasses.replace(data, clip_s=1.0)).checksum
    )


def test_ravdess_folders_are_checked_before_they_are_read(root, data):
    with pytest.raises(UserError, match="class neutral has 2 clips, fewer than the 3 parts"):
        check_protocols([(data, 0)])


@pytest.mark.parametrize(
    ("labels", "names"), [({}, {}), ({"calm": "neutral"}, {"calm": "neutral"})]
)
def test_the_checksum_is_over_names_samples_and_changed_classes(root, data, labels, names):
    data = dataclasses.replace(data, labels=labels)
    digest = hashlib.sha256()
    for path in sorted(root.rglob("*.*"), key=lambda path: path.name):
        wave_N = load_int16(path, RATE_HZ)
        emotion = EMOTIONS[int(path.name[6:8]) - 1]
        said = f" {names.get(emotion, emotion)} {path.stem[-2:]}" if labels else ""
        digest.update(f"{path.stem} {len(wave_N)}{said}\n".encode())
        digest.update(wave_N.tobytes())
    assert load_corpus(data).checksum == digest.hexdigest()[:16]
    assert load_shard(data, lambda n_clips: np.arange(2)).checksum == digest.hexdigest()[:16]


def test_a_store_of_another_version_is_neither_read_nor_touched(data, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(store, "_STORE_VERSION", store._STORE_VERSION - 1)
        old = prepare(data).folder
    (old / "report.json").write_text("what that version wrote")
    report = prepare(data)
    assert report.built
    assert report.folder != old
    assert (old / "report.json").read_text() == "what that version wrote"


def test_settings_that_change_no_clip_share_a_store(data):
    prepare(data)
    prepare(dataclasses.replace(data, workers=1, protocol="loso", split_seed=3, clip_s=0.01))
    assert len(list_stores(data)) == 1


def test_moved_recordings_and_their_flac_twins_have_the_same_checksum(root, data, tmp_path):
    checksum = load_corpus(data).checksum
    for path in sorted(root.rglob("*.wav")):
        wave_N, rate_hz = soundfile.read(path, dtype="int16")
        soundfile.write(root / f"{path.stem}.flac", wave_N, rate_hz)
        path.unlink()
    moved = root.rename(tmp_path / "moved")
    assert load_corpus(dataclasses.replace(data, root=str(moved))).checksum == checksum


def test_songs_videos_duplicates_and_unknown_names_are_skipped_and_counted(root, data):
    checksum = load_corpus(data).checksum
    write_clip(root / f"{make_name(3, 1, channel=2)}.wav")
    write_clip(root / f"{make_name(3, 1, modality=1)}.wav")
    (root / f"{make_name(3, 1, modality=2)}.mp4").touch()
    write_clip(root / "copy" / f"{make_name(1, 1)}.wav", seed=5)
    write_clip(root / f"{make_name(1, 3)}.wav", seed=11, n_samples=650)  # 01-..-01's own sound
    write_clip(root / "music.flac")
    write_clip(root / f"._{make_name(4, 1)}.wav")
    (root / "notes.txt").write_text("not a sound")
    report = prepare(data)
    assert report.skipped == {
        "song": (f"{make_name(3, 1, channel=2)}.wav",),
        "video": (f"{make_name(3, 1, modality=1)}.wav", f"{make_name(3, 1, modality=2)}.mp4"),
        "duplicates": (f"copy/{make_name(1, 1)}.wav",),
        "unnamed": ("music.flac",),
    }
    assert report.copies == (
        f"{make_name(1, 3)}.wav: the same recording as {make_name(1, 1)}.wav, "
        "but speaker=03, not 01",
    )
    assert report.clips == 16
    assert load_corpus(data).checksum == checksum


def test_a_second_version_of_the_recordings_is_warned_of_by_its_content(root, data, capsys):
    twin = root / "audio_speech_actors_01-24"
    shutil.copytree(root / "Actor_01", twin / "Actor_01")
    checksum = load_corpus(data).checksum
    assert "name of another" not in capsys.readouterr().err  # as Kaggle has RAVDESS
    other = write_clip(twin / "Actor_01" / f"{make_name(1, 1)}.wav", seed=99, n_samples=650)
    wave_N, rate_hz = soundfile.read(root / "Actor_02" / f"{make_name(2, 2)}.flac", dtype="int16")
    soundfile.write(twin / f"{make_name(2, 2)}.wav", wave_N, rate_hz)  # the same, encoded otherwise
    for _ in range(2):
        assert load_corpus(data).checksum == checksum
    err = capsys.readouterr().err
    used = root / "Actor_01" / f"{make_name(1, 1)}.wav"
    said = "1 file has the name of another clip but other content, and is left out; the "
    assert err.count(f"{said}first: {other} (used: {used}); give a folder with one version") == 1


def test_silent_clips_are_left_out_as_such_and_not_as_copies_of_each_other(root, data, capsys):
    silent = [root / f"{make_name(emotion, 3)}.wav" for emotion in (1, 2, 3)]
    for path in silent:
        soundfile.write(path, np.zeros(800, np.int16), RATE_HZ)
    report = prepare(data)
    assert (report.clips, report.copies) == (16, ())
    assert report.bad == tuple(
        f"{path}: is silent, each of its samples is 0; record it again" for path in silent
    )
    lines = [line for line in capsys.readouterr().err.splitlines() if str(silent[0]) in line]
    assert lines == [f"warning: clip left out: {report.bad[0]}"]
    with pytest.raises(UserError, match=r"is silent, .* again .data.strict=true; without it such"):
        prepare(dataclasses.replace(data, strict=True))


def test_a_link_that_leads_back_to_its_folder_ends(root, data):
    (root / "Actor_01" / "again").symlink_to(root, target_is_directory=True)
    assert prepare(data).clips == 16


def test_a_bad_clip_is_named_counted_and_left_out(root, data, capsys):
    bad = root / "Actor_02" / f"{make_name(2, 2)}.flac"
    bad.write_text("not a sound")
    report = prepare(data)
    assert report.clips == 15
    assert len(report.bad) == 1
    assert str(bad) in report.bad[0]
    warning = capsys.readouterr().err
    assert re.fullmatch(rf"warning: clip left out: {re.escape(str(bad))}: .*\n", warning)
    assert bad.name not in load_corpus(data).file_names
    assert str(bad) in capsys.readouterr().err  # said again by whoever reads the store


@pytest.mark.parametrize("built_before", [False, True])
def test_a_bad_clip_is_an_error_with_strict(root, data, built_before):
    bad = root / "Actor_02" / f"{make_name(2, 2)}.flac"
    bad.write_text("not a sound")
    if built_before:
        prepare(data)
    with pytest.raises(UserError, match=rf"^{re.escape(str(bad))}: .*data.strict"):
        prepare(dataclasses.replace(data, strict=True))
    assert len(list_stores(data)) == built_before


def test_many_bad_clips_do_not_flood_the_screen(root, data, capsys):
    for path in sorted(root.rglob("*.*"))[:12]:
        path.write_text("not a sound")
    assert len(prepare(data).bad) == 12
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 11
    assert "2 more" in lines[-1]


def test_no_readable_clip_is_an_error_and_leaves_no_store(root, data):
    for path in root.rglob("*.*"):
        path.write_text("not a sound")
    with pytest.raises(UserError, match=r"data.root=.*none of 16 clips can be read") as caught:
        prepare(data)
    assert "\n" not in str(caught.value)
    assert list_stores(data) == []


def remove_root(root):
    shutil.rmtree(root)


def empty_root(root):
    shutil.rmtree(root)
    root.mkdir()


def keep_strangers(root):
    empty_root(root)
    write_clip(root / "one.wav")


def keep_songs(root):
    empty_root(root)
    write_clip(root / f"{make_name(3, 1, channel=2)}.wav")


def make_file(root):
    shutil.rmtree(root)
    root.touch()


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (remove_root, "no such folder; give the folder"),
        (make_file, "not a folder; give the folder"),
        (empty_root, r"no wav or flac files; expected names such as 03-01-06-02-01-01-12\.wav"),
        (keep_strangers, "holds 1 wav or flac file, but none with a name of RAVDESS; expected"),
        (keep_songs, r"no audio-only speech \(1 song, 0 video\); expected names"),
    ],
)
def test_a_useless_folder_is_an_error_naming_key_value_and_remedy(root, data, damage, said):
    damage(root)
    with pytest.raises(UserError, match=rf"^data.root={re.escape(str(root))}: .*{said}") as caught:
        load_corpus(data)
    assert "\n" not in str(caught.value)
    assert not Path(data.store_dir).exists()


def test_a_damaged_store_is_an_error_that_names_the_folder_to_delete(data):
    folder = prepare(data).folder
    (record,) = folder.rglob("*.array_record*")
    record.write_bytes(record.read_bytes()[:2000])
    with pytest.raises(UserError, match=rf"^{folder}: damaged store: .*delete") as caught:
        load_corpus(data)
    assert "\n" not in str(caught.value)


def die_at_the_ninth_clip(data: DataConfig) -> None:
    make_record, made = intake.Record, []

    def make_and_die(*arguments):
        made.append(1)
        if len(made) == 9:
            os.kill(os.getpid(), signal.SIGKILL)
        return make_record(*arguments)

    intake.Record = make_and_die
    prepare(data)


def test_a_kill_while_building_leaves_nothing_that_is_taken_for_a_store(data):
    assert Child(die_at_the_ninth_clip, data).wait()[0] == -signal.SIGKILL
    left = [path for path in Path(data.store_dir).iterdir() if path.is_dir()]
    assert len(left) == 1  # the half-built one, under a hidden name
    assert list_stores(data) == []
    assert prepare(data).clips == 16
    assert not left[0].exists()


def prepare_within_8000_bytes_a_file(data: DataConfig) -> None:
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (8000, 8000))
    try:
        prepare(data)
    except UserError as error:
        print(error)


def test_a_file_size_limit_is_a_one_line_error_that_names_the_store(data):
    status, output = Child(prepare_within_8000_bytes_a_file, data).wait()
    assert status == 0, output
    expected = rf"{re.escape(data.store_dir)}: cannot write: File too large; free some space .*\n"
    assert re.fullmatch(expected, output)
    assert list_stores(data) == []


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS])
@pytest.mark.parametrize("call", ["os.mkdir", "tempfile.mkdtemp", "os.replace", "os.fsync"])
def test_a_full_or_read_only_disk_is_a_one_line_error_and_leaves_nothing(
    data, monkeypatch, call, code
):
    def fail(*arguments, **named):
        raise OSError(code, os.strerror(code))

    with monkeypatch.context() as patch:
        patch.setattr(call, fail)
        with pytest.raises(UserError, match=f"cannot write: {os.strerror(code)}; ") as caught:
            prepare(data)
    assert "\n" not in str(caught.value)
    assert not Path(data.store_dir).exists() or list_stores(data) == []
    assert prepare(data).clips == 16


def test_a_store_is_read_where_nothing_can_be_written(data, monkeypatch):
    checksum = load_corpus(data).checksum

    def fail(*arguments, **named):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    for call in ("os.mkdir", "tempfile.mkdtemp", "tempfile.mkstemp", "os.replace"):
        monkeypatch.setattr(call, fail)
    assert load_corpus(data).checksum == checksum


def run_python(code: str, *arguments: str) -> subprocess.CompletedProcess:
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=60)


_CHATTY = """
import sys
from ser_jax.config import DataConfig
from ser_jax.data.store import load_corpus
load_corpus(DataConfig(root=sys.argv[1], store_dir=sys.argv[2]))
assert "tensorflow" not in sys.modules
"""


def test_building_and_reading_say_nothing_and_need_no_tensorflow(data):
    said = run_python(_CHATTY, data.root, data.store_dir)
    assert (said.returncode, said.stdout, said.stderr) == (0, "", "")


def test_importing_the_package_is_light():
    heavy = "{'librosa', 'tensorflow_datasets', 'sklearn', 'soundfile', 'jax'}"
    code = "import sys, ser_jax.data.store, ser_jax.data.splits; "
    said = run_python(code + f"print(sorted({heavy} & set(sys.modules)))")
    assert said.stdout.strip() == "[]"


def print_whether_built(data: DataConfig) -> None:
    print(prepare(data).built)


def test_two_processes_that_build_at_once_build_one_store(data):
    both = [Child(print_whether_built, data) for _ in range(2)]
    assert sorted(child.wait() for child in both) == [(0, "False\n"), (0, "True\n")]
    assert len(list_stores(data)) == 1


@pytest.mark.parametrize(("clip_s", "n_samples"), [(0.05, 800), (0.1, 1600), (None, 1000)])
def test_clip_length_pads_or_cuts_every_clip(data, clip_s, n_samples):
    whole = load_corpus(data)
    corpus = load_corpus(dataclasses.replace(data, clip_s=clip_s))
    assert corpus.wave_BN.shape == (16, n_samples)
    kept = min(n_samples, 1000)
    np.testing.assert_array_equal(corpus.wave_BN[:, :kept], whole.wave_BN[:, :kept])
    assert not corpus.wave_BN[:, kept:].any()
    np.testing.assert_array_equal(corpus.length_B, np.minimum(whole.length_B, n_samples))
    again = with_clip_length(corpus, clip_s)
    np.testing.assert_array_equal(again.wave_BN, corpus.wave_BN)


def test_trimming_cuts_both_ends_of_every_clip_before_its_length_is_set():
    data = make_config(None).data
    whole = load_corpus(dataclasses.replace(data, clip_s=None))
    settings = {"trim_db": 20.0, "trim_margin_s": 0.0}
    trimmed = load_corpus(dataclasses.replace(data, clip_s=None, **settings))
    assert trimmed.checksum == whole.checksum
    assert (trimmed.length_B < whole.length_B).mean() > 0.9  # the synthetic voice has silent ends
    assert trimmed.wave_BN.shape[1] == trimmed.length_B.max()
    for wave_N, length, own_N, own in zip(
        whole.wave_BN, whole.length_B, trimmed.wave_BN, trimmed.length_B, strict=True
    ):
        sound = find_sound(wave_N[:length], whole.rate_hz, 20.0, 0.0)
        np.testing.assert_array_equal(own_N[:own], wave_N[sound])
        assert not own_N[own:].any()
    cut = load_corpus(dataclasses.replace(data, clip_s=0.5, **settings))
    n_samples = min(cut.wave_BN.shape[1], trimmed.wave_BN.shape[1])
    np.testing.assert_array_equal(cut.wave_BN[:, :n_samples], trimmed.wave_BN[:, :n_samples])


def test_the_synthetic_corpus_goes_through_the_same_store(tmp_path):
    data = DataConfig(
        corpus="synthetic", synthetic_actors=2, synthetic_clips=3, store_dir=str(tmp_path)
    )
    corpus = load_corpus(data)
    assert corpus.name == "synthetic"
    assert sorted(set(corpus.actor_B.tolist())) == [1, 2]
    clips = find.find_source(data).list_clips().clips
    assert len(clips) == len(corpus.file_names) == 6
    for i, (file_name, make_wave, *_) in enumerate(clips):
        assert file_name == corpus.file_names[i]
        wave_N = make_wave()
        np.testing.assert_array_equal(corpus.wave_BN[i, : corpus.length_B[i]], wave_N)
    other = dataclasses.replace(data, synthetic_clips=2)
    assert store.prepare(other).folder != store.prepare(data).folder


def test_without_a_root_the_download_runs_once(root, data, monkeypatch):
    asked = []

    def ensure_ravdess(store_dir: Path) -> Path:
        asked.append(store_dir)
        return root

    monkeypatch.setattr(download, "ensure_ravdess", ensure_ravdess)
    downloading = dataclasses.replace(data, root=None)
    checksum = load_corpus(downloading).checksum
    shutil.move(root, root.with_name("gone"))  # the store alone is enough from here on
    assert load_corpus(downloading).checksum == checksum
    assert asked == [Path(data.store_dir)]


def test_ravdess_is_read_whole(ravdess_root, tmp_path):
    actor = next(path for path in sorted(ravdess_root.rglob("Actor_05")) if path.is_dir())
    corpus = load_corpus(DataConfig(root=str(actor), store_dir=str(tmp_path)))
    assert corpus.wave_BN.shape[0] == 60
    assert np.bincount(corpus.emotion_B).tolist() == [4] + [8] * 7
    assert 2.9 * RATE_HZ < corpus.length_B.min() <= corpus.length_B.max() < 5.3 * RATE_HZ
