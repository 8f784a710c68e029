"""The output of the commands: tables for people, JSON and CSV for programs."""

import csv
import io
import json
import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from ser_jax.errors import count_noun, warn

_FIGURES = ("accuracy", "weighted_f1", "macro_f1", "uar", "precision", "f1", "n", "predicted")
_SHOWN, _SHOWN_SPEAKERS = 10, 30  # names in a line; rows of a table
_MIN_WIDTH = 80  # columns
_PIPE_WIDTH = 120  # columns; rich would take 80 and break file names


def print_preparation(report: Any) -> None:
    """Print a `PrepareReport`: what the store holds, and what was left out."""
    state = "built" if report.built else "found"
    size = f"{report.n_bytes / 2**20:.1f} MiB"
    clips = count_noun(report.clips, "clip")
    print(f"{report.corpus}: {clips}, {size}, {state} in {report.seconds:.1f} s")
    if report.counts:
        _print_counts(report.counts)
    left_out = {"song": (), "video": (), "duplicates": (), "unnamed": (), **report.skipped}
    words = {"duplicates": "duplicate", "unnamed": "otherwise named"}
    left_out = {words.get(kind, kind): names for kind, names in left_out.items()}
    left_out |= {"same sound": report.copies, "unreadable": report.bad}
    left_out = {what: names for what, names in left_out.items() if names}
    if left_out:
        print("skipped:", ", ".join(f"{len(names)} {what}" for what, names in left_out.items()))
    for what, names in left_out.items():
        if what == "unreadable":  # each has had a warning
            continue
        for name in names[:_SHOWN]:
            print(f"  {what}: {name}")
        if len(names) > _SHOWN:
            print(f"  {what}: {len(names) - _SHOWN} more")
    print(report.folder)


def _print_counts(counts: Mapping[tuple[str, str, str], int]) -> None:
    """Print the numbers of clips by class and, unless there are many, by speaker."""
    classes = list(dict.fromkeys(name for name, _, _ in counts))
    speakers = sorted({(speaker, gender) for _, speaker, gender in counts})
    sums = {name: sum(n for key, n in counts.items() if key[0] == name) for name in classes}
    by_speaker = [sum(n for key, n in counts.items() if key[1:] == one) for one in speakers]
    genders = [gender for _, gender in speakers if gender]
    said = ", ".join(f"{genders.count(one)} {one}" for one in sorted(set(genders)))
    low, high = min(by_speaker), max(by_speaker)
    each = count_noun(high, "clip") if low == high else f"{low} to {high} clips"
    people = count_noun(len(speakers), "speaker")
    print(f"{people}{f' ({said})' if said else ''}, {each} each")
    print(", ".join(f"{count} {name}" for name, count in sums.items()))
    if len(classes) == 1:
        warn(f"all clips are {classes[0]}; a network needs two classes")
    if len(speakers) <= _SHOWN_SPEAKERS:
        _print_table(_make_speaker_table(counts, classes, speakers))


def _make_speaker_table(
    counts: Mapping[tuple[str, str, str], int],
    classes: Sequence[str],
    speakers: Sequence[tuple[str, str]],
) -> Any:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("Speaker")
    for name in classes:
        table.add_column(Text(name), justify="right")
    for speaker, gender in speakers:
        cells = [str(counts.get((name, speaker, gender), 0)) for name in classes]
        table.add_row(Text(f"{speaker} {gender}".strip()), *cells)
    return table


def print_metrics(report: Mapping[str, Any], title: str) -> None:
    """Print the metrics of a run, overall and by group (see `metrics.compute_report`)."""
    from ser_jax.report.tables import make_class_table, make_group_table

    _print_table(make_group_table(report, title))
    _print_table(make_class_table(report))


def print_evaluation(found: Any, form: str) -> None:
    """Print an `inference.Measurement` as tables, as JSON, or as CSV with a row per group."""
    if form == "json":
        print(json.dumps(found.make_record(), indent=1, allow_nan=False))
        return
    report = found.report
    if form == "csv":
        by = [("all", "", report)]
        by += [(name, value, figures) for name, groups in report["by"].items()
               for value, figures in groups.items()]  # fmt: skip
        writer = csv.DictWriter(sys.stdout, ("group", "value", *_FIGURES), extrasaction="ignore")
        writer.writeheader()
        writer.writerows({"group": name, "value": value, **figures} for name, value, figures in by)
        return
    from ser_jax.report.tables import make_confusion_table

    trained = f"{found.protocol} of {found.trained_on}"
    clips = f"all clips; trained on the {trained}" if found.part == "all" else trained
    part = "" if found.part == "all" else f"{found.part} clips of the "
    print_metrics(report, f"{found.corpus}, {part}{clips}")
    _print_table(make_confusion_table(report))
    if intervals := found.compute_intervals():
        said = ", ".join(f"{name.replace('_f1', ' F1').replace('uar', 'UAR')} {low:.3f} to "
                         f"{high:.3f}" for name, (low, high) in intervals.items())  # fmt: skip
        print(f"95 % intervals (bootstrap over speakers): {said}")
    print_classes(report)


