"""Training curves: loss and accuracy by epoch, of one run or of many."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ser_jax.errors import count_noun
from ser_jax.report.figures import BLUE, GREY, ORANGE, make_axes

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_PARTS = (("train", BLUE, "--"), ("val", ORANGE, "-"))
_GRID_COLUMNS = 4

Run = Sequence[Mapping[str, Any]]  # the events of one run


def _stack(runs: Sequence[Run], key: str) -> np.ndarray:
    """One figure of the epoch events as [runs, epochs]; NaN where a run was shorter or diverged."""
    values = [[e.get(key) for e in run if e.get("event") == "epoch"] for run in runs]
    stacked = np.full((len(values), max(map(len, values), default=0)), np.nan)
    for row, line in zip(stacked, values, strict=True):
        row[: len(line)] = [np.nan if value is None else value for value in line]
    return stacked


def draw_both_parts(ax: Axes, runs: Sequence[Run], figure: str) -> None:
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


def draw_run_curves(events: Run, title: str, best_epoch: int | None = None) -> Figure:
    """Loss and accuracy of one run by epoch, for training and validation; the kept epoch marked."""
    figure, axes = make_axes(1, 2, 8.4, 3.4)
    for ax, name in zip(axes.flat, ("loss", "accuracy"), strict=True):
        draw_both_parts(ax, [events], name)
        if best_epoch is not None:
            label = f"best epoch, {best_epoch}"
            ax.axvline(best_epoch, color=GREY, linewidth=1, linestyle="-.", label=label)
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
    figure, axes = make_axes(n_rows, n_columns, *size, sharex=True, sharey=True)
    counts = {len(runs) for runs in systems.values()}
    same = len(counts) == 1
    panels = itertools.zip_longest(axes.flat, systems.items())
    for place, (ax, item) in enumerate(panels):
        if item is None:
            ax.set_visible(False)
            continue
        system, runs = item
        draw_both_parts(ax, runs, name)
        ax.set_title(system if same else f"{system} ({count_noun(len(runs), 'run')})", fontsize=9.5)
        if place % n_columns == 0:
            ax.set_ylabel(name)
        if place + n_columns >= len(systems):  # the lowest panel of its column
            ax.set_xlabel("epoch")
            ax.tick_params(labelbottom=True)
    axes[0, 0].legend(frameon=False)
    if name == "accuracy":
        axes[0, 0].set_ylim(0, 1)
    over = f"mean ± deviation over {count_noun(max(counts), 'run')}" if max(counts) > 1 else "1 run"
    figure.suptitle(f"{title}, {over}" if same else f"{title}, mean ± deviation over runs")
    return figure
