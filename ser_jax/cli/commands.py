"""The commands: parse, call the function behind each, print what it returns."""

import errno
import logging
import os
import sys
import warnings
from collections.abc import Callable
from typing import Any

from ser_jax.cli.arguments import Command, parse
from ser_jax.errors import UserError, one_line, warn
from ser_jax.machine.environment import mend_streams

_REMEDIES = {
    errno.ENOSPC: "free some space or choose another folder",
    errno.EDQUOT: "free some space or choose another folder",
    errno.EFBIG: "raise the limit on file sizes (ulimit -f) or choose another folder",
    errno.EROFS: "choose a folder that can be written to",
    errno.EACCES: "choose a folder that you may read and write, or change its permissions",
    errno.EPERM: "choose a folder that you may read and write, or change its permissions",
}
_INTERRUPTED = {
    "train": "; the same command resumes from the last finished epoch",
    "pretrain": "; the same command resumes from the last finished epoch",
    "ablate": "; the same command resumes what is left of the grid",
    "prepare": "; the same command starts over, a download resumes where it stopped",
}


def main(argv: list[str] | None = None) -> int:
    """Run one command line.

    Returns:
      The exit status: 0; 2 for bad input, reported in one line (or one per bad file); 130 after
      Ctrl-C; 141 if the reader of the output has closed it.
    """
    mend_streams()
    command = None
    try:
        command = parse(sys.argv[1:] if argv is None else argv)
        if command.config is not None:
            _check_here()
            if command.name == "train" and argv is None:
                from ser_jax.multihost.supervisor import supervise

                if (status := supervise(command.config.parallel)) is not None:
                    return status
        _quieten()
        status = _RUN[command.name](command)
        sys.stdout.flush()
        return status or 0
    except UserError as error:
        return _fail(error)
    except KeyboardInterrupt:
        how = _INTERRUPTED.get(command.name, "") if command else ""
        print(f"\nser-jax: interrupted{how}", file=sys.stderr)
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for the flush at exit
        return 141
    except OSError as error:
        if error.errno not in _REMEDIES:
            raise
        where = error.filename or "output"
        return _fail(f"{where}: {error.strerror}; {_REMEDIES[error.errno]}")


def _check_here() -> None:
    """Check that the current folder, to which relative paths refer, still exists."""
    try:
        os.getcwd()
    except FileNotFoundError as error:
        raise UserError("the current folder has been deleted; change to another one") from error


def _fail(message: object) -> int:
    print("ser-jax: error:", one_line(message), file=sys.stderr)
    return 2


def _quieten() -> None:
    """Hide what libraries log for developers."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # XLA's own log
    logging.disable(logging.WARNING)
    if not sys.warnoptions:
        warnings.simplefilter("ignore")


def _prepare(command: Command) -> None:
    from ser_jax.cli.printing import print_preparation
    from ser_jax.data.store import prepare

    print_preparation(prepare(command.config))


def _labels(command: Command) -> None:
    from ser_jax.cli.printing import print_labels
    from ser_jax.data.labels import make_label_table

    print_labels(make_label_table(command.options["data"]["labels"]))


def _train(command: Command) -> None:
    from ser_jax.api import train
    from ser_jax.cli.printing import print_metrics
    from ser_jax.machine.allocator import tune_for_cpu
    from ser_jax.machine.cpu_devices import use_all_cores
    from ser_jax.multihost.processes import is_writer, taking_part
    from ser_jax.report.run_report import name_split
    from ser_jax.run.run_dir import default_run_dir

    use_all_cores(command.config.parallel, command.config.train.batch_size)
    with taking_part(command.config.parallel):
        tune_for_cpu()
        metrics = train(command.config)
        if is_writer():
            run_dir = command.config.run_dir or default_run_dir(command.config)
            best = metrics["best_epoch"]  # 0: no network
            title = f"{metrics['corpus']}, test clips of the {name_split(metrics)}"
            print_metrics(metrics["test"], f"{title}, best epoch {best}" if best else title)
            print(f"{run_dir}: metrics.json, figures, checkpoints")


def _evaluate(command: Command) -> None:
    from ser_jax.cli.printing import print_evaluation
    from ser_jax.inference.evaluate import measure
    from ser_jax.inference.measurement import write_evaluation
    from ser_jax.machine.allocator import tune_for_cpu

    tune_for_cpu()
    options = command.options
    data = _override_data(options["run_dir"], options["data"])
    found = measure(options["run_dir"], data, options["split"])
    folder = write_evaluation(found, options["run_dir"], options["out"])
    print_evaluation(found, options["format"])
    if folder and options["format"] == "table":
        print(f"{folder}: evaluation.json, predictions.csv")
    for said in found.list_warnings():
        warn(said)


def _override_data(run_dir: str, changes: dict[str, Any]) -> Any:
    """The run's data settings with the changes of the command line; None without changes."""
    changes = {key: value for key, value in changes.items() if value is not None}
    if not changes:
        return None
    from ser_jax.config import override
    from ser_jax.run.run_dir import load_run_config

    own = load_run_config(run_dir).data
    if "root" in changes and own.corpus == "synthetic":  # which no folder holds
        changes.setdefault("corpus", "ravdess")
    if changes.get("corpus", own.corpus) != own.corpus:  # the run's keys describe its own corpus
        plain: dict[str, Any] = {"root": None, "roots": {}}
        changes = plain | {"protocol": "auto", "fold": 1} | changes
    return override(own, changes)


