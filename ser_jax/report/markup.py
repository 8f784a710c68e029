"""Markup that HTML draws better than a picture: dots on a line that fits any width."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from ser_jax.report.rendering import escape, to_inline
from ser_jax.statistics import Interval, Mark

_SIGNS = {"holds": "✓", "does not hold": "✕", "not decided": "?"}
_KINDS = {"holds": "holds", "does not hold": "fails", "not decided": "open"}


class Tile(NamedTuple):
    """A number to be seen first, and what it is."""

    value: str
    label: str
    note: str = ""


def make_tiles(tiles: Sequence[Tile]) -> str:
    """Numbers side by side."""
    inner = "".join(
        f'<div class="tile"><dt>{to_inline(tile.label)}</dt><dd><strong>{to_inline(tile.value)}'
        f"</strong><span>{to_inline(tile.note)}</span></dd></div>"
        for tile in tiles
    )
    return f'<dl class="tiles">{inner}</dl>'


def make_pill(verdict: str, *, weak: bool = False) -> str:
    """A verdict, told by sign and word, not by colour alone."""
    mark = "<sup>†</sup>" if weak else ""
    return f'<span class="pill {_KINDS[verdict]}"><b>{_SIGNS[verdict]}</b> {verdict}{mark}</span>'


def _percent(share: float) -> str:
    return f"{100 * min(max(share, 0.0), 1.0):.2f}%"


def _line(low: float, high: float, y: float, kind: str) -> str:
    return (
        f'<line x1="{_percent(low)}" x2="{_percent(high)}" y1="{y:g}" y2="{y:g}" class="{kind}"/>'
    )


def make_forest(
    rows: Sequence[tuple[str, Mapping[str, Mark], str]],
    protocols: Mapping[str, str],
    study: Mapping[str, float],
    chance: float,
) -> str:
    """Accuracy of every system, a line each.

    Args:
      rows: name, figures by protocol, and a note.
      protocols: names and what to call them, in the order of their colours.
      study: published accuracy by system.
      chance: of guessing.
    """
    keys = "".join(
        f'<li class="p{number}"><svg width="26" height="12" aria-hidden="true">'
        f'<line x1="1" x2="25" y1="6" y2="6" class="reach"/><circle cx="13" cy="6" r="4.5"/></svg>'
        f"{escape(label)}</li>"
        for number, label in enumerate(protocols.values())
    )
    if study:
        keys += (
            '<li><svg width="14" height="12" aria-hidden="true"><path d="M7 1l5 5-5 5-5-5z" '
            'class="published"/></svg>published by the study</li>'
        )
    keys += (
        '<li><svg width="10" height="12" '
        'aria-hidden="true"><line x1="5" x2="5" y1="0" y2="12" class="chance"/></svg>chance</li>'
    )
    lines = "".join(_make_forest_row(row, protocols, study, chance) for row in rows)
    ticks = "".join(
        f'<text x="{tick}%" y="12" text-anchor="{anchor}">{tick}</text>'
        for tick, anchor in ((0, "start"), (25, "middle"), (50, "middle"), (75, "middle"),
                             (100, "end"))
    )  # fmt: skip
    axis = (
        '<li class="axis" aria-hidden="true"><span class="name">accuracy, %</span>'
        f'<svg class="track" width="100%" height="16" aria-hidden="true">{ticks}</svg>'
        '<span class="figures"></span></li>'
    )
    return f'<ul class="key">{keys}</ul><ol class="forest">{axis}{lines}{axis}</ol>'


def _make_forest_row(
    row: tuple[str, Mapping[str, Mark], str],
    protocols: Mapping[str, str],
    study: Mapping[str, float],
    chance: float,
) -> str:
    name, marks, note = row
    n = max(len(protocols), 1)
    height = 12 * n + 8
    drawn, said, figures = [], [], []
    grid = "".join(
        f'<line x1="{tick}%" x2="{tick}%" y1="0" y2="{height}" class="grid"/>'
        for tick in (0, 25, 50, 75, 100)
    )
    where = _percent(chance)
    grid += f'<line x1="{where}" x2="{where}" y1="0" y2="{height}" class="chance"/>'
    for number, (protocol, label) in enumerate(protocols.items()):
        mark, y = marks.get(protocol), 10 + 12 * number
        if mark is None:
            figures.append('<span class="none">-</span>')
            continue
        reach = _line(*mark.interval, y, "reach") if mark.interval else ""
        drawn.append(
            f'<g class="p{number}">{reach}<circle cx="{_percent(mark.mean)}" cy="{y}" r="4.5"/></g>'
        )
        reached = f", {_range(mark.interval)}" if mark.interval else ""
        said.append(f"{label} {100 * mark.mean:.1f} %{reached}")
        figures.append(f'<span class="p{number}">{100 * mark.mean:.1f}</span>')
    if name in study:
        x, middle = _percent(study[name]), height / 2
        drawn.append(
            f'<svg x="{x}" y="{middle - 6:g}" overflow="visible"><path d="M0 0l6 6-6 6-6-6z" '
            'class="published"/></svg>'
        )
        said.append(f"the study {100 * study[name]:.1f} %")
    label = escape(f"{name}: {'; '.join(said) or 'no result'}")
    more = f"<small>{escape(note)}</small>" if note else ""
    return (
        f'<li><span class="name">{escape(name).replace("_", "_<wbr>")}{more}</span>'
        f'<svg class="track" width="100%" height="{height}" role="img" aria-label="{label}">'
        f"<title>{label}</title>{grid}{''.join(drawn)}</svg>"
        f'<span class="figures">{"".join(figures)}</span></li>'
    )


def _range(interval: Interval) -> str:
    return f"95 % {100 * interval.low:.1f} to {100 * interval.high:.1f}"


def make_difference(
    effect: float, seeds: Interval | None, speakers: Interval | None, reach: float, label: str
) -> str:
    """A difference about zero: a dot, a thick line over speakers and a thin one over seeds.

    Args:
      reach: what the ends of the line stand for, to either side.
    """

    def place(value: float) -> float:
        return 0.5 + value / (2 * reach)

    parts = ['<line x1="50%" x2="50%" y1="0" y2="18" class="zero"/>']
    if seeds:
        parts.append(_line(place(seeds.low), place(seeds.high), 9, "thin"))
    if speakers:
        parts.append(_line(place(speakers.low), place(speakers.high), 9, "thick"))
    parts.append(f'<circle cx="{_percent(place(effect))}" cy="9" r="4.5"/>')
    return (
        f'<svg class="difference" width="100%" height="18" role="img" aria-label="{escape(label)}">'
        f"<title>{escape(label)}</title>{''.join(parts)}</svg>"
    )
