"""The commands, and the keys and files that each takes."""

from typing import Any, Literal

import jsonargparse

from ser_jax import config
from ser_jax.cli.parser import Parser


def make_parsers(wanted: str) -> tuple[Parser, dict[str, Parser]]:
    """The program's parser, and those of its commands by name.

    Args:
      wanted: the command whose keys are needed; anything else, such as --print_completion, takes
        those of all.
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
    parser.add_argument("--config", metavar="FILE", help=text)
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
