"""Command line and YAML files to checked configs; every mistake becomes one line.

jsonargparse does the typing, the files, the help and the completion. `_Parser` mends four of its
ways: usage lines with an error, errors in its own words, a later --config that overwrites earlier
keys, and abbreviated keys.
"""

import dataclasses
from pathlib import Path
from typing import Any

import jsonargparse

from ser_jax import config
from ser_jax.errors import UserError


class _Parser(jsonargparse.ArgumentParser):
    """An ArgumentParser that raises `UserError`, and lets the command line win over --config."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(allow_abbrev=False, **kwargs)

    def error(self, message: str, ex: Exception | None = None) -> Any:
        raise UserError(" ".join(message.split())) from ex

    def parse_args(self, args: list[str] | None = None, **kwargs: Any) -> Any:
        has_config = "--config" in self._option_string_actions
        return super().parse_args(config_first(args or []) if has_config else args, **kwargs)


def config_first(args: list[str]) -> list[str]:
    """`args` with --config moved to the front: what is read later wins."""
    files, rest = [], []
    tokens = iter(args)
    for token in tokens:
        if token == "--config":
            files += [token, *([value] if (value := next(tokens, None)) is not None else [])]
        elif token.startswith("--config="):
            files.append(token)
        else:
            rest.append(token)
    return files + rest


def _add_command(commands: Any, name: str, help: str, kind: type | None = None) -> _Parser:
    parser = _Parser(description=help)
    if kind is not None:
        parser.add_argument("--config", action="config", help="YAML file with any of the keys below.")
        parser.add_class_arguments(kind)
    commands.add_subcommand(name, parser, help=help)
    return parser


def make_parser() -> _Parser:
    """The parser of the six commands."""
    jsonargparse.set_parsing_settings(docstring_parse_attribute_docstrings=True)
    parser = _Parser(prog="ser-jax", description="Speech emotion recognition in JAX and Flax.")
    commands = parser.add_subcommands(dest="command")
    prepare = _add_command(commands, "prepare", "Decode a corpus once, into the store.")
    prepare.add_class_arguments(config.DataConfig, "data")
    _add_command(commands, "train", "Train one network into a run directory.", config.Config)
    evaluate = _add_command(commands, "evaluate", "Measure a trained run.")
    evaluate.add_argument("run_dir", type=str, metavar="RUN_DIR", help="Folder of a trained run.")
    evaluate.add_argument("--split", type=str, default="test")
    evaluate.add_argument("--data.corpus", type=str | None, default=None)
    evaluate.add_argument("--data.root", type=str | None, default=None)
    predict = _add_command(commands, "predict", "Tell the emotion in audio files.")
    predict.add_argument("run_dir", type=str, metavar="RUN_DIR", help="Folder of a trained run.")
    predict.add_argument("files", type=str, nargs="+", metavar="FILE", help="Audio files.")
    predict.add_argument("--format", type=str, default="table")
    _add_command(commands, "ablate", "Train a grid of runs and compare them.", config.AblationConfig)
    report = _add_command(commands, "report", "Write tables and figures of a folder again.")
    report.add_argument("folder", type=str, metavar="DIR", help="A run directory or a grid's folder.")
    return parser


def make_config(kind: type, tree: dict[str, Any]) -> Any:
    """An instance of the config class `kind` from nested dictionaries of typed values."""
    values = {}
    for field in dataclasses.fields(kind):
        value = tree[field.name]
        nested = dataclasses.is_dataclass(field.type)
        values[field.name] = make_config(field.type, value) if nested else value
    return kind(**values)


@dataclasses.dataclass(frozen=True)
class Command:
    """One parsed command line: the command and its options, or its config."""

    name: str
    options: dict[str, Any]
    config: Any = None


def parse(argv: list[str]) -> Command:
    """Parse a command line.

    Raises:
      UserError: an unknown key, a wrong type, a value out of range, a file that cannot be read.
    """
    namespace = make_parser().parse_args(argv)
    name = namespace.command
    options = namespace[name].as_dict()
    kinds = {"train": config.Config, "ablate": config.AblationConfig}
    if name in kinds:
        return Command(name, options, make_config(kinds[name], options))
    if name == "prepare":
        return Command(name, options, make_config(config.DataConfig, options["data"]))
    return Command(name, options)
