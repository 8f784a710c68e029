"""What a report is made of, as plain data, and how it becomes HTML, Markdown and CSV.

In text that is shown, `code` stands between backticks.
"""

from __future__ import annotations

import csv
import functools
import io
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from jinja2 import Environment
    from markupsafe import Markup
    from matplotlib.figure import Figure

Records = list[dict[str, Any]]


class Table(NamedTuple):
    """Cells of text; the first column heads its row, what follows a newline is set smaller."""

    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    caption: str = ""
    words: Sequence[int] = (0,)
    """Columns of words, aligned to the left."""
    shaded: bool = False
    """Cells are per cent: the higher, the darker."""
    below: str = ""
    """A sentence that stands below it."""


class Picture(NamedTuple):
    """A figure in figures/, as NAME.png and NAME.svg."""

    name: str
    alt: str
    caption: str = ""
    raster: bool = False
    """Shown as PNG."""


class Gallery(NamedTuple):
    """Pictures side by side, below a title that folds them."""

    pictures: Sequence[Picture]
    title: str = ""


class Tile(NamedTuple):
    """A number to be seen first, and what it is."""

    label: str
    value: str
    note: str = ""


@dataclass(frozen=True)
class Section:
    """A heading and what stands below it, in this order.

    Attributes:
      forest, claims: see `overview.make_overview` and `claim_sections.make_claims`.
      records: rows of tables/NAME.csv, in full precision.
      figures: what draws figures/NAME.png and .svg.
    """

    key: str
    title: str
    text: Sequence[str] = ()
    tiles: Sequence[Tile] = ()
    forest: Mapping[str, Any] | None = None
    claims: Mapping[str, Any] | None = None
    galleries: Sequence[Gallery] = ()
    tables: Sequence[Table] = ()
    items: Sequence[str] = ()
    code: str = ""
    notes: Sequence[str] = ()
    records: Mapping[str, Records] = field(default_factory=dict)
    figures: dict[str, Callable[[], Figure]] = field(default_factory=dict)


@dataclass(frozen=True)
class Report:
    """A whole report; `notice` warns of recordings that are no speech."""

    title: str
    subtitle: str
    notice: str
    summary: Section
    sections: Sequence[Section]


def to_html(report: Report, embed: Callable[[Picture], str]) -> str:
    """One page that needs no other file; `embed` makes a data URI of a picture."""
    return _load_templates().get_template("page.html.j2").render(report=report, embed=embed)


def to_markdown(report: Report) -> str:
    """The same in Markdown; pictures are those in figures/."""
    return _load_templates().get_template("report.md.j2").render(report=report)


def to_markdown_table(table: Table) -> str:
    """A table by itself."""
    module: Any = _load_templates().get_template("table.md.j2").module
    return module.table(table)


def to_csv(records: Sequence[Mapping[str, Any]]) -> str:
    """Rows in full precision, a column per key; None is empty."""
    text = io.StringIO()
    keys = list(dict.fromkeys(key for record in records for key in record))
    writer = csv.DictWriter(text, keys, lineterminator="\n", restval="")
    writer.writeheader()
    writer.writerows(records)
    return text.getvalue()


@functools.cache
def _load_templates() -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

    templates = Environment(
        loader=PackageLoader("ser_jax", "report"), autoescape=select_autoescape(["html.j2"]),
        undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    templates.filters |= {"inline": _to_inline, "place": _to_place, "cell": _to_cell}
    return templates


def _to_inline(text: str) -> Markup:
    """Escaped; code between backticks; long names may break after an underscore."""
    from markupsafe import Markup, escape

    escaped = str(escape(text)).replace("_", "_<wbr>")
    return Markup(re.sub(r"`([^`]+)`", r"<code>\1</code>", escaped))


def _to_place(share: float) -> str:
    """Where a share lies on a line, in per cent of its length."""
    return f"{100 * min(max(share, 0.0), 1.0):.2f}%"


def _to_cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
