"""The directory of a run: its name, its configuration, and whether it may be written into."""

import os
from pathlib import Path
from typing import Any

import yaml

from ser_jax.config import (
    Config,
    compute_identity,
    find_differences,
    flatten,
    name_differences,
    override,
    to_dict,
)
from ser_jax.errors import UserError, check
from ser_jax.files.atomic import clear_unfinished, expand, is_unfinished, saving, write_atomic
from ser_jax.files.json_files import load_json
from ser_jax.files.names import make_slug
from ser_jax.run.file_names import CONFIG_FILE, METRICS_FILE
from ser_jax.systems.registry import find_system


def default_run_dir(config: Config) -> Path:
    """runs/MODEL-CORPUS-PROTOCOL-seedN-HASH: no two different runs share one."""
    data = config.data
    fold = f"-{data.fold}" if data.protocol in ("speakers5", "cross_corpus") else f"{data.fold}"
    fold = "" if data.protocol in ("study", "given", "speakers") else fold
    corpus = make_slug(data.title)
    name = f"{make_slug(config.model.name)}-{corpus}-{data.protocol}{fold}-seed{config.seed}"
    return Path("runs") / f"{name}-{compute_identity(config)[:6]}"


def load_tree(run_dir: str | Path) -> dict[str, Any]:
    """What config.yaml says, as it stands there.

    Raises:
      UserError: the directory or its config.yaml is missing or damaged.
    """
    path = expand(run_dir) / CONFIG_FILE
    check(
        not path.parent.is_file(),
        f"{run_dir}: is a file, no run directory; unpack it, or name the folder that it is in",
    )
    check(path.parent.is_dir(), f"{run_dir}: no such run directory; ser-jax train makes one")
    try:
        tree = yaml.safe_load(path.read_text())
    except OSError as error:
        near = _find_near(path.parent)
        remedy = f"perhaps {near} is meant" if near else "ser-jax train makes one"
        raise UserError(
            f"{path}: cannot read: {error.strerror}; not a run directory; {remedy}"
        ) from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise _damaged(path) from error
    if not isinstance(tree, dict):
        raise _damaged(path)
    return tree


def _find_near(folder: Path) -> Path | None:
    """A run directory above or below a folder that is not one, such as a grid's or checkpoints."""
    around = [folder.parent, folder.parent.parent]
    below = (path for form in ("*", "cells/*") for path in sorted(folder.glob(form)))
    return next((path for path in (*around, *below) if os.path.isfile(path / CONFIG_FILE)), None)


def load_run_config(run_dir: str | Path) -> Config:
    """The configuration that a run directory holds.

    Raises:
      UserError: the directory or its config.yaml is missing, damaged, or of another version.
    """
    path = expand(run_dir) / CONFIG_FILE
    settings = flatten(load_tree(run_dir))
    try:
        try:
            return override(Config(), settings)
        except UserError:  # settings of how a run works must not prevent reading it
            return override(Config(), {k: v for k, v in settings.items() if not _says_how(k)})
    except UserError as error:
        raise UserError(f"{path}: {error}; a run of a newer ser-jax needs that version") from error
    except (AttributeError, TypeError) as error:
        raise _damaged(path) from error


def _says_how(key: str) -> bool:
    """Whether a dotted key affects only how fast a run works, not its results."""
    return key.startswith("parallel.") or key.endswith("workers") or key == "train.profile"


def _damaged(path: Path) -> UserError:
    return UserError(
        f"{path}: damaged; put back what ser-jax wrote there, or train into another run_dir"
    )


def check_run_dir(run_dir: Path, config: Config) -> bool:
    """Check that the directory is this run's, or free; True if the run is complete."""
    with saving(run_dir, "choose another --run_dir"):
        if (run_dir / CONFIG_FILE).exists():
            differences = find_differences(load_run_config(run_dir), config)
            if differences and may_train_on(differences, config):
                return False
            check(
                not differences,
                f"run_dir={run_dir}: holds another run ({name_differences(differences)}); choose "
                "another --run_dir, or delete it",
            )
            return (run_dir / METRICS_FILE).exists()
        check(
            run_dir.exists() or not run_dir.is_symlink(),
            f"run_dir={run_dir}: is a link to {os.path.realpath(run_dir)}, which is not there; "
            "mount or make it, or choose another --run_dir",
        )
        is_free = not run_dir.exists() or (
            run_dir.is_dir() and all(map(is_unfinished, run_dir.iterdir()))
        )
    check(is_free, f"run_dir={run_dir}: exists and is no run directory; choose another --run_dir")
    return False


def may_train_on(differences: dict[str, tuple[Any, Any]], config: Config) -> bool:
    """Whether a run that is extended to more epochs ends as one that had them from the start.

    Not where the learning rate depends on the total number of steps.
    """
    old, new = differences.get("train.epochs", (0, 0))
    is_constant = config.train.schedule == "constant" and config.train.warmup == 0
    only_epochs = set(differences) == {"train.epochs"} and old < new
    return only_epochs and is_constant and find_system(config.model.name).is_network


def was_trained(tree: dict[str, Any], identity: str | None) -> bool:
    """Whether a checkpoint's settings are those of a config.yaml, with as many epochs or fewer.

    A run that is extended to more epochs is resumed from its earlier checkpoint.
    """
    epochs = tree.get("train", {}).get("epochs", 1)
    fewer = (tree | {"train": tree.get("train", {}) | {"epochs": n}} for n in range(1, epochs))
    return any(compute_identity(one) == identity for one in (tree, *fewer))


def open_run_dir(run_dir: Path, config: Config) -> None:
    """Make the directory, or clear what a killed run has left in it."""
    clear_unfinished(run_dir)
    path = run_dir / CONFIG_FILE
    if path.exists():
        if not find_differences(load_run_config(run_dir), config):
            return
        with saving(run_dir / METRICS_FILE):  # the run is no longer complete
            (run_dir / METRICS_FILE).unlink(missing_ok=True)
    tree = to_dict(config)
    for key in ("root", "roots", "store_dir"):
        tree["data"][key] = _make_absolute(tree["data"][key])
    write_atomic(path, yaml.safe_dump(tree, sort_keys=False))


def _make_absolute(path: Any) -> Any:
    """A path, or each of several, that is valid in any working directory."""
    if isinstance(path, dict):
        return {name: _make_absolute(below) for name, below in path.items()}
    if isinstance(path, list):
        return [_make_absolute(one) for one in path]
    return path and os.path.abspath(path)


def read_finished(run_dir: Path) -> dict[str, Any]:
    """The metrics of a complete run.

    Raises:
      UserError: metrics.json is damaged.
    """
    return load_json(run_dir / METRICS_FILE, "delete it, and the same command scores anew")
