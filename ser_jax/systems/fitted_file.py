"""fitted.npz: what was fitted at once, as arrays, and its facts."""

import io
import json
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from ser_jax.config import Config
from ser_jax.errors import UserError, check
from ser_jax.files.atomic import write_atomic
from ser_jax.systems.frames import Arrays
from ser_jax.systems.method import Method

FITTED_FILE = "fitted.npz"


def save_fitted(run_dir: Path, config: Config, arrays: Arrays, facts: dict[str, Any]) -> None:
    """Write the arrays and JSON-able `facts`.

    Raises:
      UserError: the file cannot be written.
    """
    buffer = io.BytesIO()
    text = json.dumps(facts | {"model": config.model.name})
    kept: dict[str, Any] = {"facts": np.array(text), **arrays}
    np.savez_compressed(buffer, **kept)
    write_atomic(run_dir / FITTED_FILE, buffer.getvalue())


def load_fitted(run_dir: Path, config: Config, method: Method) -> tuple[Arrays, dict[str, Any]]:
    """The arrays and facts that `save_fitted` has written; nothing in the file is executed.

    Raises:
      UserError: the file is missing, damaged, of another program, or does not fit the settings.
    """
    path = run_dir / FITTED_FILE
    check(
        path.exists(),
        f"{run_dir}: holds no fitted {config.model.name} yet; train it with the same ser-jax train "
        "command",
    )
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as kept:
            arrays = {name: kept[name] for name in kept.files}
        facts = json.loads(str(arrays.pop("facts")))
        is_ours = facts["model"] == config.model.name and _fit_settings(
            method, arrays, config, facts
        )
    except OSError as error:  # the system's own; the file may be whole
        raise UserError(f"{path}: cannot read: {error.strerror or error}; check it") from error
    except (EOFError, KeyError, TypeError, ValueError, zipfile.BadZipFile, zlib.error):
        is_ours, arrays, facts = False, {}, {}
    if not is_ours:
        raise UserError(
            f"{path}: damaged, or no {config.model.name} of these settings; delete it and "
            "metrics.json, and the same ser-jax train command fits it anew"
        )
    return arrays, facts


def _fit_settings(method: Method, arrays: Arrays, config: Config, facts: dict[str, Any]) -> bool:
    """Whether the arrays are those of the settings, by their names and shapes."""
    settings = config.classical
    frame = len(facts["mean_F"]) * (1 + settings.deltas)
    shapes = method.list_shapes(arrays, settings, len(facts["labels"]), frame)
    shapes |= {"temperature": ()}
    return set(arrays) == set(shapes) and all(
        array.dtype == np.float64 and array.shape == shapes[name] and np.isfinite(array).all()
        for name, array in arrays.items()
    )
