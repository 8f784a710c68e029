"""The commands and their keys; a command line or a YAML file becomes a checked config."""

import dataclasses
import os
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import jsonargparse

from ser_jax import config
from ser_jax.cli.grid_file import read_system
from ser_jax.cli.parser import Parser, split_files, suggest
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


def make_parsers() -> tuple[Parser, dict[str, Parser]]:
    """The program's parser, and those of its commands by name."""
    from ser_jax import __version__

    jsonargparse.set_parsing_settings(add_print_completion_argument=True)
    program = Parser(
        prog="ser-jax",
        usage="ser-jax COMMAND ...",
        description="Speech emotion recognition in JAX and Flax.",
        epilog="'ser-jax COMMAND --help' explains every key of a command.",
    )
    program.add_argument("--version", action="version", version=f"ser-jax {__version__}")
    commands = program.add_subcommands(
        dest="command",
        title="commands",
        description="What to do:",
        metavar="COMMAND",
        required=False,
    )
    made = {}
    for name, (arguments, help, fill) in _COMMANDS.items():
        parser = Parser(usage=f"ser-jax {name} {arguments}", description=help, print_config=None)
        fill(parser)
        commands.add_subcommand(name, parser, help=help)
        parser.prog = f"ser-jax {name}"
        made[name] = parser
    return program, made


def _fill_prepare(parser: Parser) -> None:
    parser.add_keys(config.DataConfig, "data.")


def _fill_labels(parser: Parser) -> None:
    parser.add_key("data.labels", dict[str, str | None], {}, "What to change in the table.")


def _fill_train(parser: Parser) -> None:
    _add_config_file(parser)
    parser.add_keys(config.Config)


def _fill_pretrain(parser: Parser) -> None:
    _add_config_file(parser)
    parser.add_keys(config.PretrainConfig)


def _fill_ablate(parser: Parser) -> None:
    _add_config_file(parser)
    text = (
        "Send the grid to slurm, or to processes of this machine (local), one job per shard, and "
        "return; needs submitit (pip install 'ser-jax[slurm]')."
    )
    parser.add_key("launch", Literal["slurm", "local"] | None, None, text)
    parser.add_key("shards", int, 1, "Number of jobs of --launch.")
    text = "What submitit is told of each job: {slurm_partition: gpu, timeout_min: 60}."
    parser.add_key("slurm", dict[str, Any], {}, text)
    parser.add_keys(config.AblationConfig)


def _add_config_file(parser: Parser) -> None:
    text = "YAML file with any of the keys below; a key on the command line wins over it."
    parser.add_argument("--config", action="config", metavar="FILE", help=text)
    text = "Print every key with its value, as a YAML file to start from, and stop."
    parser.add_argument("--print_config", action="store_true", help=text)


def _fill_evaluate(parser: Parser) -> None:
    _add_run_dir(parser)
    splits = Literal["test", "val", "train", "all"] | None
    text = (
        "Which clips: test, val, train or all "
        "(default: test of the run's own recordings, all of others)."
    )
    parser.add_key("split", splits, None, text)
    text = (
        "Folder for evaluation.json and predictions.csv "
        "(default: evaluations/CORPUS-PART below RUN_DIR)."
    )
    parser.add_key("out", str | None, None, text)
    _add_format(parser)
    text = "Corpus to measure on, as for train (default: the run's own)."
    parser.add_key("data.corpus", config.CorpusName | None, None, text)
    text = "Its folder, or the CSV file of a manifest (default: the run's own)."
    parser.add_key("data.root", str | None, None, text)
    text = "The corpora of data.corpus=joined and their roots (default: the run's own)."
    parser.add_key("data.roots", dict[str, str | None] | None, None, text)
    text = "Changes to the table of labels (default: the run's own)."
    parser.add_key("data.labels", dict[str, str | None] | None, None, text)
    sources = Literal["folder", "tfds"] | None
    text = "Where recordings come from (default: the run's own)."
    parser.add_key("data.source", sources, None, text)
    text = "Folder that keeps decoded corpora (default: the run's own)."
    parser.add_key("data.store_dir", str | None, None, text)


def _fill_predict(parser: Parser) -> None:
    _add_run_dir(parser)
    text = "Audio files: wav, flac, ogg, mp3; m4a, webm and more with ffmpeg; any rate or channels."
    parser.add_argument("files", type=str, nargs="+", metavar="FILE", help=text)
    _add_format(parser)


def _fill_export(parser: Parser) -> None:
    _add_run_dir(parser)
    text = "Folder to write: new, or empty."
    parser.add_argument("dir", type=str, metavar="DIR", help=text)
    text = "transformers: config.json, model.safetensors and preprocessor_config.json for PyTorch."
    parser.add_key("format", Literal["transformers"], "transformers", text)


def _fill_report(parser: Parser) -> None:
    text = "A run directory, or the folder of an ablation."
    parser.add_argument("dir", type=str, metavar="DIR", help=text)


def _add_format(parser: Parser) -> None:
    formats = Literal["table", "json", "csv"]
    text = "How to print: a table, or json or csv for machines."
    parser.add_key("format", formats, "table", text)


def _add_run_dir(parser: Parser) -> None:
    text = "Run directory that 'ser-jax train' wrote."
    parser.add_argument("run_dir", type=str, metavar="RUN_DIR", help=text)


_COMMANDS = {
    "prepare": ("[--data.KEY VALUE ...]", "Decode a corpus once, into the store.", _fill_prepare),
    "labels": (
        "[--data.labels MAPPING]",
        "Show how corpora's words for emotions become classes.",
        _fill_labels,
    ),
    "train": ("[--config FILE] [--KEY VALUE ...]", "Train one network.", _fill_train),
    "pretrain": (
        "--data.root DIR [--config FILE] [--KEY VALUE ...]",
        "Pre-train wav2vec 2.0 on recordings without labels.",
        _fill_pretrain,
    ),
    "evaluate": ("RUN_DIR [--KEY VALUE ...]", "Measure a trained run.", _fill_evaluate),
    "predict": (
        "RUN_DIR FILE... [--format table|json|csv]",
        "Tell the emotion in audio files.",
        _fill_predict,
    ),
    "ablate": (
        "[--config FILE] [--KEY VALUE ...]",
        "Train a grid of runs and compare them.",
        _fill_ablate,
    ),
    "export": (
        "RUN_DIR DIR [--format transformers]",
        "Write a wav2vec2 run for PyTorch's transformers.",
        _fill_export,
    ),
    "report": ("DIR", "Write the tables and figures of a folder again.", _fill_report),
}
