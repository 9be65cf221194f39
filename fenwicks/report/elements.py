"""Elements of a page. Each function returns HTML; texts that come in are escaped."""

from __future__ import annotations

import re
from collections.abc import Sequence
from html import escape

from fenwicks.report.style import style_sheet

# Nothing may be loaded, and no script run, whatever a run's files hold.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"


def document(title: str, body: str) -> str:
    """A whole page, whose body has a `<h1>` and sections."""
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<title>{escape(title)}</title>\n<style>\n{style_sheet()}</style>\n</head>\n'
        f'<body>\n<main>\n{body}\n</main>\n<footer>Written by fenwicks.report.</footer>\n'
        '</body>\n</html>\n'
    )


def section(heading: str, *parts: str) -> str:
    """A section with its heading; nothing where there are no parts."""
    inside = '\n'.join(part for part in parts if part)
    return f'<section>\n<h2>{escape(heading)}</h2>\n{inside}\n</section>' if inside else ''


def paragraph(text: str) -> str:
    """A paragraph of plain text, in which `code` is set as code."""
    pieces = text.split('`')
    inside = ''.join(
        f'<code>{escape(piece)}</code>' if number % 2 else escape(piece)
        for number, piece in enumerate(pieces)
    )
    return f'<p>{inside}</p>'


def code(text: str) -> str:
    """A command or the like, on lines of its own."""
    return f'<pre><code>{escape(text)}</code></pre>'


def verdict(items: Sequence[tuple[str, str, str]]) -> str:
    """The figures on top: name, value, and a remark each."""
    cells = (
        f'<div><dt>{escape(name)}</dt><dd>{escape(value)}'
        + (f'<small>{escape(remark)}</small>' if remark else '')
        + '</dd></div>'
        for name, value, remark in items
    )
    return f'<dl class="verdict">{"".join(cells)}</dl>'


def table(
    caption: str, header: Sequence[str], rows: Sequence[Sequence[object]], numbers: int = 0
) -> str:
    """A table whose first column names the rows; it scrolls by itself where it is too wide.

    Args:
        caption: what it shows.
        header: names of the columns.
        rows: texts and numbers; a `Bar` becomes one.
        numbers: how many columns at the end hold numbers, to be aligned to the right.
    """
    first = len(header) - numbers
    head = ''.join(
        f'<th scope="col"{_align(place >= first)}>{escape(name)}</th>'
        for place, name in enumerate(header)
    )
    lines = ''.join(
        '<tr>'
        + f'<th scope="row">{_breakable(str(row[0]))}</th>'
        + ''.join(_cell(cell, place >= first) for place, cell in enumerate(row[1:], start=1))
        + '</tr>\n'
        for row in rows
    )
    return scrolling(
        caption,
        f'<table><caption>{escape(caption)}</caption>\n<thead><tr>{head}</tr></thead>\n'
        f'<tbody>\n{lines}</tbody></table>',
    )


class Bar(float):
    """A share, in [0, 1], which a table shows as a bar."""


def _breakable(name: str) -> str:
    """A name that may break after its underscores and slashes, on a narrow screen."""
    return re.sub('([_/])', r'\1<wbr>', escape(name))


def _align(number: bool) -> str:
    return ' class="number"' if number else ''


def _cell(cell, number):
    if isinstance(cell, Bar):
        return f'<td class="bar"><span style="width: {100 * cell:.1f}%"></span></td>'
    return f'<td{_align(number)}>{escape(str(cell))}</td>'


def details(summary: str, inside: str) -> str:
    """A part that opens on demand."""
    return f'<details><summary>{escape(summary)}</summary>\n{inside}\n</details>'


def chart(drawing: str, caption: str = '', kind: str = '') -> str:
    """A figure, as `figures.svg` returns it, with its caption."""
    words = f'<figcaption>{escape(caption)}</figcaption>' if caption else ''
    return f'<figure class="{f"chart {kind}".strip()}">{drawing}{words}</figure>'


def charts(*parts: str) -> str:
    """Charts beside each other where there is room."""
    return f'<div class="charts">{"".join(part for part in parts if part)}</div>'


def scrolling(name: str, inside: str) -> str:
    """A part that scrolls sideways by itself where it is too wide."""
    return (
        f'<div class="scroll" role="region" aria-label="{escape(name)}" tabindex="0">{inside}</div>'
    )


def pictures(items: Sequence[tuple[str, str]]) -> str:
    """Small images, as `figures.image` returns them, each with its caption."""
    cells = ''.join(
        f'<li><figure>{drawing}<figcaption>{escape(caption)}</figcaption></figure></li>\n'
        for drawing, caption in items
    )
    return f'<ul class="pictures">\n{cells}</ul>'


def picture_rows(rows: Sequence[Sequence[str]]) -> str:
    """Rows of small images; the first of each stands a little apart."""
    lines = ''.join(f'<li>{"".join(row)}</li>\n' for row in rows)
    return f'<ul class="rows">\n{lines}</ul>'
