"""The figures: confusion matrix, spectrogram, bars by group, comparison of systems.

Each `draw_` makes a `matplotlib.figure.Figure` of its own, without pyplot and its global state.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ser_jax.errors import count_noun
from ser_jax.files.atomic import write_atomic
from ser_jax.report.tables import format_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's colours, told apart by colour-blind readers.
BLUE, ORANGE, GREY = "#0072B2", "#D55E00", "#666666"


def save_figure(figure: Figure, path: str | Path) -> Path:
    """Write a PNG in one piece. Raises: UserError where it cannot be written."""
    image = io.BytesIO()
    figure.savefig(image, format="png", dpi=150)
    write_atomic(path, image.getvalue())
    return Path(path)


def make_axes(n_rows: int, n_columns: int, width_in: float, height_in: float, **options: Any):
    """A figure with a title's room and its axes [rows, columns], without upper and right frame."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width_in, height_in), layout="constrained")
    axes = figure.subplots(n_rows, n_columns, squeeze=False, **options)
    for ax in axes.flat:
        ax.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _draw_chance(ax: Axes, n_classes: int, along: str) -> None:
    line = ax.axhline if along == "x" else ax.axvline
    line(1 / n_classes, color=GREY, linestyle=":", linewidth=1.5, label=f"chance, 1/{n_classes}")


def draw_confusion(confusion_CC: Any, labels: Sequence[str], title: str) -> Figure:
    """Confusion matrix: colour and percentage by row (true class), the count of clips below it."""
    confusion_CC = np.asarray(confusion_CC)
    share_CC = confusion_CC / np.maximum(confusion_CC.sum(1, keepdims=True), 1)
    figure, axes = make_axes(1, 1, 7.2, 5.9)
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
    bar = figure.colorbar(image, shrink=0.8, pad=0.02)
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
    figure, axes = make_axes(1, 1, 8.4, 3.6)
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
    figure, axes = make_axes(
        1, len(by), 11, 3.7, sharey=True, width_ratios=[n + 0.3 for n in sizes]
    )
    for ax, (name, groups) in zip(axes.flat, by.items(), strict=True):
        values = [figures["accuracy"] for figures in groups.values()]
        bars = ax.bar(range(len(values)), values, width=0.7, color=BLUE)
        ax.bar_label(bars, [f"{value:.2f}" for value in values], padding=2, fontsize=10)
        names = [f"{value}\nn={figures['n']}" for value, figures in groups.items()]
        ax.set_xticks(range(len(names)), names, fontsize=9)
        _draw_chance(ax, n_classes, "x")
        ax.set_title(f"by {name}", fontsize=11)
    for ax in axes.flat[1:]:
        ax.tick_params(left=False)
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
    figure, axes = make_axes(1, 2, 9.6, 1.7 + 0.36 * len(rows), sharey=True)
    places = np.arange(len(rows))
    for ax, name in zip(axes.flat, ("accuracy", "weighted_f1"), strict=True):
        means = np.array([row[f"{name}_mean"] or 0.0 for row in rows])
        stds = np.array([row[f"{name}_std"] or 0.0 for row in rows])
        ax.barh(places, means, height=0.65, color=BLUE, alpha=0.85)
        some = stds > 0
        ax.errorbar(
            means[some], places[some], xerr=stds[some], fmt="none", ecolor="black", capsize=3
        )
        for place, row in zip(places, rows, strict=True):  # beside the panel, clear of the marks
            mean, std = row[f"{name}_mean"], row[f"{name}_std"]
            text = "incomplete" if mean is None else format_figure(mean, std)
            ax.text(1.02, place, text, va="center", fontsize=9, transform=ax.get_yaxis_transform())
        known = [(study or {}).get(row["system"], {}).get(name) for row in rows]
        marks = [(value, place) for place, value in enumerate(known) if value is not None]
        if marks:
            values, at = zip(*marks, strict=True)
            style = {"color": ORANGE, "edgecolor": "white", "zorder": 3, "label": "the study"}
            ax.scatter(values, at, marker="D", s=45, **style)
        _draw_chance(ax, n_classes, "y")
        ax.set(xlim=(0, 1), xlabel=name.replace("_f1", " F1"))
        ax.tick_params(left=False)
    counts = [len(row["seeds"]) for row in rows]
    names = [
        row["system"] if n == max(counts) else f"{row['system']} ({count_noun(n, 'seed')})"
        for row, n in zip(rows, counts, strict=True)
    ]
    axes[0, 0].set_yticks(places, names)
    axes[0, 0].invert_yaxis()
    handles, texts = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, texts, loc="outside lower center", ncols=len(texts), frameon=False)
    figure.suptitle(title)
    return figure
