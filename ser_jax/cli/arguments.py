"""From a command line or a YAML file to a checked config."""

import dataclasses
import os
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from ser_jax import config
from ser_jax.cli.command_keys import make_parsers
from ser_jax.cli.grid_file import read_system
from ser_jax.cli.parser import Parser
from ser_jax.cli.wording import suggest
from ser_jax.config.yaml_text import read_yaml
from ser_jax.errors import UserError, check

_CONFIGS: dict[str, type] = {
    "train": config.Config,
    "pretrain": config.PretrainConfig,
    "ablate": config.AblationConfig,
}


@dataclasses.dataclass(frozen=True)
class Command:
    """A parsed command line: the command, its options and, for some, its config."""

    name: str
    options: dict[str, Any]
    config: Any = None
    line: str = ""
    """The command line as typed, recorded with the results."""


def parse(argv: list[str]) -> Command:
    """Parse a command line. --help, --version and --print_completion print and exit.

    Raises:
      UserError: an unknown key, a wrong type, a value out of range, a file that cannot be read.
    """
    name, *args = argv or ["--help"]
    program, commands = make_parsers(name)
    if name.startswith("-"):
        program.parse_args([name, *args])
    if name not in commands:
        raise UserError(f"{name}: unknown command; {suggest(name, commands, 'ser-jax')}")
    parser = commands[name]
    options = parser.parse_args(args).as_dict()
    for key in ("run_dir", "dir"):
        if isinstance(options.get(key), str):
            options[key] = os.path.expanduser(options[key])
    if "files" in options:
        options["files"] = [os.path.expanduser(file) for file in options["files"]]
    made = None
    if name == "prepare":
        made = make_config(config.DataConfig, options["data"])
    elif name in _CONFIGS:
        files, typed = parser.split_files(args)
        given = {token.partition("=")[0][2:] for token in typed if token.startswith("--")}
        made = _make(_CONFIGS[name], parser, options, files, given)
    if options.get("print_config"):
        print(yaml.safe_dump(config.to_dict(made), sort_keys=False), end="")
        raise SystemExit(0)
    return Command(name, options, made, shlex.join(["ser-jax", *argv]))


def load_config(path: str, kind: type = config.Config) -> Any:
    """A `Config` (or `AblationConfig`) from a YAML file, with defaults and checked values.

    Raises:
      UserError: the file cannot be read; an unknown key, a wrong type, a value out of range.
    """
    parser = Parser(prog="ser-jax")
    parser.add_keys(kind)
    options = parser.parse_tree(read_yaml(path), path, parser.get_defaults()).as_dict()
    return _make(kind, parser, options, [path])


def make_config(kind: type, tree: dict[str, Any]) -> Any:
    """An instance of the config class `kind` from nested dictionaries of typed values."""
    values = {}
    for field in dataclasses.fields(kind):
        value = tree[field.name]
        if isinstance(field.type, type) and dataclasses.is_dataclass(field.type):
            value = make_config(field.type, value)
        values[field.name] = value
    return kind(**values)


def _make(
    kind: type,
    parser: Parser,
    options: dict[str, Any],
    files: Sequence[str],
    given: set[str] | None = None,
) -> Any:
    """A config from typed values. A grid's systems and sweep become typed values by dotted key, and
    keys `given` on the command line win over both."""
    if kind is not config.AblationConfig:
        return make_config(kind, options)
    cell = Parser(prog=parser.prog)
    for key, type_ in parser.types.items():
        if "." in key:
            cell.add_key(key, type_, None, "")
    folders = [*(str(Path(file).parent) for file in files), "."]
    for name, changes in options["systems"].items():
        check(isinstance(changes, dict | None), f"systems.{name}={changes}: must be a mapping")
    for key, values in options["sweep"].items():
        check(isinstance(values, list), f"sweep.{key}={values}: must be a list of values")
    options["systems"] = {
        name: read_system(name, changes or {}, options, cell, folders)
        for name, changes in options["systems"].items()
    }
    options["sweep"] = {
        key: [vars(cell.parse_tree({key: value}, "sweep").as_flat())[key] for value in values]
        for key, values in options["sweep"].items()
    }
    grid = make_config(kind, options)
    flat = config.flatten(config.to_dict(grid))
    if shared := {key: flat[key] for key in given or () if "." in key and key in flat}:
        from ser_jax.grid.cells import with_shared

        grid = with_shared(grid, shared)
    for name, changes in grid.systems.items():
        try:
            config.override(grid, changes)
        except UserError as error:
            raise UserError(f"systems.{name}: {error}") from error
    return grid
