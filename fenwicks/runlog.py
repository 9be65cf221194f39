"""Results of runs as JSON, one line a run, and the tables made of them."""

from __future__ import annotations

import json
import math
import pathlib
import statistics
from collections.abc import Sequence

from fenwicks._files import written_whole


def write_json(path, value):
    """Writes one JSON object with a line a key, whole or not at all."""
    text = json.dumps(value, indent=1) + '\n'
    with written_whole(path) as part:
        part.write_text(text)


def read_json(path):
    return json.loads(pathlib.Path(path).read_text())


def read_lines(path) -> list:
    """The values of a JSON-lines file.

    Raises:
        ValueError: a line is no JSON.
    """
    values = []
    for number, line in enumerate(pathlib.Path(path).read_text().splitlines(), start=1):
        try:
            values.append(json.loads(line))
        except json.JSONDecodeError as error:
            raise ValueError(
                f'`log` must hold a JSON value a line. Received: {path}, line {number}: {error}'
            ) from None
    return values


def start_log(path):
    """Makes a JSON-lines file if there is none: what can't be written to fails before the work.

    Raises:
        OSError: it can't.
    """
    try:
        with open(path, 'a'):
            pass
    except OSError as error:
        raise OSError(
            f'`log` must be a file that can be written to. Received: {path} ({error.strerror})'
        ) from error


def append_line(path, value):
    """Adds one value to a JSON-lines file, in a single write."""
    with open(path, 'a') as file:
        file.write(json.dumps(value) + '\n')


def markdown(header: Sequence, rows: Sequence[Sequence]) -> str:
    """A Markdown table."""
    lines = [header, ['---'] * len(header), *rows]
    return '\n'.join('| ' + ' | '.join(str(cell) for cell in line) + ' |' for line in lines)


def mean_and_error(values: Sequence[float]) -> str:
    """The mean, with two standard errors where there are several values.

    >>> mean_and_error([94.0, 94.2])
    '94.10 ± 0.20'
    """
    mean = f'{statistics.mean(values):.2f}'
    if len(values) == 1:
        return mean
    return f'{mean} ± {2 * statistics.stdev(values) / math.sqrt(len(values)):.2f}'
