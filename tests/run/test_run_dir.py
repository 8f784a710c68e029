"""What may stand in the place of a run directory, and what is said of it."""

import os
import subprocess
import sys

import pytest

from ser_jax.errors import UserError
from ser_jax.files.atomic import held, write_atomic
from ser_jax.run.run_dir import check_run_dir
from tests.tiny import make_config


def test_a_link_to_what_is_not_there_is_told(tmp_path):
    link = tmp_path / "run"
    link.symlink_to(tmp_path / "unmounted" / "run")
    with pytest.raises(UserError, match=r"is a link to .*unmounted/run, which is not there"):
        check_run_dir(link, make_config(link))


def test_a_link_to_a_folder_is_that_folder(tmp_path):
    (tmp_path / "there").mkdir()
    link = tmp_path / "run"
    link.symlink_to(tmp_path / "there")
    assert not check_run_dir(link, make_config(link))


def test_links_in_a_circle_are_one_line(tmp_path):
    link = tmp_path / "run"
    link.symlink_to(link)
    with held(link, "wait"), pytest.raises(UserError, match=r"run_dir=.*: ") as caught:
        check_run_dir(link, make_config(link))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["file/below", "x" * 300])
def test_no_space_is_asked_for_where_it_does_not_lack(tmp_path, name):
    (tmp_path / "file").write_text("x")
    with pytest.raises(UserError, match=r"; choose another folder$"):
        write_atomic(tmp_path / name / "config.yaml", "y")


def test_a_deleted_working_directory_is_one_line(tmp_path):
    code = f"""if True:
        import os, sys
        from ser_jax.cli.commands import main
        os.chdir({str(tmp_path)!r}); os.mkdir("gone"); os.chdir("gone"); os.rmdir("../gone")
        sys.exit(main(["train", "--data.corpus", "synthetic", "--run_dir", "x"]))
        """
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=120,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )  # fmt: skip
    assert done.returncode == 2, done.stderr
    assert done.stderr == (
        "ser-jax: error: the current folder has been deleted; change to another one\n"
    )
