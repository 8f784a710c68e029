"""A report as sections of blocks; `rendering` makes HTML, Markdown and CSV of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Prose:
    """A paragraph; `code` between backticks."""

    text: str
    kind: str = ""
    """'lead' or 'note'; '' is plain."""


@dataclass(frozen=True)
class Items:
    """A list of lines, `code` between backticks."""

    lines: Sequence[str]


@dataclass(frozen=True)
class Table:
    """Cells of text; the first column heads its row, what follows a line end is set smaller."""

    head: Sequence[str]
    lines: Sequence[Sequence[str]]
    caption: str = ""
    text_columns: Sequence[int] = (0,)
    """Columns that hold words, aligned to the left."""
    shade: Callable[[str], float | None] | None = None
    """From a cell's text to how dark it is, 0 to 1."""


@dataclass(frozen=True)
class Picture:
    """A figure that lies in figures/ as NAME.png and NAME.svg."""

    name: str
    alt: str
    caption: str = ""
    raster: bool = False
    """Shown as PNG."""


@dataclass(frozen=True)
class Gallery:
    """Pictures side by side."""

    pictures: Sequence[Picture]
    summary: str = ""
    """Of a part that can be folded; '': not to be folded."""


@dataclass(frozen=True)
class Code:
    """Text as it was typed."""

    text: str
    summary: str = ""
    """Of a part that can be folded."""


@dataclass(frozen=True)
class Drawn:
    """Markup of HTML's own, and the blocks that stand for it in Markdown."""

    markup: str
    instead: Sequence[Any] = ()


Records = dict[str, list[dict[str, Any]]]
"""Rows of tables/*.csv by the names of the files."""
Content = Prose | Items | Table | Picture | Gallery | Code | Drawn


@dataclass(frozen=True)
class Section:
    """A heading and what is below it."""

    key: str
    title: str
    blocks: Sequence[Content]


@dataclass(frozen=True)
class Document:
    """A whole report.

    Attributes:
      records: rows of the CSV files, by file name without its ending.
    """

    title: str
    subtitle: str
    summary: Sequence[Content]
    sections: Sequence[Section]
    records: Mapping[str, Sequence[Mapping[str, Any]]] = field(default_factory=dict)
