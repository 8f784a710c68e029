"""Figures of the whole report, each narrow enough to be read on a phone.

Margins are fixed, since a layout that is solved for takes longer than all else in drawing.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ser_jax.files.atomic import write_atomic
from ser_jax.report.curves import Run, draw_both_parts
from ser_jax.report.figures import BLUE, GREY, ORANGE
from ser_jax.statistics import Interval

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PALETTE = (BLUE, ORANGE, "#009E73", "#CC79A7")
"""A protocol each, in order of first appearance; Okabe and Ito's."""
_INK, _PAPER = "#1c2430", "#ffffff"
_WIDTH_IN = 4.4


def save_both(figure: Figure, folder: Path, name: str) -> list[Path]:
    """Write a figure as PNG and SVG, the same bytes each time. Raises: UserError."""
    import matplotlib

    written = []
    with matplotlib.rc_context({"svg.hashsalt": "ser_jax", "svg.fonttype": "path"}):
        forms: dict[str, dict[str, Any]] = {
            "png": {"dpi": 150},
            "svg": {"metadata": {"Date": None}},
        }
        for form, options in forms.items():
            image = io.BytesIO()
            figure.savefig(image, format=form, **options)
            written.append(folder / f"{name}.{form}")
            write_atomic(written[-1], image.getvalue())
    return written


