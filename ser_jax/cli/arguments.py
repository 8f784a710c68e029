"""A command line or a YAML file becomes a checked config."""

import dataclasses
import os
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ser_jax import config
from ser_jax.cli.command_keys import make_parsers
from ser_jax.cli.grid_file import read_system
from ser_jax.cli.parser import Parser, split_files
from ser_jax.cli.wording import suggest
from ser_jax.config.yaml_text import read_yaml
from ser_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class Command:
    """One parsed command line: the command and its options; its config where it has one."""

    name: str
    options: dict[str, Any]
    config: Any = None
    line: str = ""
    """As typed, for a record of how results were made."""


def parse(argv: list[str]) -> Command:
    """Parse a command line. --help, --version and --print_completion print and exit.

    Raises:
      UserError: an unknown key, a wrong type, a value out of range, a file that cannot be read.
    """
    program, commands = make_parsers()
    name = argv[0] if argv else "--help"
    if name.startswith("-"):
        program.parse_args(argv or [name])
    if name not in commands:
        raise UserError(f"{name}: unknown command; {suggest(name, commands, 'ser-jax')}")
    values = commands[name].parse_args(argv[1:])
    options = values.as_dict()
    for key in ("run_dir", "dir"):
        if isinstance(options.get(key), str):
            options[key] = os.path.expanduser(options[key])
    if "files" in options:
        options["files"] = [os.path.expanduser(file) for file in options["files"]]
    made = None
    if name == "prepare":
        made = make_config(config.DataConfig, options["data"])
    elif name == "train":
        made = make_config(config.Config, options)
    elif name == "pretrain":
        made = make_config(config.PretrainConfig, options)
    elif name == "ablate":
        given = {token.partition("=")[0][2:] for token in argv if token.startswith("--")}
        files, _ = split_files(argv)
        made = _make_grid(commands[name], options, given, files)
    if options.get("print_config"):
        _print_yaml(made)
        raise SystemExit(0)
    return Command(name, options, made, shlex.join(["ser-jax", *argv]))


def load_config(path: str, kind: type = config.Config) -> Any:
    """A `Config` (or `AblationConfig`) from a YAML file, defaults filled in and all checked.

    Raises:
      UserError: the file cannot be read; an unknown key, a wrong type, a value out of range.
    """
    parser = Parser(prog="ser-jax")
    parser.add_keys(kind)
    options = parser.parse_tree(
        read_yaml(path, parser.types), path, parser.get_defaults()
    ).as_dict()
    if kind is config.AblationConfig:
        return _make_grid(parser, options, set(), [path])
    return make_config(kind, options)


def make_config(kind: type, tree: dict[str, Any]) -> Any:
    """An instance of the config class `kind` from nested dictionaries of typed values."""
    values = {}
    for field in dataclasses.fields(kind):
        value = tree[field.name]
        if isinstance(field.type, type) and dataclasses.is_dataclass(field.type):
            value = make_config(field.type, value)
        values[field.name] = value
    return kind(**values)


def _make_grid(
    parser: Parser, options: dict[str, Any], given: set[str], files: Sequence[str]
) -> config.AblationConfig:
    """The grid's config from what `files` say: keys of systems and sweep typed, dotted and checked;
    what is `given` on the command line wins over both."""
    cell = Parser(prog=parser.prog)
    for key, kind in parser.types.items():
        if "." in key:
            cell.add_key(key, kind, None, "")
    folders = [*(str(Path(file).parent) for file in files), "."]
    options["systems"] = {
        name: read_system(name, changes or {}, options, cell, folders)
        for name, changes in options["systems"].items()
    }
    options["sweep"] = {
        key: [vars(cell.parse_tree({key: value}, "sweep").as_flat())[key] for value in values]
        for key, values in options["sweep"].items()
    }
    grid = make_config(config.AblationConfig, options)
    if shared := {key: value for key, value in _flatten(grid).items() if key in given}:
        from ser_jax.grid.cells import with_shared

        grid = with_shared(grid, shared)
    for name, changes in grid.systems.items():
        try:
            config.override(grid, changes)
        except UserError as error:
            raise UserError(f"systems.{name}: {error}") from error
    return grid


def _flatten(made: Any) -> dict[str, Any]:
    """The dotted keys of a config's sections."""
    return {key: value for key, value in config.flatten(config.to_dict(made)).items()
            if key.partition(".")[0] not in ("systems", "sweep") and "." in key}  # fmt: skip


def _print_yaml(made: Any) -> None:
    import yaml

    print(yaml.safe_dump(config.to_dict(made), sort_keys=False), end="")