def print_classes(report: Mapping[str, Any]) -> None:
    """Print which classes only the corpus or only the run has, if there are any."""
    if left_out := report.get("left_out"):
        said = ", ".join(f"{count} {name}" for name, count in left_out.items())
        print(f"left out, since the run does not know their classes: {said}")
    clips = zip(report["labels"], report["confusion"], strict=True)
    if absent := [name for name, row in clips if not sum(row)]:
        print(
            f"no clips of {', '.join(absent)}: predicting them counts as wrong, and UAR is the "
            "mean over the other classes"
        )


def print_labels(table: Mapping[str, str | None]) -> None:
    """Print the table from words to classes as a YAML file that --config takes."""
    import yaml

    tree = {"data": {"labels": dict(table)}}
    print("# A corpus's word for an emotion: its class; null leaves its clips out.")
    print(yaml.safe_dump(tree, sort_keys=False), end="")


def print_comparison(cells: Sequence[Mapping[str, Any]]) -> None:
    """Print the rows of a grid, with mean and standard deviation over seeds."""
    from ser_jax.report.tables import make_table, summarise

    _print_table(make_table(summarise(cells)))


def print_predictions(predictions: Sequence[Any], form: str, by: str | None = None) -> None:
    """Print `inference.Prediction`s as a table, as a JSON list or as CSV with a header.

    Bytes of a file name that are not text are written to CSV as they are, to JSON as Python's lone
    surrogates (which `os.fsencode` converts back), and to the table as \\xe9.

    Args:
      predictions: in order.
      form: table, json or csv.
      by: the run that predicts, for the table's title.
    """
    rows = [
        {"file": str(p.file), "start_s": p.start_s, "end_s": p.end_s, "label": p.label}
        for p in predictions
    ]
    if form == "json":
        tails = ({"probabilities": p.probabilities} for p in predictions)
        whole = [row | tail for row, tail in zip(rows, tails, strict=True)]
        print(json.dumps(whole, indent=1, allow_nan=False))
    elif form == "csv":
        text = io.StringIO(newline="")
        names = list(predictions[0].probabilities) if predictions else []
        writer = csv.DictWriter(text, ["file", "start_s", "end_s", "label", *names])
        writer.writeheader()
        writer.writerows(r | p.probabilities for r, p in zip(rows, predictions, strict=True))
        _write(text.getvalue())
    elif predictions:
        _print_table(_make_prediction_table(predictions, by))


def _write(text: str) -> None:
    """Write text with file names in it, keeping bytes that are not text."""
    try:
        text.encode(sys.stdout.encoding or "utf-8")  # the stream itself would replace them
        sys.stdout.write(text)
    except UnicodeEncodeError:
        sys.stdout.flush()
        sys.stdout.buffer.write(os.fsencode(text))


def show_name(name: str) -> str:
    """A file name on one line, with unprintable characters escaped, such as \\n or \\xe9."""

    def show(letter: str) -> str:
        if letter.isprintable():
            return letter
        byte = ord(letter) - 0xDC00  # how Python keeps a byte that is not text
        return f"\\x{byte:02x}" if 0x80 <= byte <= 0xFF else ascii(letter)[1:-1]

    return "".join(map(show, name))


def _make_prediction_table(predictions: Sequence[Any], title: str | None) -> Any:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(title=title, box=box.SIMPLE_HEAD)
    table.add_column("File", overflow="fold")  # paths differ at their ends, so none is cut
    for name in ("Seconds", "Emotion", "Probability", "Next"):
        table.add_column(name, no_wrap=True)
    for p in predictions:
        first, *rest = sorted(p.probabilities.items(), key=lambda item: -item[1])
        others = ", ".join(f"{name} {probability:.2f}" for name, probability in rest[:2])
        cells = (f"{p.start_s:.2f}-{p.end_s:.2f}", p.label, f"{first[1]:.2f}", others)
        table.add_row(Text(show_name(str(p.file))), *cells)
    return table


def _print_table(table: Any) -> None:
    from rich.console import Console

    console = Console()
    # A narrower terminal wraps whole lines; rich would truncate numbers.
    width = max(console.width, _MIN_WIDTH) if sys.stdout.isatty() else _PIPE_WIDTH
    # Without a height rich ignores the width on a dumb terminal.
    Console(width=width, height=console.height).print(table)