def _predict(command: Command) -> int:
    """Print the predictions for good files, then name the bad ones."""
    from ser_jax.cli.printing import print_predictions
    from ser_jax.data.splits import name_own_fold
    from ser_jax.inference.predict import predict
    from ser_jax.machine.allocator import tune_for_cpu
    from ser_jax.run.run_dir import load_run_config

    tune_for_cpu()
    options = command.options
    errors: list[UserError] = []
    predictions = predict(options["run_dir"], options["files"], on_error=errors.append)
    config = load_run_config(options["run_dir"])
    split = name_own_fold(config.data)
    by = f"{config.model.name} trained on the {split} of {config.data.title}"
    print_predictions(predictions, options["format"], by)
    sys.stdout.flush()
    for error in errors:
        _fail(error)
    return 2 if errors else 0


def _ablate(command: Command) -> None:
    from ser_jax.api import ablate
    from ser_jax.cli.printing import print_comparison
    from ser_jax.grid.slurm import launch
    from ser_jax.grid.workers import make_devices_here
    from ser_jax.machine.allocator import tune_for_cpu
    from ser_jax.report.grid_report import write_ablation_report

    options = command.options
    if cluster := options["launch"]:
        shards, settings = options["shards"], options["slurm"]
        jobs = launch(command.config, cluster, shards, settings, write_ablation_report)
        print(f"{cluster}: jobs {', '.join(job.job_id for job in jobs)}; their logs are in "
              f"{command.config.out}/jobs")  # fmt: skip
        return
    make_devices_here(command.config)
    tune_for_cpu()
    results = ablate(command.config, command=command.line)
    print_comparison(results["cells"])
    print(f"{command.config.out}: report.html, report.md, results.json, tables, figures, cells")


def _pretrain(command: Command) -> None:
    from ser_jax.machine.allocator import tune_for_cpu
    from ser_jax.machine.cpu_devices import use_all_cores
    from ser_jax.run.pretrain import pretrain

    use_all_cores(command.config.parallel, command.config.train.batch_size)
    tune_for_cpu()
    pretrain(command.config)
    run_dir = command.config.run_dir
    print(f"{run_dir}: backbone (for --backbone.path of ser-jax train), events.jsonl, checkpoints")


def _export(command: Command) -> None:
    from ser_jax.export.hugging_face import export

    options = command.options
    folder = export(options["run_dir"], options["dir"], options["format"])
    print(f"{folder}: config.json, model.safetensors, preprocessor_config.json")


def _report(command: Command) -> None:
    from ser_jax.report.rebuild import rebuild

    for path in rebuild(command.options["dir"]):
        print(path)


_RUN: dict[str, Callable[[Command], int | None]] = {
    "prepare": _prepare,
    "labels": _labels,
    "train": _train,
    "evaluate": _evaluate,
    "predict": _predict,
    "ablate": _ablate,
    "pretrain": _pretrain,
    "export": _export,
    "report": _report,
}
