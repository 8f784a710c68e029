"""The blocks of a report as HTML, Markdown and CSV."""

from __future__ import annotations

import csv
import html
import io
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ser_jax.report.document import (
    Code,
    Content,
    Document,
    Drawn,
    Gallery,
    Items,
    Picture,
    Prose,
    Table,
)


def escape(text: object) -> str:
    """Text for HTML, in an attribute too."""
    return html.escape(str(text), quote=True)


def to_inline(text: str) -> str:
    """Escaped text; what stands between backticks is code."""
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", escape(text))


def to_body(document: Document, embed: Callable[[Picture], str]) -> str:
    """The report as HTML, without the head.

    Args:
      embed: from a picture to the data URI of its file.
    """
    contents = "".join(
        f'<li><a href="#{s.key}">{escape(s.title)}</a></li>' for s in document.sections
    )
    parts = [
        f"<header><h1>{escape(document.title)}</h1>"
        f'<p class="subtitle">{to_inline(document.subtitle)}</p></header>',
        f'<nav aria-label="Contents"><h2>Contents</h2><ol>{contents}</ol></nav>',
        "<main>",
        '<section id="summary" aria-label="Summary">',
        *(_to_html(block, embed) for block in document.summary),
        "</section>",
    ]
    for section in document.sections:
        inner = "".join(_to_html(block, embed) for block in section.blocks)
        parts.append(
            f'<section id="{section.key}"><h2>{escape(section.title)}</h2>{inner}</section>'
        )
    return "\n".join([*parts, "</main>"])


def _to_html(block: Content, embed: Callable[[Picture], str]) -> str:
    match block:
        case Prose(text, kind):
            return (
                f'<p class="{kind}">{to_inline(text)}</p>' if kind else f"<p>{to_inline(text)}</p>"
            )
        case Items(lines):
            return f"<ul>{''.join(f'<li>{to_inline(line)}</li>' for line in lines)}</ul>"
        case Table():
            return _to_html_table(block)
        case Picture(name, alt, caption):
            said = f"<figcaption>{to_inline(caption)}</figcaption>" if caption else ""
            kind = ' class="raster"' if block.raster else ""
            image = f'<img src="{embed(block)}" alt="{escape(alt)}" decoding="async"{kind}>'
            return f'<figure id="figure-{escape(name)}">{image}{said}</figure>'
        case Gallery(pictures, summary):
            inner = "".join(_to_html(picture, embed) for picture in pictures)
            return _fold(f'<div class="gallery">{inner}</div>', summary)
        case Code(text, summary):
            return _fold(f'<pre tabindex="0"><code>{escape(text)}</code></pre>', summary)
        case Drawn(markup):
            return markup


def _fold(inner: str, summary: str) -> str:
    if not summary:
        return inner
    return f"<details open><summary>{to_inline(summary)}</summary>{inner}</details>"


def _to_html_table(table: Table) -> str:
    def make(tag: str, place: int, text: str) -> str:
        kind = "" if place in table.text_columns else ' class="number"'
        scope = ' scope="col"' if tag == "th" else ""
        if tag == "td" and place == 0:
            tag, scope = "th", ' scope="row"'
        shade = table.shade(text) if table.shade and tag == "td" else None
        style = ""
        if shade is not None:
            dark = " dark" if shade > 0.58 else ""
            style, kind = f' style="--shade:{100 * shade:.0f}%"', f' class="number shaded{dark}"'
        elif tag == "td" and not kind and len(text) > 40:
            kind = ' class="words"'
        first, _, rest = text.partition("\n")
        small = f"<small>{to_inline(rest)}</small>" if rest else ""
        return f"<{tag}{scope}{kind}{style}>{_may_break(to_inline(first))}{small}</{tag}>"

    caption = f'<p class="caption">{to_inline(table.caption)}</p>' if table.caption else ""
    head = "".join(make("th", place, text) for place, text in enumerate(table.head))
    body = "".join(
        f"<tr>{''.join(make('td', place, text) for place, text in enumerate(line))}</tr>"
        for line in table.lines
    )
    label = escape(re.sub("`", "", table.caption) or "Table")
    return (
        f'<div class="box">{caption}<div class="scroll" tabindex="0" role="region" '
        f'aria-label="{label}"><table><thead><tr>{head}</tr></thead>'
        f"<tbody>{body}</tbody></table></div></div>"
    )


def to_markdown(document: Document) -> str:
    """The report as Markdown; pictures are those in figures/."""
    parts = [f"# {document.title}", document.subtitle, *map(_to_text, document.summary)]
    for section in document.sections:
        parts += [f"## {section.title}", *map(_to_text, section.blocks)]
    return "\n\n".join(part for part in parts if part) + "\n"


def _to_text(block: Content) -> str:
    match block:
        case Prose(text):
            return text
        case Items(lines):
            return "\n".join(f"- {line}" for line in lines)
        case Table(head, lines, caption, text_columns):
            rule = [":---" if i in text_columns else "---:" for i in range(len(head))]
            rows = [head, rule, *lines]
            table = "\n".join(
                "| " + " | ".join(_to_cell(cell) for cell in row) + " |" for row in rows
            )
            return f"{caption}\n\n{table}" if caption else table
        case Picture(name, alt, caption):
            image = f"![{re.sub(r'[][]', '', alt)}](figures/{name}.png)"
            return f"{image}\n\n{caption}" if caption else image
        case Gallery(pictures):
            return "\n\n".join(map(_to_text, pictures))
        case Code(text):
            return f"```\n{text.rstrip()}\n```"
        case Drawn(_, instead):
            return "\n\n".join(map(_to_text, instead))


def _to_cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def _may_break(text: str) -> str:
    """Long names of systems may be broken after an underscore."""
    return text.replace("_", "_<wbr>")


def to_csv(records: Sequence[Mapping[str, Any]]) -> str:
    """Rows in full precision, a column per key; None is empty."""
    keys = list(dict.fromkeys(key for record in records for key in record))
    text = io.StringIO()
    writer = csv.DictWriter(text, keys, lineterminator="\n", restval="")
    writer.writeheader()
    writer.writerows(records)
    return text.getvalue()
