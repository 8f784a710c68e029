"""The figures: training curves, confusion matrix, spectrogram, bars by group, comparison.

Each `draw_` makes a `matplotlib.figure.Figure` of its own, without pyplot and its global state.
"""

from __future__ import annotations

import io
import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ser_jax.files import write_atomic

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's colours, told apart by colour-blind readers; the line styles differ as well.
_BLUE, _ORANGE, _GREY = "#0072B2", "#D55E00", "#666666"
_PARTS = (("train", _BLUE, "--"), ("val", _ORANGE, "-"))
_GRID_COLUMNS = 4

Run = Sequence[Mapping[str, Any]]  # the events of one run


def save_figure(figure: Figure, path: str | Path) -> Path:
    """Write a PNG in one piece. Raises: UserError where it cannot be written."""
    image = io.BytesIO()
    figure.savefig(image, format="png", dpi=150)
    write_atomic(path, image.getvalue())
    return Path(path)


def _make_axes(n_rows: int, n_columns: int, width_in: float, height_in: float, **options: Any):
    """A figure with a title's room and its axes [rows, columns], without upper and right frame."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width_in, height_in), layout="constrained")
    axes = figure.subplots(n_rows, n_columns, squeeze=False, **options)
    for ax in axes.flat:
        ax.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _draw_chance(ax: Axes, n_classes: int, along: str) -> None:
    line = ax.axhline if along == "x" else ax.axvline
    line(1 / n_classes, color=_GREY, linestyle=":", linewidth=1.5, label=f"chance, 1/{n_classes}")


def _stack(runs: Sequence[Run], key: str) -> np.ndarray:
    """One figure of the epoch events as [runs, epochs]; NaN where a run was shorter or diverged."""
    values = [[e.get(key) for e in run if e.get("event") == "epoch"] for run in runs]
    stacked = np.full((len(values), max(map(len, values), default=0)), np.nan)
    for row, line in zip(stacked, values, strict=True):
        row[: len(line)] = [np.nan if value is None else value for value in line]
    return stacked


def _draw_parts(ax: Axes, runs: Sequence[Run], figure: str) -> None:
    """Train and val of 'loss' or 'accuracy': the mean over runs, and a band of one deviation."""
    from matplotlib.ticker import MaxNLocator

    for part, color, style in _PARTS:
        stacked = _stack(runs, f"{part}_{figure}")
        known = np.isfinite(stacked)
        n_runs = known.sum(0)
        mean = np.where(known, stacked, 0).sum(0) / np.maximum(n_runs, 1)
        mean[n_runs == 0] = np.nan
        epochs = np.arange(1, len(mean) + 1)
        marker = "o" if len(mean) == 1 else None
        ax.plot(epochs, mean, color=color, linestyle=style, marker=marker, label=part)
        if len(runs) > 1:
            square = np.where(known, (stacked - mean) ** 2, 0).sum(0)
            std = np.sqrt(square / np.maximum(n_runs - 1, 1))
            ax.fill_between(epochs, mean - std, mean + std, color=color, alpha=0.2, linewidth=0)
    ax.xaxis.set_major_locator(MaxNLocator("auto", integer=True))
    ax.grid(alpha=0.3)


def draw_curves(events: Run, title: str, best_epoch: int | None = None) -> Figure:
    """Loss and accuracy of one run by epoch, for training and validation; the kept epoch marked."""
    figure, axes = _make_axes(1, 2, 8.4, 3.4)
    for ax, name in zip(axes.flat, ("loss", "accuracy"), strict=True):
        _draw_parts(ax, [events], name)
        if best_epoch is not None:
            label = f"best epoch, {best_epoch}"
            ax.axvline(best_epoch, color=_GREY, linewidth=1, linestyle="-.", label=label)
        ax.set(xlabel="epoch", ylabel=name)
    axes[0, 1].set_ylim(0, 1)
    axes[0, 0].legend(frameon=False)
    figure.suptitle(title)
    return figure


def draw_curve_grid(systems: Mapping[str, Sequence[Run]], name: str, title: str) -> Figure:
    """'loss' or 'accuracy' of several systems, a panel each: mean and deviation over runs."""
    n_columns = min(len(systems), _GRID_COLUMNS)
    n_rows = -(-len(systems) // n_columns)
    size = (max(5.6, 2.8 * n_columns), 0.7 + 2.4 * n_rows)
    figure, axes = _make_axes(n_rows, n_columns, *size, sharex=True, sharey=True)
    panels = itertools.zip_longest(axes.flat, systems.items())
    for place, (ax, item) in enumerate(panels):
        if item is None:
            ax.set_visible(False)
            continue
        system, runs = item
        _draw_parts(ax, runs, name)
        runs_text = f"{len(runs)} runs" if len(runs) > 1 else "1 run"
        ax.set_title(f"{system} ({runs_text})", fontsize=10)
        if place % n_columns == 0:
            ax.set_ylabel(name)
        if place + n_columns >= len(systems):  # the lowest panel of its column
            ax.set_xlabel("epoch")
            ax.tick_params(labelbottom=True)
    axes[0, 0].legend(frameon=False)
    if name == "accuracy":
        axes[0, 0].set_ylim(0, 1)
    figure.suptitle(title)
    return figure


def draw_confusion(confusion_CC: Any, labels: Sequence[str], title: str) -> Figure:
    """Confusion matrix: colour and percentage by row (true class), the count of clips below it."""
    confusion_CC = np.asarray(confusion_CC)
    share_CC = confusion_CC / np.maximum(confusion_CC.sum(1, keepdims=True), 1)
    figure, axes = _make_axes(1, 1, 7.2, 6.4)
    ax = axes[0, 0]
    image = ax.imshow(share_CC, cmap="Blues", vmin=0, vmax=1)
    for (row, column), count in np.ndenumerate(confusion_CC):
        if count:
            share = share_CC[row, column]
            color = "white" if share > 0.55 else "black"
            text = f"{100 * share:.0f}%\n({count})"
            ax.text(column, row, text, ha="center", va="center", color=color, fontsize=9)
    places = range(len(labels))
    ax.set_xticks(places, labels, rotation=35, ha="right", rotation_mode="anchor")
    ax.set_yticks(
        places, [f"{x} (n={n})" for x, n in zip(labels, confusion_CC.sum(1), strict=True)]
    )
    ax.set(xlabel="predicted", ylabel="true")
    ax.spines[:].set_visible(False)
    bar = figure.colorbar(image, shrink=0.8)
    bar.set_label("share of the true class")
    figure.suptitle(title)
    return figure


def draw_spectrogram(
    db_TF: np.ndarray,
    rate_hz: int,
    hop_length: int,
    title: str,
    band_hz_F: np.ndarray | None = None,
) -> Figure:
    """Mel spectrogram of one clip.

    Args:
      db_TF: power per frame and mel band, dB.
      rate_hz, hop_length: sample rate, and samples between frames.
      band_hz_F: centre of each band in Hz, for the axis; without it the bands are numbered.
    """
    figure, axes = _make_axes(1, 1, 8.4, 3.6)
    ax = axes[0, 0]
    n_frames, n_bands = db_TF.shape
    extent = (0, n_frames * hop_length / rate_hz, -0.5, n_bands - 0.5)
    image = ax.imshow(
        np.asarray(db_TF).T, origin="lower", aspect="auto", cmap="magma", extent=extent
    )
    ax.set(xlabel="time (s)", ylabel="mel band")
    if band_hz_F is not None:
        shown_hz = [f for f in (250, 500, 1000, 2000, 4000, 8000, 16000) if f <= band_hz_F[-1]]
        ax.set_yticks(np.interp(shown_hz, band_hz_F, np.arange(n_bands)), map(str, shown_hz))
        ax.set_ylabel("frequency (Hz, mel scale)")
    figure.colorbar(image, pad=0.01).set_label("power (dB)")
    figure.suptitle(title)
    return figure


def draw_groups(report: Mapping[str, Any], title: str) -> Figure:
    """Accuracy by emotion, gender, intensity and statement: a panel each, clips under each bar.

    Args:
      report: what `metrics.compute_report` returns.
    """
    by, n_classes = report["by"], len(report["labels"])
    sizes = [len(groups) for groups in by.values()]
    figure, axes = _make_axes(
        1, len(by), 11, 3.7, sharey=True, width_ratios=[n + 0.3 for n in sizes]
    )
    for ax, (name, groups) in zip(axes.flat, by.items(), strict=True):
        values = [figures["accuracy"] for figures in groups.values()]
        bars = ax.bar(range(len(values)), values, width=0.7, color=_BLUE)
        ax.bar_label(bars, [f"{value:.2f}" for value in values], padding=2, fontsize=10)
        names = [f"{value}\nn={figures['n']}" for value, figures in groups.items()]
        ax.set_xticks(range(len(names)), names, fontsize=9.5)
        _draw_chance(ax, n_classes, "x")
        ax.set_title(f"by {name}", fontsize=11)
    axes[0, 0].set(ylabel="accuracy", ylim=(0, 1.08), yticks=np.linspace(0, 1, 6))
    axes[0, 0].legend(frameon=False, loc="upper right")
    figure.suptitle(title)
    return figure


def draw_comparison(
    rows: Sequence[Mapping], title: str, n_classes: int, study: Mapping[str, Mapping] | None = None
) -> Figure:
    """Accuracy and weighted F1 of the systems of one protocol, with the deviation over seeds.

    Args:
      rows: what `tables.summarise` returns.
      study: published figures by system, {"accuracy", "weighted_f1"}, drawn as diamonds.
    """
    figure, axes = _make_axes(1, 2, 9.2, 1.5 + 0.42 * len(rows), sharey=True)
    places = np.arange(len(rows))
    for ax, name in zip(axes.flat, ("accuracy", "weighted_f1"), strict=True):
        means = np.array([row[f"{name}_mean"] or 0.0 for row in rows])
        stds = np.array([row[f"{name}_std"] or 0.0 for row in rows])
        ax.barh(places, means, height=0.65, color=_BLUE, alpha=0.85)
        shown = stds > 0
        ax.errorbar(
            means[shown], places[shown], xerr=stds[shown], fmt="none", ecolor="black", capsize=3
        )
        for place, row, end in zip(places, rows, means + stds, strict=True):
            mean = row[f"{name}_mean"]
            ax.text(
                end + 0.015, place, "incomplete" if mean is None else f"{mean:.3f}", va="center"
            )
        known = [(study or {}).get(row["system"], {}).get(name) for row in rows]
        marks = [(value, place) for place, value in enumerate(known) if value is not None]
        if marks:
            values, at = zip(*marks, strict=True)
            style = {"color": _ORANGE, "edgecolor": "white", "zorder": 3, "label": "the study"}
            ax.scatter(values, at, marker="D", s=40, **style)
        _draw_chance(ax, n_classes, "y")
        ax.set(xlim=(0, 1), xlabel=name.replace("_f1", " F1"))
    names = [f"{row['system']} ({len(row['seeds'])} seeds)" for row in rows]
    axes[0, 0].set_yticks(places, names)
    axes[0, 0].invert_yaxis()
    axes[0, 1].legend(frameon=False, loc="lower right")
    figure.suptitle(title)
    return figure
