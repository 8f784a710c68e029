"""A grid's cells as rows, and a row or a run as a table: on the terminal, in Markdown and CSV."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ser_jax.metrics import FIGURES, compute_class_figures, compute_metrics
from ser_jax.report.page import Records, Table, to_csv, to_markdown_table

if TYPE_CHECKING:
    import rich.table

_COLUMNS = ("System", "Protocol", "Accuracy", "Weighted F1", "UAR", "Seeds", "Worst seed",
            "Clips", "Status")  # fmt: skip


def summarise(cells: Sequence[Mapping]) -> Records:
    """One row per (system, protocol): mean and standard deviation (ddof=1) over seeds; of
    cross_corpus one per pair of corpora, which names it.

    Rows of one protocol stand together, ranked by `rank_systems`. The folds of a seed are pooled,
    and a seed counts once all of them are done; `status` says what does not count. Where no seed
    counts the figures are None, and so is the deviation of a single seed. `accuracy_worst` is the
    lowest accuracy of a seed that counts, and `worst_seed` the first that has it.
    """
    groups: dict[tuple[str, str], dict[int, list[Mapping]]] = {}
    for cell in cells:
        protocol = " ".join(filter(None, [cell["protocol"], cell.get("fold_name")]))
        by_seed = groups.setdefault((cell["system"], protocol), {})
        by_seed.setdefault(cell["seed"], []).append(cell)
    rows: Records = []
    for (system, protocol), by_seed in groups.items():
        results = {
            seed: compute_metrics(np.sum([np.asarray(cell["confusion"]) for cell in folds], axis=0))
            for seed, folds in sorted(by_seed.items())
            if all(cell["status"] == "done" for cell in folds)
        }
        n = next((result["n"] for result in results.values()), None)
        row = {"system": system, "protocol": protocol, "seeds": list(results), "n": n}
        for figure in FIGURES:
            values = [result[figure] for result in results.values()]
            row[f"{figure}_mean"] = float(np.mean(values)) if values else None
            row[f"{figure}_std"] = float(np.std(values, ddof=1)) if len(values) > 1 else None
        worst = min(((result["accuracy"], seed) for seed, result in results.items()), default=None)
        row["accuracy_worst"], row["worst_seed"] = worst or (None, None)
        rows.append(row | {"status": _describe_status(by_seed, len(results))})
    protocols, systems = [row["protocol"] for row in rows], rank_systems(rows)
    return sorted(rows, key=lambda r: (protocols.index(r["protocol"]), systems.index(r["system"])))


def rank_systems(rows: Sequence[Mapping]) -> list[str]:
    """Systems by accuracy under the first protocol in which all folds of a seed are done; under
    cross_corpus by the mean over pairs.

    Systems of a later protocol follow, and those without any full seed come last.
    """
    found: dict[tuple[str, str], list[float | None]] = {}
    for row in rows:
        protocol = row["protocol"].partition(" ")[0]  # without the pair
        found.setdefault((protocol, row["system"]), []).append(row["accuracy_mean"])
    protocols = list(dict.fromkeys(protocol for protocol, _ in found))
    first: dict[str, tuple[int, float]] = {}
    for (protocol, system), means in sorted(found.items(), key=lambda x: protocols.index(x[0][0])):
        known = [mean for mean in means if mean is not None]
        if len(known) == len(means):
            first.setdefault(system, (protocols.index(protocol), -float(np.mean(known))))
    systems = dict.fromkeys(row["system"] for row in rows)
    return sorted(systems, key=lambda system: first.get(system, (len(protocols), 0.0)))


def _describe_status(by_seed: Mapping[int, Sequence[Mapping]], n_results: int) -> str:
    """`done`, or what is absent: `incomplete: 5 of 6 runs done, 1 missing; 0 of 1 seeds count`."""
    statuses = [cell["status"] for folds in by_seed.values() for cell in folds]
    done = statuses.count("done")
    if done == len(statuses):
        return "done"
    absent = [
        f"{statuses.count(status)} {status}"
        for status in dict.fromkeys(statuses)
        if status != "done"
    ]
    counted = f"{n_results} of {len(by_seed)} seeds count"
    return f"incomplete: {done} of {len(statuses)} runs done, {', '.join(absent)}; {counted}"


def format_figure(mean: float | None, std: float | None = None, digits: int = 3) -> str:
    """`0.463 ± 0.021`; without a deviation the mean alone; `-` for no figure."""
    if mean is None:
        return "-"
    return f"{mean:.{digits}f}" if std is None else f"{mean:.{digits}f} ± {std:.{digits}f}"


def _format_figures(row: Mapping, digits: int) -> list[str]:
    return [format_figure(row[f"{name}_mean"], row[f"{name}_std"], digits) for name in FIGURES]


def _format_worst(row: Mapping, digits: int) -> str:
    """`0.412 (seed 7)`."""
    if row["worst_seed"] is None:
        return "-"
    return f"{row['accuracy_worst']:.{digits}f} (seed {row['worst_seed']})"


def make_table(rows: Sequence[Mapping], title: str | None = None) -> rich.table.Table:
    """The comparison of an ablation, for `rich.print`, with a note on each incomplete row."""
    lines = [
        [row["system"] + " *" * (row["status"] != "done"), row["protocol"],
         *_format_figures(row, 3), str(len(row["seeds"]))]
        for row in rows
    ]  # fmt: skip
    table = _make_rich_table(_COLUMNS[:6], lines, title, left=(0, 1))
    notes = [
        f"* {r['system']}, {r['protocol']}: {r['status']}" for r in rows if r["status"] != "done"
    ]
    if notes:
        from rich.text import Text

        table.caption = Text("\n".join(notes))
        table.caption_justify = "left"
    return table


def make_group_table(report: Mapping[str, Any], title: str | None = None) -> rich.table.Table:
    """One run's figures, over all clips and per group, for `rich.print`.

    Args:
      report: what `metrics.compute_report` returns.
    """
    groups = [("all", "", report)]
    for name, by_value in report["by"].items():
        if name != "emotion":
            groups += [(name, value, figures) for value, figures in by_value.items()]
    lines = [
        [name, value, *(format_figure(figures[f]) for f in FIGURES), str(figures["n"])]
        for name, value, figures in groups
    ]
    head = ("Group", "", "Accuracy", "Weighted F1", "UAR", "Clips")
    return _make_rich_table(head, lines, title, left=(0, 1))


def make_class_table(report: Mapping[str, Any]) -> rich.table.Table:
    """Each emotion's figures, for `rich.print`, and how often it occurs and is predicted.

    All come from the confusion matrix, since older runs recorded other figures by emotion.
    """
    lines = [
        [name, *(format_figure(figures[f]) for f in ("accuracy", "precision", "f1")),
         str(figures["n"]), str(figures["predicted"]),
         f"{100 * figures['predicted'] / report['n']:.0f} %"]
        for name, figures in compute_class_figures(report["labels"], report["confusion"]).items()
    ]  # fmt: skip
    head = ("Emotion", "Recall", "Precision", "F1", "Clips", "Predicted", "of all")
    return _make_rich_table(head, lines, None, left=(0,))


def make_confusion_table(report: Mapping[str, Any]) -> rich.table.Table:
    """Clips by true class, a row each, and predicted class, a column each, for `rich.print`."""
    labels, confusion = report["labels"], np.asarray(report["confusion"])
    seen = np.flatnonzero(confusion.sum(0) + confusion.sum(1))
    lines = [[labels[row], *(str(confusion[row, column]) for column in seen)] for row in seen]
    head = ("True \\ predicted", *(labels[column] for column in seen))
    return _make_rich_table(head, lines, None, left=(0,))


def _make_rich_table(
    head: Sequence[str], lines: Any, title: str | None, left: Any
) -> rich.table.Table:
    import rich.table
    from rich import box
    from rich.text import Text

    table = rich.table.Table(title=title, box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for place, name in enumerate(head):
        table.add_column(name, justify="left" if place in left else "right", no_wrap=place > 0)
    for line in lines:
        table.add_row(*map(Text, line))  # Text: a name with brackets is no markup
    return table


def rows_to_markdown(rows: Sequence[Mapping]) -> str:
    """The same table in Markdown, with the number of clips in one seed's test and the status."""
    lines = [
        [row["system"], row["protocol"], *_format_figures(row, 4), str(len(row["seeds"])),
         _format_worst(row, 4), "-" if row["n"] is None else str(row["n"]), row["status"]]
        for row in rows
    ]  # fmt: skip
    return to_markdown_table(Table(_COLUMNS, lines, words=(0, 1, 8)))


def rows_to_csv(rows: Sequence[Mapping]) -> str:
    """The rows in full precision, seeds separated by spaces."""
    return to_csv([{**row, "seeds": " ".join(map(str, row["seeds"]))} for row in rows])