def _make(
    height_in: float,
    left_in: float,
    bottom_in: float,
    n_columns: int = 1,
    gap: float = 0.0,
    top_in: float = 0.36,
) -> tuple[Figure, list[Axes]]:
    """A figure with axes in a row; margins in inches, room for a title of one line above."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(_WIDTH_IN, height_in), facecolor=_PAPER)
    axes = figure.subplots(1, n_columns, squeeze=False)
    figure.subplots_adjust(
        left=left_in / _WIDTH_IN, right=1 - 0.12 / _WIDTH_IN, bottom=bottom_in / height_in,
        top=1 - top_in / height_in, wspace=gap,
    )  # fmt: skip
    for ax in axes.flat:
        ax.spines[["top", "right"]].set_visible(False)
        ax.tick_params(labelsize=8, colors=_INK, length=2.5)
    return figure, list(axes.flat)


def _title(figure: Figure, text: str) -> None:
    height_in = float(figure.get_size_inches()[1])
    size = 9.5 if len(text) < 52 else 9.5 * 52 / len(text)
    figure.text(
        0.12 / _WIDTH_IN, 1 - 0.1 / height_in, text, ha="left", va="top", fontsize=size, color=_INK,
        fontweight="bold",
    )  # fmt: skip


def draw_small_confusion(confusion_CC: np.ndarray, labels: Sequence[str], title: str) -> Figure:
    """Confusion matrix, per cent of each true class."""
    share_CC = confusion_CC / np.maximum(confusion_CC.sum(1, keepdims=True), 1)
    figure, (ax,) = _make(4.15, 0.98, 0.86)
    ax.imshow(share_CC, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    for (row, column), share in np.ndenumerate(share_CC):
        if share >= 0.005:
            color = "white" if share > 0.55 else _INK
            ax.text(
                column, row, f"{100 * share:.0f}", ha="center", va="center", color=color, fontsize=8
            )
    places = range(len(labels))
    ax.set_xticks(places, labels, rotation=40, ha="right", rotation_mode="anchor")
    ax.set_yticks(places, labels)
    ax.set_xlabel("predicted (% of the true class)", fontsize=8, color=_INK, labelpad=2)
    ax.set_ylabel("true", fontsize=8, color=_INK, labelpad=2)
    ax.spines[:].set_visible(False)
    ax.tick_params(length=0)
    _title(figure, title)
    return figure


def draw_system_curves(runs: Sequence[Run], title: str) -> Figure:
    """Accuracy and loss by epoch, training and validation: mean over runs, band of a deviation."""
    figure, axes = _make(2.4, 0.46, 0.44, 2, gap=0.26, top_in=0.5)
    for ax, name in zip(axes, ("accuracy", "loss"), strict=True):
        draw_both_parts(ax, runs, name)
        ax.set_xlabel("epoch", fontsize=8, color=_INK, labelpad=1)
        ax.set_title(name, fontsize=8, loc="left", pad=2, color=GREY)
    axes[0].set_ylim(0, 1)
    axes[1].set_ylim(bottom=0)
    axes[0].legend(frameon=False, fontsize=7.5, loc="upper left", handlelength=1.6)
    _title(figure, title)
    return figure


class Pair(NamedTuple):
    """Accuracy of one system in two groups."""

    system: str
    first: float
    second: float


def draw_pairs(pairs: Sequence[Pair], names: tuple[str, str], title: str, chance: float) -> Figure:
    """Two groups of clips for every system: a dot each, joined."""
    longest = max(len(pair.system) for pair in pairs)
    left_in = min(2.0, 0.25 + 0.066 * longest)
    figure, (ax,) = _make(0.84 + 0.2 * len(pairs), left_in, 0.42)
    places = np.arange(len(pairs))
    first, second = (np.array([getattr(p, key) for p in pairs]) for key in ("first", "second"))
    ax.hlines(places, first, second, color="#b8c0cc", linewidth=2, zorder=1)
    style: dict[str, Any] = {"s": 26, "zorder": 2, "edgecolor": _PAPER, "linewidth": 0.6}
    ax.scatter(first, places, color=BLUE, label=names[0], **style)
    ax.scatter(second, places, color=ORANGE, marker="D", label=names[1], **style)
    ax.axvline(chance, color=GREY, linestyle=":", linewidth=1)
    most = min(1.0, np.ceil(10 * max(first.max(), second.max()) + 0.2) / 10)
    ax.set(xlim=(0, most), ylim=(len(pairs) - 0.4, -0.6))
    ticks = np.arange(0, most + 0.01, 0.1 if most < 0.7 else 0.2)
    ax.set_xticks(ticks, [f"{100 * x:.0f}" for x in ticks])
    ax.set_yticks(places, [pair.system for pair in pairs])
    ax.tick_params(axis="y", length=0)
    ax.set_xlabel("accuracy (%); dotted: chance", fontsize=8, color=_INK, labelpad=1)
    ax.grid(axis="x", alpha=0.25)
    ax.set_axisbelow(True)
    height_in = float(figure.get_size_inches()[1])
    figure.legend(
        loc="upper right", bbox_to_anchor=(1, 1 - 0.02 / height_in), ncols=2, frameon=False,
        fontsize=8, handletextpad=0.0, columnspacing=0.6, borderpad=0.2,
    )  # fmt: skip
    _title(figure, title)
    return figure


class Mark(NamedTuple):
    """A figure of one system under one protocol."""

    mean: float
    interval: Interval | None


def draw_forest(
    rows: Sequence[tuple[str, Mapping[str, Mark]]],
    protocols: Sequence[str],
    study: Mapping[str, float],
    title: str,
    chance: float,
) -> Figure:
    """Accuracy of every system under every protocol, with 95 % intervals."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.6, 1.5 + 0.36 * len(rows)), facecolor=_PAPER, layout="constrained")
    ax = figure.subplots()
    step = 0.6 / max(len(protocols), 1)
    for number, protocol in enumerate(protocols):
        color = PALETTE[number % len(PALETTE)]
        at = [
            (place + (number - (len(protocols) - 1) / 2) * step, marks[protocol])
            for place, (_, marks) in enumerate(rows)
            if protocol in marks
        ]
        for y, mark in at:
            if mark.interval:
                ax.hlines(y, *mark.interval, color=color, linewidth=2.2, alpha=0.55)
        ax.scatter(
            [mark.mean for _, mark in at], [y for y, _ in at], color=color, s=30, zorder=3,
            label=protocol,
        )  # fmt: skip
    known = [(study[name], place) for place, (name, _) in enumerate(rows) if name in study]
    if known:
        values, at_y = zip(*known, strict=True)
        ax.scatter(
            values, at_y, marker="D", s=34, facecolor="none", edgecolor=_INK, label="the study"
        )
    ax.axvline(chance, color=GREY, linestyle=":", label="chance")
    ax.set_yticks(range(len(rows)), [name for name, _ in rows])
    ax.set(xlim=(0, 1), ylim=(len(rows) - 0.4, -0.6), xlabel="accuracy, 95 % interval")
    ax.spines[["top", "right"]].set_visible(False)
    ax.grid(axis="x", alpha=0.25)
    n = len(protocols) + 2
    figure.legend(loc="outside lower center", ncols=n, frameon=False, fontsize=9)
    figure.suptitle(title, fontsize=11, fontweight="bold")
    return figure
