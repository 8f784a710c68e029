"""The rows of a grid as written in its file, some of which name a configuration file."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ser_jax.cli.parser import Parser
from ser_jax.config import Config, flatten, to_dict
from ser_jax.config.yaml_text import read_yaml
from ser_jax.errors import check
from ser_jax.files.atomic import expand

_FILE = "config"
_SECTIONS = ("features", "augment", "model", "backbone", "classical", "train")


def read_system(
    name: str,
    changes: dict[str, Any],
    options: dict[str, Any],
    cell: Parser,
    folders: Sequence[str],
) -> dict[str, Any]:
    """The typed values in which a row differs from the grid, by dotted key.

    A row of {config: FILE} is the run of `train --config FILE`: keys that the file leaves out have
    their defaults in features, augment, model, backbone, classical and train, and the grid's values
    in data. Further keys of the row win over its file.

    Args:
      name: name of the row.
      changes: as written, nested or dotted.
      options: the grid's settings by section.
      cell: parser of a run's keys.
      folders: folders in which FILE is looked up, in this order.

    Raises:
      UserError: an unknown key, a wrong type, a file that cannot be read.
    """
    where = f"systems.{name}"
    own = {key: value for key, value in changes.items() if key != _FILE}
    keys = vars(cell.parse_tree(own, where).as_flat())
    if _FILE not in changes:
        return dict(keys)
    file = changes[_FILE]
    check(isinstance(file, str), f"{where}.{_FILE}={file}: must be the name of a YAML file")
    found = [path for path in (Path(folder) / expand(file) for folder in folders) if path.is_file()]
    check(
        len(found) > 0,
        f"{where}.{_FILE}={file}: no such file; name one that lies beside the grid's own",
    )
    tree = read_yaml(str(found[0]))
    written = vars(cell.parse_tree(tree, str(found[0])).as_flat())
    defaults = flatten(to_dict(Config()))
    shared = flatten({section: options[section] for section in _SECTIONS})
    reset = {
        key: defaults[key]
        for key, value in shared.items()
        if key in defaults and _to_list(value) != defaults[key]
    }
    return {**reset, **written, **keys}


def _to_list(value: Any) -> Any:
    """A tuple as a list, as in `to_dict`."""
    return list(value) if isinstance(value, tuple) else value
