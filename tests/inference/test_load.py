"""A run is read whatever its folder is called and its version was; what fails is told as it is."""

import contextlib
import errno
import os
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest
import yaml

from ser_jax.api import train
from ser_jax.data.store import _read_report
from ser_jax.errors import UserError
from ser_jax.inference.load import load_run
from ser_jax.run.run_dir import load_run_config
from ser_jax.systems.fitted_file import FITTED_FILE, load_fitted
from ser_jax.systems.svm import SVM
from ser_jax.training.checkpoint import Checkpoints
from ser_jax.wav2vec2.published import load_architecture
from ser_jax.wav2vec2.weight_files import read_safetensors
from tests.tiny import make_config, make_template


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    """A run that must not be written to."""
    config = make_config(tmp_path_factory.mktemp("trained") / "run")
    train(config, observe=lambda event: None)
    return Path(config.run_dir or "")


@pytest.fixture
def copied(finished, tmp_path) -> Path:
    return shutil.copytree(finished, tmp_path / "run")


def change_optimizer(checkpoints: Path) -> None:
    """Save what was learned with the state of an optimiser that this version does not know."""
    with contextlib.closing(Checkpoints(checkpoints)) as opened:
        epoch = opened.latest_epoch()
        assert epoch is not None
        facts = opened.load_facts(epoch)
        state = opened.load_state(epoch, make_template(load_run_config(checkpoints.parent)))
        learned = {"params": state.params, "batch_stats": state.batch_stats}
        later = facts | {"best_epoch": epoch + 10}
        opened.save(epoch + 10, learned | {"moments": jnp.ones(3)}, later, best_epoch=epoch + 10)


def test_a_run_is_read_whatever_state_its_optimizer_had(copied, finished):
    before = load_run(finished)
    change_optimizer(copied / "checkpoints")
    assert load_run(copied).best_epoch > 10
    leaves = zip(*(jax.tree.leaves(r.variables) for r in (load_run(copied), before)), strict=True)
    assert all(here.shape == there.shape for here, there in leaves)


@pytest.mark.parametrize("changes", [{"heartbeat_s": 2}, {"mode": "unheard"}, {"later": 1}])
def test_how_an_earlier_or_later_version_worked_does_not_keep_a_run_from_being_read(
    copied, changes
):
    path = copied / "config.yaml"
    tree = yaml.safe_load(path.read_text())
    tree["parallel"] |= changes
    path.write_text(yaml.safe_dump(tree))
    assert load_run(copied).config.parallel.heartbeat_s == 12


@pytest.mark.parametrize("place", ["checkpoints", "checkpoints/2", "..", "../other"])
def test_a_folder_near_a_run_names_the_run(copied, place):
    given = copied / place
    shutil.copytree(copied, copied.parent / "other" / "cells" / "a-study-1-0")
    with pytest.raises(
        UserError, match=r"not a run directory; perhaps \S*(run|study-1-0) is meant"
    ):
        load_run_config(given)


NASTY = [
    "[Lab] emotion", "a?b", "a#b", "100%", "a%20b", "a|b", "two  words ", "\u97f3\u58f0", "*", "~x",
    "a\nb", "{a}", "$HOME", "'q' \"r\"", "gs:", "a:b", "\udce4",
]  # fmt: skip


@pytest.mark.parametrize("name", NASTY)
def test_a_run_is_saved_and_read_below_a_folder_of_any_name(tmp_path, name, finished):
    folder = tmp_path / name / "checkpoints"
    with contextlib.closing(Checkpoints(folder)) as checkpoints:
        state = {"w": jnp.arange(4.0), "key": jax.random.key(1)}
        checkpoints.save(1, state, {"a": 1}, best_epoch=1)
    with contextlib.closing(Checkpoints(folder, read_only=True)) as checkpoints:
        assert checkpoints.load_facts(1) == {"a": 1}
        assert checkpoints.load_state(1, state)["w"].tolist() == [0, 1, 2, 3]
    shutil.copytree(finished, tmp_path / name / "run")
    assert load_run(tmp_path / name / "run").best_epoch == load_run(finished).best_epoch


def test_a_run_is_read_and_resumed_by_a_path_with_dots(copied, finished, monkeypatch):
    here = copied.parent / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    assert load_run("../run").best_epoch == load_run(finished).best_epoch
    with contextlib.closing(Checkpoints("../run/checkpoints")) as checkpoints:
        epoch = checkpoints.latest_epoch()
        assert epoch is not None
        state = checkpoints.load_state(epoch, make_template(load_run_config("../run")))
        assert int(state.step) > 0


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (PermissionError(13, "Permission denied"), "cannot read: Permission denied"),
        (OSError(5, "Input/output error"), "cannot read: Input/output error"),
        (RuntimeError("RESOURCE_EXHAUSTED: out of memory"), "not enough memory"),
        (RuntimeError("no device cuda:0"), "cannot be read: RuntimeError: no device cuda:0"),
        (ImportError("no zstandard"), "cannot be read: ImportError: no zstandard"),
    ],
)
def test_what_is_no_damage_is_not_called_so(copied, monkeypatch, error, said):
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr("ser_jax.training.checkpoint._open_checkpointer", fail)
    with pytest.raises(UserError, match=said) as caught:
        load_run(copied)
    assert "damaged" not in str(caught.value)
    assert "delete" not in str(caught.value)


@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError])
def test_reading_lets_through_what_is_no_failure_of_the_checkpoint(copied, monkeypatch, error):
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr("ser_jax.training.checkpoint._open_checkpointer", fail)
    with pytest.raises(error):
        load_run(copied)


@pytest.mark.parametrize("kind", ["store", "weights", "settings", "fitted"])
@pytest.mark.parametrize("number", [errno.EACCES, errno.EIO, errno.ESTALE])
def test_what_the_system_refuses_is_not_called_damaged(kind, number, tmp_path, monkeypatch):
    def refuse(path: Path, *_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number), str(path))

    for name in ("model.safetensors", "config.json", FITTED_FILE):
        (tmp_path / name).touch()
    loads = {
        "store": lambda: _read_report(tmp_path),
        "weights": lambda: read_safetensors(tmp_path / "model.safetensors"),
        "settings": lambda: load_architecture(tmp_path),
        "fitted": lambda: load_fitted(tmp_path, make_config(None, {"model.name": "svm"}), SVM),
    }
    for name in ("open", "read_text", "read_bytes"):
        monkeypatch.setattr(Path, name, refuse)
    with pytest.raises(UserError, match=os.strerror(number)) as caught:
        loads[kind]()
    for word in ("damaged", "delete", "download", "train again"):
        assert word not in str(caught.value)
