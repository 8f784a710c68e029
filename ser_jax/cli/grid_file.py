"""The rows of a grid as its file writes them, some of which name a configuration of their own."""

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
    """The dotted keys in which a row differs from the grid, typed.

    A row of {config: FILE} is what `train --config FILE` would run: what the file leaves out of
    features, augment, model, backbone, classical and train has its default, whatever the grid has.
    Of data the grid's keys stand where the file has none. Further keys of the row win over its
    file.

    Args:
      name: of the row.
      changes: as written, nested or dotted.
      options: the grid's own settings by section.
      cell: knows the keys of a run and their types.
      folders: where FILE may lie, in this order.

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
    """A tuple as `to_dict` has it."""
    return list(value) if isinstance(value, tuple) else value
