"""A machine whose folders are closed, whose streams are ASCII, whose variables are a notebook's."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from ser_jax.machine import environment

ROOT = Path(environment.__file__).parents[2]


def run_python(code: str, **changes: str | None) -> subprocess.CompletedProcess[str]:
    """Run `code` with changed variables; None takes one away."""
    names = {**os.environ, "PYTHONPATH": str(ROOT), **changes}
    environment = {name: value for name, value in names.items() if value is not None}
    command = [sys.executable, "-W", "error", "-c", code]
    return subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=300, check=False
    )


@pytest.mark.parametrize("backend", ["module://matplotlib_inline.backend_inline", "no such"])
def test_figures_are_drawn_with_a_backend_that_is_not_installed(tmp_path, backend):
    code = f"""if True:
        from ser_jax.machine.environment import import_matplotlib
        import_matplotlib()
        from matplotlib.figure import Figure
        figure = Figure()
        figure.subplots()
        figure.savefig({str(tmp_path / "drawn.png")!r})
        """
    ended = run_python(code, MPLBACKEND=backend, MPLCONFIGDIR=str(tmp_path))
    assert ended.returncode == 0, ended.stderr
    assert (tmp_path / "drawn.png").stat().st_size > 0


@pytest.fixture
def closed(monkeypatch) -> None:
    """No folder but the temporary one can be written."""
    monkeypatch.setattr(environment, "_is_writable", lambda folder: False)
    monkeypatch.setattr(environment.sys, "modules", {})
    monkeypatch.delenv("NUMBA_CACHE_DIR", raising=False)


def test_numba_has_a_cache_of_its_own_where_neither_home_nor_packages_can_be_written(
    closed, monkeypatch
):
    kept = []
    monkeypatch.setattr(environment.atexit, "register", lambda *call: kept.append(call))
    environment.give_numba_a_cache()
    folder = Path(os.environ.pop("NUMBA_CACHE_DIR"))
    assert folder.stat().st_mode & 0o777 == 0o700
    ((delete, *arguments),) = kept
    delete(*arguments)
    assert not folder.exists()


def test_the_cache_that_the_user_names_stays(closed, monkeypatch):
    monkeypatch.setenv("NUMBA_CACHE_DIR", "mine")
    environment.give_numba_a_cache()
    assert os.environ["NUMBA_CACHE_DIR"] == "mine"


def test_numba_is_left_alone_where_a_folder_can_be_written(tmp_path):
    code = "import ser_jax, os; print(os.environ.get('NUMBA_CACHE_DIR'))"
    ended = run_python(code, HOME=str(tmp_path), XDG_CACHE_HOME=None, NUMBA_CACHE_DIR=None)
    assert ended.stdout.strip() == "None"


@pytest.mark.parametrize("encoding", ["ascii", "utf-8", "latin-1"])
def test_any_text_can_be_printed_in_any_locale(encoding):
    code = r"""if True:
        from ser_jax.machine.environment import mend_streams
        mend_streams()
        print("a \u97f3 \udce4")
        """
    ended = run_python(code, PYTHONIOENCODING=encoding, LC_ALL="C")
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.startswith("a ")
    assert r"\udce4" in ended.stdout


def test_closed_streams_do_not_stop_a_command():
    code = "import os, sys; os.close(0); from ser_jax.__main__ import run; run()"
    ended = run_python(f"import sys; sys.stdout = sys.stderr = None\n{code}")
    assert ended.returncode == 0


def test_the_store_has_a_place_where_no_home_is_known(tmp_path):
    code = """if True:
        import os
        os.path.expanduser = lambda path: path
        from ser_jax import DataConfig
        print(DataConfig().store_dir)
        """
    ended = run_python(code, XDG_CACHE_HOME=None, TMPDIR=str(tmp_path))
    assert ended.stdout.strip() == str(tmp_path / f"cache-{os.getuid()}" / "ser_jax")
