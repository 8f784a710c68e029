"""Figures of runs and grids: confusion matrices, training curves, forest plots, a spectrogram.

Each `draw_` function returns a new `matplotlib.figure.Figure` that is legible on a phone; none uses
pyplot or its global state.
"""

from __future__ import annotations

import functools
import io
import itertools
import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar, cast

import numpy as np

from ser_jax.files.atomic import write_atomic
from ser_jax.statistics import Mark

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's colours, which colour-blind readers can tell apart, each with a marker.
_SERIES = (("#0072B2", "o"), ("#D55E00", "D"), ("#009E73", "s"), ("#CC79A7", "^"), ("#E69F00", "v"))
_INK, _GREY = "#1c2430", "#666666"
_PARTS = (("train", "training", _SERIES[0][0], "--"), ("val", "validation", _SERIES[1][0], "-"))
_STYLE: dict[Any, Any] = {
    "font.size": 8, "axes.titlesize": 8, "text.color": _INK, "axes.labelcolor": _INK,
    "xtick.color": _INK, "ytick.color": _INK, "axes.spines.top": False, "axes.spines.right": False,
    "axes.axisbelow": True, "grid.alpha": 0.3, "legend.frameon": False, "text.parse_math": False,
    "figure.titlesize": 9, "figure.titleweight": "bold", "savefig.dpi": 200,
    "svg.hashsalt": "ser_jax",
}  # fmt: skip

_Function = TypeVar("_Function", bound=Callable[..., Any])


def _styled(function: _Function) -> _Function:
    """Apply `_STYLE` while `function` runs, and restore matplotlib's settings afterwards."""

    @functools.wraps(function)
    def styled(*args: Any, **kwargs: Any) -> Any:
        import matplotlib

        with matplotlib.rc_context(_STYLE):
            return function(*args, **kwargs)

    return cast(_Function, styled)


@_styled
def save_figure(figure: Figure, path: Path, forms: Sequence[str] = ("png", "svg")) -> list[Path]:
    """Write `path`.png and `path`.svg, the same bytes each time. Raises: UserError."""
    written = []
    for form in forms:
        image = io.BytesIO()
        figure.savefig(image, format=form, metadata={"Date": None} if form == "svg" else None)
        figure.set_layout_engine("none")  # keep the layout just solved
        written.append(path.with_name(f"{path.name}.{form}"))
        write_atomic(written[-1], image.getvalue())
    return written


def _make_figure(title: str, height_in: float, *grid: int, **options: Any) -> tuple[Figure, Any]:
    """A figure with its title, and its axes [rows, columns]."""
    from matplotlib.figure import Figure

    title = textwrap.fill(title, 52)
    height_in += 0.15 * title.count("\n")
    figure = Figure(figsize=(4.4, height_in), layout="constrained")
    figure.suptitle(title, x=0.02, ha="left")
    return figure, figure.subplots(*grid, squeeze=False, **options)


