"""The commands, with the keys and files that each takes."""

from typing import Any, Literal

import jsonargparse

from ser_jax import config
from ser_jax.cli.parser import Parser


def make_parsers(wanted: str = "") -> tuple[Parser, dict[str, Parser]]:
    """The program's parser, and the parsers of its commands by name.

    Args:
      wanted: the command to be parsed, so that the others get no keys, which take time; by default,
        and for --print_completion, all commands get theirs.
    """
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
        if wanted == name or wanted not in (*_COMMANDS, "--help", "--version"):
            fill(parser)
        commands.add_subcommand(name, parser, help=help)
        parser.prog = f"ser-jax {name}"
        made[name] = parser
    return program, made


def _fill_prepare(parser: Parser) -> None:
    parser.add_keys(config.DataConfig, "data.")


def _fill_labels(parser: Parser) -> None:
    text = "Changes to the table, as in {boredom: sad, calm: null}."
    parser.add_key("data.labels", _Words, {}, text)


def _fill_train(parser: Parser) -> None:
    _add_config_file(parser)
    parser.add_keys(config.Config)


def _fill_pretrain(parser: Parser) -> None:
    _add_config_file(parser)
    parser.add_keys(config.PretrainConfig)


def _fill_ablate(parser: Parser) -> None:
    _add_config_file(parser)
    text = (
        "Submit the grid to slurm, or to processes of this machine (local), as one job per shard, "
        "and return; requires submitit (pip install 'ser-jax[slurm]'); null: run it here."
    )
    parser.add_key("launch", Literal["slurm", "local"] | None, None, text)
    parser.add_key("shards", int, 1, "Number of shards, and of jobs, for --launch.")
    text = "Parameters of submitit for each job, as in {slurm_partition: gpu, timeout_min: 60}."
    parser.add_key("slurm", dict[str, Any], {}, text)
    parser.add_keys(config.AblationConfig)


def _add_config_file(parser: Parser) -> None:
    text = "YAML file with any of the keys below; keys on the command line win over it."
    parser.add_argument("--config", metavar="FILE", help=text)
    text = "Print all keys with their values as a YAML file, and exit."
    parser.add_argument("--print_config", action="store_true", help=text)


def _fill_evaluate(parser: Parser) -> None:
    _add_run_dir(parser)
    own = " (default: the run's own)."
    keys: dict[str, tuple[Any, str]] = {
        "split": (Literal["test", "val", "train", "all"], "Clips to evaluate: test, val, train or "
                  "all (default: test for the run's own recordings, all for others)."),
        "out": (str, "Folder for evaluation.json and predictions.csv "
                "(default: evaluations/CORPUS-PART below RUN_DIR)."),
        "data.corpus": (config.CorpusName, f"Corpus to evaluate on, as for train{own}"),
        "data.root": (str, f"Folder of the corpus, or CSV file of a manifest{own}"),
        "data.roots": (_Words, f"Corpora of data.corpus=joined with their roots{own}"),
        "data.labels": (_Words, f"Changes to the table of labels{own}"),
        "data.store_dir": (str, f"Folder where decoded corpora are kept{own}"),
    }  # fmt: skip
    for key, (kind, text) in keys.items():
        parser.add_key(key, kind | None, None, text)
    _add_format(parser)


def _fill_predict(parser: Parser) -> None:
    _add_run_dir(parser)
    text = "Audio files of any rate and number of channels: wav, flac, ogg, mp3; more with ffmpeg."
    parser.add_argument("files", type=str, nargs="+", metavar="FILE", help=text)
    _add_format(parser)


def _fill_export(parser: Parser) -> None:
    _add_run_dir(parser)
    text = "Folder to write to, new or empty."
    parser.add_argument("dir", type=str, metavar="DIR", help=text)
    text = "Format: transformers (config.json, model.safetensors and preprocessor_config.json)."
    parser.add_key("format", Literal["transformers"], "transformers", text)


def _fill_report(parser: Parser) -> None:
    parser.add_argument("dir", type=str, metavar="DIR", help="Run directory, or folder of a grid.")


def _add_format(parser: Parser) -> None:
    text = "Output format: table, json or csv."
    parser.add_key("format", Literal["table", "json", "csv"], "table", text)


def _add_run_dir(parser: Parser) -> None:
    text = "Run directory written by 'ser-jax train'."
    parser.add_argument("run_dir", type=str, metavar="RUN_DIR", help=text)


_Words = dict[str, str | None]
_RUN_KEYS = "[--config FILE] [--KEY VALUE ...]"
_COMMANDS = {
    "prepare": ("[--data.KEY VALUE ...]", "Decode a corpus once, into the store.", _fill_prepare),
    "labels": (
        "[--data.labels MAPPING]",
        "Print the table from corpora's words for emotions to classes.",
        _fill_labels,
    ),
    "train": (_RUN_KEYS, "Train one network, svm or hmm.", _fill_train),
    "pretrain": (
        f"--data.root DIR {_RUN_KEYS}",
        "Pre-train wav2vec 2.0 on unlabelled recordings.",
        _fill_pretrain,
    ),
    "evaluate": ("RUN_DIR [--KEY VALUE ...]", "Evaluate a trained run.", _fill_evaluate),
    "predict": (
        "RUN_DIR FILE... [--format table|json|csv]",
        "Predict the emotion in audio files.",
        _fill_predict,
    ),
    "ablate": (_RUN_KEYS, "Train a grid of runs and compare them.", _fill_ablate),
    "export": (
        "RUN_DIR DIR [--format transformers]",
        "Export a wav2vec2 run for transformers in PyTorch.",
        _fill_export,
    ),
    "report": ("DIR", "Redraw the tables and figures of a run or grid.", _fill_report),
}
