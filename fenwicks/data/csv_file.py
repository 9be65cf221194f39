"""Columns of a CSV file."""

from __future__ import annotations

import csv
import os
import pathlib
import re
from collections.abc import Sequence

from fenwicks._checks import some_of
from fenwicks.data.limits import check_size, damage_named

_MOST_BYTES = 2**28


def read_columns(
    path: str | os.PathLike[str], columns: Sequence[str | int | None]
) -> list[tuple[int, list[str]]]:
    """Reads some columns of a CSV file, whose values are separated by commas, `;` or tabs.

    Args:
        path: a file in UTF-8 with a header.
        columns: of paths, labels, ...: headers, or numbers from 0; `None` gives `''`.

    Returns:
        A list of pairs of a line's number and its values, without the spaces around them, the
        header first.

    Raises:
        ValueError: it is no such file, has no such column or two of that name, the first two are
            the same, or a line has no value in one of them, or more values than the header.
        OSError: it can't be read.
    """
    check_size(pathlib.Path(path), _MOST_BYTES)
    with (
        open(path, newline='', encoding='utf-8-sig') as file,
        damage_named(path, 'be a CSV file in UTF-8'),
    ):
        first = re.sub('"[^"]*"', '', file.readline())  # without what is in quotation marks
        file.seek(0)
        delimiter = max(',;\t', key=first.count)
        reader = csv.reader(file, strict=True, skipinitialspace=True, delimiter=delimiter)
        lines, begun = [], 1
        try:
            for row in reader:
                if row:
                    lines.append((reader.line_num, [cell.strip() for cell in row]))
                begun = reader.line_num + 1
        except csv.Error as error:
            text = str(error)
            if 'field limit' in text and reader.line_num <= begun:
                text = f'a value must have at most {csv.field_size_limit():,} characters'
            elif 'unexpected end of data' in text or 'field limit' in text:
                text = 'a quotation mark is not closed'
            raise ValueError(f'line {begun}: {text}') from None
    if not lines:
        raise ValueError(f'{path}: must have a header, and a line for each image')
    header = lines[0][1]
    places = [None if name is None else _place(path, name, header) for name in columns]
    if len(places) > 1 and places[0] is not None and places[0] == places[1]:
        raise ValueError(
            f'{path}: `label_column` must be another column than `path_column`. '
            f'Received: {columns[1]!r}, which is column {places[0]} too'
        )
    rows: list[tuple[int, list[str]]] = []
    for line, row in lines:
        if any(row[len(header) :]):
            raise ValueError(
                f'{path}: line {line} must have at most {len(header)} values, as the header has: '
                f'write quotation marks around a value that holds {delimiter!r}. '
                f'Received: {len(row)} values'
            )
        values = ['' if i is None or i >= len(row) else row[i] for i in places]
        for name, place, value in zip(columns, places, values, strict=True):
            if rows and place is not None and not value:
                raise ValueError(f'{path}: line {line} has no value in column {name!r}')
            if '\0' in value:
                raise ValueError(
                    f'{path}: line {line} must be text. Received: a NUL byte in column {name!r}'
                )
        rows.append((line, values))
    return rows


def _place(path, name, header):
    if isinstance(name, str) and header.count(name) > 1:
        places = ', '.join(str(place) for place, each in enumerate(header) if each == name)
        raise ValueError(
            f'{path}: must have one column {name!r}, or be read by a number. '
            f'Received: columns {places} of that name'
        )
    if isinstance(name, str) and name in header:
        return header.index(name)
    if isinstance(name, int) and 0 <= name < len(header):
        return name
    raise ValueError(f'{path}: must have a column {name!r}. Received: {some_of(header, 10)}')