def _add_legend(figure: Figure, axes: Iterable[Axes]) -> None:
    """A legend of all axes below the figure, in as many columns as fit."""
    named = [zip(*ax.get_legend_handles_labels(), strict=True) for ax in axes]
    handles = {text: handle for handle, text in itertools.chain.from_iterable(named)}
    widths = [7 + len(text) for text in handles]  # in characters, of which 60 fit
    n_columns = len(widths) if sum(widths) <= 60 else max(1, 60 // max(widths))
    figure.legend(handles.values(), handles, loc="outside lower center", ncols=n_columns)


def _wrap_name(name: str, width: int, n_lines: int = 3) -> str:
    """Break a name after underscores and at spaces; an ellipsis replaces what exceeds `n_lines`."""
    lines = textwrap.wrap(name.replace("_", "_ "), width, max_lines=n_lines, placeholder="…")
    return "\n".join(lines).replace("_ ", "_")


@_styled
def draw_confusion(confusion_CC: Any, labels: Sequence[str], title: str) -> Figure:
    """Confusion matrix in per cent of each true class, with each class's number of clips."""
    confusion_CC = np.asarray(confusion_CC)
    n_C, places = confusion_CC.sum(1), range(len(labels))
    percent_CC = 100 * confusion_CC / np.maximum(n_C, 1)[:, None]
    figure, ((ax,),) = _make_figure(title, 4.1)
    ax.imshow(percent_CC, cmap="Blues", vmin=0, vmax=100, aspect="auto")
    for (row, column), percent in np.ndenumerate(percent_CC):
        if percent >= 0.5:
            color = "white" if percent > 55 else _INK
            ax.text(column, row, f"{percent:.0f}", ha="center", va="center", color=color)
    names = [_wrap_name(label, 18, 1) for label in labels]
    ax.set_xticks(places, names, rotation=40, ha="right", rotation_mode="anchor")
    ax.set_yticks(places, [f"{name} ({n:,.0f})" for name, n in zip(names, n_C, strict=True)])
    ax.set(xlabel="predicted (% of the true class)", ylabel="true (clips)")
    ax.spines[:].set_visible(False)
    ax.tick_params(length=0)
    return figure


class Panel(NamedTuple):
    """One panel of curves: 'loss' or 'accuracy' from the events of some runs."""

    title: str
    runs: Sequence[Sequence[Mapping[str, Any]]]
    figure: str


@_styled
def draw_curves(panels: Sequence[Panel], title: str, best_epoch: int | None = None) -> Figure:
    """Training and validation curves: the mean over runs, and a band of one standard deviation.

    If all panels show the same figure they share the y axis. Each x axis ends with the last epoch
    of the panel's own runs.
    """
    n_columns = min(2, len(panels))
    n_rows = -(-len(panels) // n_columns)
    same = len({panel.figure for panel in panels}) == 1
    figure, axes = _make_figure(title, 0.75 + 1.4 * n_rows, n_rows, n_columns, sharey=same)
    for ax in axes.flat[len(panels) :]:
        ax.set_visible(False)
    for ax, panel in zip(axes.flat, panels, strict=False):
        _plot_curves(ax, panel)
        if best_epoch is not None:
            ax.axvline(best_epoch, color=_GREY, linestyle="-.", label=f"best epoch, {best_epoch}")
    for ax, panel in zip(axes.flat, panels, strict=False):  # shared limits, so after all curves
        ax.set_ylim(0, 1 if panel.figure == "accuracy" else None)
    for ax in axes.flat[len(panels) - n_columns : len(panels)]:  # the lowest of each column
        ax.set_xlabel("epoch")
    _add_legend(figure, axes.flat)
    return figure


def _plot_curves(ax: Axes, panel: Panel) -> None:
    from matplotlib.ticker import MaxNLocator

    for part, name, color, style in _PARTS:
        name_in_event = f"{part}_{panel.figure}"
        if not any(name_in_event in event for run in panel.runs for event in run):
            continue
        lines = [
            [event.get(name_in_event) for event in run if event.get("event") == "epoch"]
            for run in panel.runs
        ]
        # A diverged loss is None; a run shorter than the others is padded with None.
        value_ER = np.ma.masked_invalid(np.array([*itertools.zip_longest(*lines)], float))
        mean_E, epochs = value_ER.mean(1), np.arange(1, len(value_ER) + 1)
        marker = "o" if len(epochs) == 1 else ""
        ax.plot(epochs, mean_E, style + marker, color=color, label=name, clip_on=False)
        if len(panel.runs) > 1:
            std_E = value_ER.std(1, ddof=1)
            ax.fill_between(epochs, mean_E - std_E, mean_E + std_E, color=color, alpha=0.2, lw=0)
    ax.set_title(_wrap_name(panel.title, 26))
    ax.xaxis.set_major_locator(MaxNLocator(5, integer=True, steps=[1, 2, 5, 10], min_n_ticks=1))
    ax.grid()


@_styled
def draw_forest(
    rows: Mapping[str, str],
    series: Mapping[str, Mapping[str, Mark]],
    title: str,
    chance: float,
    published: Mapping[str, Mapping[str, float]] | None = None,
    *,
    joined: bool = False,
) -> Figure:
    """Forest plot of shares: a row for each key, a coloured dot with its interval for each series.

    Args:
      rows: key to displayed name, from top to bottom.
      series: name of each series to its marks by key.
      chance: accuracy of guessing, a dotted line.
      published: name of a series to published shares by key, drawn as open diamonds; those of
        keys without a row are left out.
      joined: put the dots of a row on one line and join them, without numbers.
    """
    from matplotlib.ticker import PercentFormatter

    names = [_wrap_name(name, 24) for name in rows.values()]
    n_lines = 1 if joined else len(series)
    height_R = [0.06 + 0.13 * max(n_lines, 1 + name.count("\n")) for name in names]  # inches
    middle_R = np.cumsum(height_R) - np.divide(height_R, 2)
    figure, ((ax,),) = _make_figure(title, 1.15 + sum(height_R))
    for number, (label, marks) in enumerate(series.items()):
        offset = 0 if joined else 0.13 * (number - (n_lines - 1) / 2)
        at = dict(zip(rows, middle_R + offset, strict=True))
        color, shape = _SERIES[number % len(_SERIES)]
        _plot_marks(ax, at, marks, numbered=not joined, color=color, marker=shape, label=label)
        beside = (published or {}).get(label, {})
        if known := [(x, at[key]) for key, x in beside.items() if key in at]:
            style = {"marker": "D", "s": 24, "facecolor": "none", "edgecolor": _INK, "zorder": 3}
            ax.scatter(*zip(*known, strict=True), label="published by the study", **style)
    for y, key in zip(middle_R, rows, strict=True):
        means = [marks[key].mean for marks in series.values() if key in marks]
        if joined and means:
            ax.hlines(y, min(means), max(means), color="#b8c0cc", linewidth=2, zorder=1)
        elif not means:
            ax.text(1.02, y, "no result", va="center", transform=ax.get_yaxis_transform())
    ax.axvline(chance, color=_GREY, linestyle=":", label="chance")
    ax.set(xlim=(0, min(1, ax.get_xlim()[1])), ylim=(sum(height_R), 0))
    ax.set_yticks(middle_R, names)
    ax.tick_params(axis="y", length=0)
    ax.xaxis.set_major_formatter(PercentFormatter(1))
    ax.grid(axis="x")
    _add_legend(figure, [ax])
    return figure


def _plot_marks(
    ax: Axes, at: Mapping[str, float], marks: Mapping[str, Mark], *, numbered: bool, **style: Any
) -> None:
    """Dots and intervals of one series and, if `numbered`, the means to the right of the axes."""
    found = [(at[key], marks[key]) for key in at if key in marks]
    for y, (mean, interval) in found:
        if interval:
            ax.hlines(y, *interval, color=style["color"], linewidth=2.2, alpha=0.5)
        if numbered:
            ax.text(1.02, y, f"{100 * mean:.1f}", va="center", transform=ax.get_yaxis_transform())
    shown = {"s": 20, "zorder": 2, "edgecolor": "white", "linewidth": 0.5, "clip_on": False}
    ax.scatter([mark.mean for _, mark in found], [y for y, _ in found], **shown, **style)


@_styled
def draw_spectrogram(
    db_TF: np.ndarray, rate_hz: int, hop_length: int, title: str, band_hz_F: np.ndarray
) -> Figure:
    """Mel spectrogram of one clip.

    Args:
      db_TF: power of each frame and mel band in dB.
      rate_hz, hop_length: sample rate, and samples from one frame to the next.
      band_hz_F: centre of each band in Hz.
    """
    figure, ((ax,),) = _make_figure(title, 2.4)
    n_frames, n_bands = db_TF.shape
    extent = (0, n_frames * hop_length / rate_hz, -0.5, n_bands - 0.5)
    image = ax.imshow(db_TF.T, origin="lower", aspect="auto", cmap="magma", extent=extent)
    shown_hz = [f for f in (250, 500, 1000, 2000, 4000, 8000, 16000) if f <= band_hz_F[-1]]
    ax.set_yticks(np.interp(shown_hz, band_hz_F, np.arange(n_bands)), map(str, shown_hz))
    ax.set(xlabel="time (s)", ylabel="frequency (Hz, mel scale)")
    figure.colorbar(image, pad=0.01).set_label("power (dB)")
    return figure
