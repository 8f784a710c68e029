"""A file or folder is written whole or not at all, and an error names it."""

import errno
import os
import signal
import sys
from pathlib import Path

import pytest

from ser_jax.errors import UserError
from ser_jax.files.atomic import clear_unfinished, is_unfinished, new_folder, saving, write_atomic
from tests.faults import failing_writes
from tests.tiny import Child


def test_a_file_is_written_with_its_folders_and_replaced(tmp_path):
    path = tmp_path / "a" / "b" / "file.json"
    write_atomic(path, "Ärger")
    assert path.read_bytes() == "Ärger".encode()
    write_atomic(path, b"\0\xff")
    assert path.read_bytes() == b"\0\xff"
    assert os.listdir(path.parent) == ["file.json"]


@pytest.mark.skipif(os.name != "posix", reason="POSIX permissions")
def test_others_may_read_what_is_written(tmp_path):
    write_atomic(tmp_path / "file", "x")
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o644
    with new_folder(tmp_path / "folder"):
        pass
    assert (tmp_path / "folder").stat().st_mode & 0o777 == 0o755


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EFBIG, errno.EIO])
@pytest.mark.parametrize("old", [None, "old"])
def test_whichever_call_fails_the_file_is_as_it_was(old, number, tmp_path):
    path = tmp_path / "folder" / "file.json"
    n, calls = 0, []
    while len(calls) >= n:
        n += 1
        if old is not None:
            path.parent.mkdir(exist_ok=True)
            path.write_text(old)
        message = None
        with failing_writes(tmp_path, n, number) as faults:
            try:
                write_atomic(path, "new")
            except UserError as error:
                message = str(error)
        calls = faults.calls
        if len(calls) >= n:
            freeing = "" if number == errno.EROFS else "free some space or "
            assert message == (
                f"{path}: cannot write: {os.strerror(number)}; {freeing}choose another folder"
            )
            left = [p.name for p in path.parent.iterdir()] if path.parent.exists() else []
            assert left == ([] if old is None else ["file.json"])
            assert old is None or path.read_text() == old
    assert path.read_text() == "new"
    names = {call.split()[0] for call in calls}
    assert names >= {"open", "write", "fsync", "replace"}


def test_a_file_in_the_place_of_a_folder_is_an_error_in_one_line(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(UserError, match="file") as caught:
        write_atomic(tmp_path / "file" / "below", "y")
    assert "\n" not in str(caught.value)


def test_saving_names_the_file_the_reason_and_the_remedy():
    with pytest.raises(UserError) as caught, saving("out", "run it again"):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert str(caught.value) == "out: cannot write: No space left on device; run it again"
    with pytest.raises(UserError, match=r"^a/b: cannot write"), saving("out"):
        raise OSError(errno.EROFS, "Read-only file system", "a/b")


def test_saving_leaves_other_errors_alone():
    with pytest.raises(KeyError), saving("out"):
        raise KeyError("x")
    with pytest.raises(UserError, match=r"^said already$"), saving("out"):
        raise UserError("said already")


def test_a_folder_takes_its_place_when_it_is_complete(tmp_path):
    path = tmp_path / "store"
    with new_folder(path) as beside:
        (beside / "one").write_text("1")
        assert not path.exists()
    assert os.listdir(path) == ["one"]
    with new_folder(path) as beside:
        (beside / "two").write_text("2")
        assert os.listdir(path) == ["one"]
    assert os.listdir(path) == ["two"]
    assert os.listdir(tmp_path) == ["store"]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, UserError])
def test_a_folder_that_fails_leaves_the_one_before(error, tmp_path):
    path = tmp_path / "store"
    path.mkdir()
    (path / "old").write_text("old")
    with pytest.raises(error), new_folder(path) as beside:  # noqa: PT012
        (beside / "new").write_text("new")
        raise error("stop")
    assert os.listdir(tmp_path) == ["store"]
    assert os.listdir(path) == ["old"]


def test_a_full_disk_leaves_the_folder_before(tmp_path):
    path = tmp_path / "store"
    path.mkdir()
    for n in (1, 2, 3):
        with (
            pytest.raises(UserError, match="No space left on device"),
            failing_writes(tmp_path, n, errno.ENOSPC),
            new_folder(path) as beside,
            open(beside / "file", "w") as file,
        ):
            file.write("x")
        assert os.listdir(tmp_path) == ["store"]


def write_until(path: str, call: str) -> int:
    """Write anew, but die by SIGKILL at `call`."""

    def watch(event: str, arguments: tuple) -> None:
        if event == call and "unfinished" in str(arguments[0]):
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(watch)
    write_atomic(path, "new")
    return 0


@pytest.mark.parametrize("call", ["os.chmod", "os.rename"])
def test_what_a_killed_write_leaves_can_be_told_and_cleared(call, tmp_path):
    path = tmp_path / "run" / "config.yaml"
    write_atomic(path, "old")
    status, output = Child(write_until, str(path), call).wait()
    assert status == -signal.SIGKILL, output
    left = [p for p in path.parent.iterdir() if p != path]
    assert len(left) == 1
    assert is_unfinished(left[0])
    assert not is_unfinished(path)
    (path.parent / ".hidden").write_text("the user's own")
    clear_unfinished(tmp_path)
    assert sorted(os.listdir(path.parent)) == [".hidden", "config.yaml"]
    assert path.read_text() == "old"


def test_nothing_is_cleared_where_there_is_nothing(tmp_path):
    clear_unfinished(tmp_path / "missing")
    clear_unfinished(Path(tmp_path))


def test_a_missing_file_of_a_library_is_not_called_a_failure_to_write(tmp_path):
    with pytest.raises(FileNotFoundError, match="libgomp"), saving(tmp_path / "run"):
        Path("/usr/lib/nowhere/libgomp.so").read_bytes()
    error = pytest.raises(UserError, match=r"run/x: cannot write: No such file")
    with error, saving(tmp_path / "run"):
        (tmp_path / "run" / "x").read_bytes()
