"""RAVDESS' archive: downloaded once, unpacked whole or not at all."""

import dataclasses
import hashlib
import http.server
import multiprocessing
import threading
import zipfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from ser_jax.data.sources.download import RAVDESS, RAVDESS_MD5, Archive, ensure_ravdess, unpack
from ser_jax.errors import UserError

NAMES = [f"Actor_01/03-01-01-01-01-0{k}-01.wav" for k in (1, 2)]


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def archive(tmp_path, monkeypatch) -> Iterator[Archive]:
    """A small archive on a local server; its file lies in `served`."""
    monkeypatch.setenv("no_proxy", "*")
    served = tmp_path / "served"
    served.mkdir()
    zipped = served / "Some_Speech.zip"
    with zipfile.ZipFile(zipped, "w", zipfile.ZIP_DEFLATED) as file:
        for name in NAMES:
            file.writestr(name, name * 100)
    raw = zipped.read_bytes()
    handler = partial(QuietHandler, directory=str(served))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        url = f"http://127.0.0.1:{server.server_port}/{zipped.name}"
        yield Archive(url, zipped.name, len(raw), hashlib.md5(raw).hexdigest(), len(NAMES))
        server.shutdown()
        thread.join()


def list_wavs(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*.wav"))


def test_ravdess_is_the_published_file():
    assert RAVDESS.md5 == RAVDESS_MD5 == "bc696df654c87fed845eb13823edef8a"
    assert RAVDESS.size == 208_468_073
    assert RAVDESS.n_wavs == 1440
    assert "zenodo.org/records/1188976/" in RAVDESS.url


def test_wavs_are_there_and_the_zip_is_gone(archive, tmp_path):
    folder = ensure_ravdess(tmp_path / "store", archive)
    assert list_wavs(folder) == NAMES
    assert (folder / NAMES[0]).read_text() == NAMES[0] * 100
    assert [path.name for path in folder.parent.iterdir() if path.name[0] != "."] == ["Some_Speech"]


def test_second_call_needs_no_server(archive, tmp_path):
    folder = ensure_ravdess(tmp_path / "store", archive)
    nowhere = dataclasses.replace(archive, url="http://127.0.0.1:1/a.zip")
    assert ensure_ravdess(tmp_path / "store", nowhere) == folder


def test_zip_put_there_by_hand_is_taken(archive, tmp_path):
    zipped = tmp_path / "served" / archive.file_name
    (tmp_path / "store").mkdir()
    zipped.rename(tmp_path / "store" / archive.file_name)
    assert list_wavs(ensure_ravdess(tmp_path / "store", archive)) == NAMES


def test_folder_with_a_recording_missing_is_made_anew(archive, tmp_path):
    folder = ensure_ravdess(tmp_path / "store", archive)
    (folder / NAMES[1]).unlink()
    assert list_wavs(ensure_ravdess(tmp_path / "store", archive)) == NAMES


def test_what_a_killed_process_left_is_cleared(archive, tmp_path):
    left = tmp_path / "store" / ".Some_Speech.k1ll3d"
    left.mkdir(parents=True)
    (left / "half.wav").write_text("half")
    ensure_ravdess(tmp_path / "store", archive)
    assert not left.exists()


def test_two_processes_at_once_do_not_spoil_each_other(archive, tmp_path):
    context = multiprocessing.get_context("spawn")
    args = (tmp_path / "store", archive)
    others = [context.Process(target=ensure_ravdess, args=args) for _ in range(2)]
    for other in others:
        other.start()
    for other in others:
        other.join(60)
    assert [other.exitcode for other in others] == [0, 0]
    assert list_wavs(tmp_path / "store" / "Some_Speech") == NAMES


def test_changed_archive_is_refused_and_leaves_nothing(archive, tmp_path):
    zipped = tmp_path / "served" / archive.file_name
    raw = bytearray(zipped.read_bytes())
    raw[60] ^= 1
    zipped.write_bytes(raw)
    with pytest.raises(UserError, match=r"with MD5 .*--data\.root DIR"):
        ensure_ravdess(tmp_path / "store", archive)
    assert [path.name for path in (tmp_path / "store").iterdir() if path.name[0] != "."] == []


def test_missing_archive_names_the_manual_way(archive, tmp_path):
    (tmp_path / "served" / archive.file_name).unlink()
    with pytest.raises(UserError) as caught:
        ensure_ravdess(tmp_path / "store", archive)
    message = str(caught.value)
    assert message.startswith(f"{archive.url}: the server answers 404")
    assert message.endswith("download that file by hand, unpack it, and give --data.root DIR")
    assert "\n" not in message


def test_store_that_cannot_be_made_is_one_line(archive, tmp_path):
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(UserError, match="cannot write"):
        ensure_ravdess(tmp_path / "file" / "store", archive)


@pytest.mark.parametrize("damage", ["truncated", "flipped", "text", "empty"])
def test_corrupt_zip_is_deleted_and_leaves_no_folder(tmp_path, damage):
    zipped = tmp_path / "a.zip"
    with zipfile.ZipFile(zipped, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("a.wav", bytes(range(256)) * 100)
        file.writestr("b.wav", bytes(range(256)) * 100)
    raw = bytearray(zipped.read_bytes())
    raw[60] ^= 255
    damaged = {"truncated": raw[:200], "flipped": raw, "text": b"hello" * 100, "empty": b""}
    zipped.write_bytes(damaged[damage])
    with pytest.raises(UserError, match=r"a\.zip: corrupt zip file"):
        unpack(zipped, tmp_path / "a")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["../out.wav", "/out.wav", "a/../../out.wav", "..\\out.wav"])
def test_names_that_lead_out_of_the_folder_stay_inside(tmp_path, name):
    zipped = tmp_path / "in" / "a.zip"
    zipped.parent.mkdir()
    with zipfile.ZipFile(zipped, "w") as file:
        file.writestr("good.wav", "x")
        file.writestr(name, "x")
    unpack(zipped, tmp_path / "in" / "a")
    (written,) = (path for path in tmp_path.rglob("*out.wav"))
    assert written.is_relative_to(tmp_path / "in" / "a")


def test_failed_unpacking_leaves_the_old_folder(tmp_path):
    zipped, folder = tmp_path / "a.zip", tmp_path / "a"
    zipped.write_bytes(b"no zip")
    folder.mkdir()
    (folder / "old.wav").write_text("old")
    with pytest.raises(UserError, match="corrupt"):
        unpack(zipped, folder)
    assert list_wavs(folder) == ["old.wav"]
