"""Results of runs as JSON, one run a line, and tables of them as Markdown."""

from __future__ import annotations

import contextlib
import errno
import json
import math
import os
import pathlib
import statistics
from collections.abc import Container, Mapping, Sequence
from typing import Any

from fenwicks._files import check_target, check_writable, locked, written_whole

__all__ = [
    'append_line',
    'check_same',
    'check_target',
    'check_writable',
    'locked',
    'markdown',
    'mean_and_error',
    'read_json',
    'read_lines',
    'start_log',
    'two_errors',
    'write_json',
    'write_text',
    'written_whole',
]


_NAMED = 5  # differences that an error names


def write_json(path: str | os.PathLike[str], value: Any) -> None:
    """Writes one JSON object with one key a line; the file appears whole or not at all.

    Numbers that aren't finite, for which JSON has no word, become null.
    """
    write_text(path, json.dumps(_finite(value), indent=1) + '\n')


def _finite(value):
    return json.loads(json.dumps(value), parse_constant=lambda _: None)


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Writes a text file; it appears whole or not at all."""
    with written_whole(pathlib.Path(path).expanduser(), may_be_empty=not text) as part:
        part.write_text(text, encoding='utf-8', errors='backslashreplace')


def read_json(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The JSON object in a file.

    Raises:
        ValueError: the file holds no JSON object; the message names it.
        OSError: it can't be read.
    """
    try:
        value = json.loads(pathlib.Path(path).expanduser().read_text(encoding='utf-8'))
        if not isinstance(value, dict):
            raise ValueError(f'a {type(value).__name__}')
    except (ValueError, RecursionError) as error:
        raise ValueError(
            f'{path} must hold a JSON object: remove it, or restore it. Received: {error}'
        ) from None
    return value


def read_lines(path: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """The JSON objects of a JSON-lines file.

    Raises:
        ValueError: a line is no JSON object; the message names file and line.
        OSError: the file can't be read.
    """
    try:
        text = pathlib.Path(path).expanduser().read_text(encoding='utf-8')
    except UnicodeDecodeError as error:
        raise ValueError(f'{path} must be text. Received: {error}') from None
    values = []
    # `splitlines` would also cut within strings, at U+2028 and the like.
    for number, line in enumerate(text.removesuffix('\n').split('\n') if text else (), start=1):
        try:
            value = json.loads(line)
            if not isinstance(value, dict):
                raise ValueError(f'a {type(value).__name__}')
        except (ValueError, RecursionError) as error:
            raise ValueError(
                f'each line of {path} must be a JSON object. Received: line {number}: {error}'
            ) from None
        values.append(value)
    return values


def start_log(path: str | os.PathLike[str]) -> None:
    """Creates a JSON-lines file if there is none, so that a bad path fails before the work.

    Raises:
        OSError: the file can't be written.
    """
    try:
        with open(pathlib.Path(path).expanduser(), 'a+b', buffering=0) as file:
            if not file.seekable():  # `append_line` looks at the end of the last line
                raise OSError(errno.ESPIPE, 'a pipe or a terminal')
    except OSError as error:
        raise OSError(
            f'the log must be a file that can be written to. Received: {path} ({error.strerror})'
        ) from error


def append_line(path: str | os.PathLike[str], value: Any) -> None:
    """Appends one value to a JSON-lines file: the whole line, or nothing.

    Several processes may append to one file. Where the last line has no end, as after an editor,
    the value gets a line of its own. Numbers that aren't finite become null, as in `write_json`.

    Raises:
        OSError: the file can't be written, as on a full disk; it is as it was.
    """
    path = pathlib.Path(path).expanduser()
    text = json.dumps(_finite(value)) + '\n'
    try:
        _append_whole(path, text.encode())
    except OSError as error:
        denied = error.errno in (errno.EACCES, errno.EPERM, errno.EROFS)
        rule = f'the disk must take the whole of a line of {path}'
        raise OSError(
            f'{f"{path} must be a file that can be written to" if denied else rule}. '
            f'Received: {error.strerror}'
        ) from error


def _append_whole(path, line):
    with open(path, 'a+b', buffering=0) as file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - 1))
        content = line if file.read(1) in (b'', b'\n') else b'\n' + line
        written = 0
        try:
            while written < len(content):  # after a part of it the next write says why
                written += file.write(content[written:])
        except OSError:
            end = file.tell()
            with contextlib.suppress(OSError):  # a device, such as /dev/full, has no length
                if file.seek(0, os.SEEK_END) == end:  # or another process wrote a line after it
                    file.truncate(end - written)
            raise


def check_same(
    path: str | os.PathLike[str], line: Mapping, about: Mapping, newer: Container[str] = ()
) -> None:
    """Raises unless a line of a log agrees with what is to be appended to it.

    Args:
        path: of the log, for the message.
        line: one of its lines.
        about: the values that both must have, by key; nested ones are compared one by one, and
            what JSON doesn't tell apart is the same.
        newer: keys that lines of earlier versions lack, which says nothing.

    Raises:
        ValueError: they differ; it says where.

    Example:

    >>> check_same('log.jsonl', {'seed': 1, 'size': [8, 8]}, {'size': (8, 8)})
    """
    made, now = (
        _flat(json.loads(json.dumps(values)))
        for values in (
            {key: line[key] for key in about if key in line},
            {key: value for key, value in about.items() if key in line or key not in newer},
        )
    )
    differences = [
        f'{key}={_shown(made, key)} instead of {_shown(now, key)}'
        for key in {**now, **made}
        if key not in made or key not in now or made[key] != now[key]
    ]
    if differences:
        more = len(differences) - _NAMED
        raise ValueError(
            '`log` must hold runs of the same settings, data and hardware: pass another file. '
            f'Received: log={path}, with a run of {", ".join(differences[:_NAMED])}'
            + (f' and {more} more' if more > 0 else '')
        )


def _shown(values, key):
    return repr(values[key]) if key in values else 'nothing'


def _flat(values, path=''):
    """A nested dict as a flat one, from dotted paths to values."""
    if not isinstance(values, dict):
        return {path: values}
    flat = {}
    for key, value in values.items():
        flat.update(_flat(value, f'{path}.{key}' if path else key))
    return flat


def markdown(header: Sequence, rows: Sequence[Sequence]) -> str:
    """A Markdown table."""
    lines = [header, ['---'] * len(header), *rows]
    return '\n'.join('| ' + ' | '.join(_cell(value) for value in line) + ' |' for line in lines)


def _cell(value):
    return ' '.join(str(value).replace('|', '\\|').splitlines())


def mean_and_error(values: Sequence[float]) -> str:
    """The mean, with two standard errors where there are several values.

    >>> mean_and_error([94.0, 94.2])
    '94.10 ± 0.20'
    """
    values = [float(value) for value in values]  # `statistics` takes no integers of NumPy
    mean = f'{statistics.mean(values):.2f}'
    if len(values) == 1:
        return mean
    return f'{mean} ± {two_errors(values):.2f}'


def two_errors(values: Sequence[float]) -> float:
    """Two standard errors of the mean of some values; infinite for a single one."""
    n = len(values)
    if n < 2:
        return math.inf
    mean = statistics.fmean(values)
    squares = math.fsum((value - mean) ** 2 for value in values)  # `stdev` refuses NaN
    return 2 * math.sqrt(squares / (n - 1) / n)
