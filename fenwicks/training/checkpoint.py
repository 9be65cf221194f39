"""Checkpoints: the whole state of a training in one file."""

from __future__ import annotations

import contextlib
import errno
import json
import math
import os
import pathlib
import sys
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeAlias

import keras
import numpy as np

from fenwicks import _files
from fenwicks._errors import one_line
from fenwicks.data.limits import read_header

FORMAT = 2  # of the settings: 1 had no digest of the data and no version of the library

_MOST_STATE_BYTES = 2**28

Path: TypeAlias = str | os.PathLike[str]


def origin(data_digest: str) -> dict[str, Any]:
    """What a training must have in common with its checkpoint besides its settings.

    Args:
        data_digest: of the training's data.

    Returns:
        A dict of `format`, `fenwicks` (its version) and `data_digest`.
    """
    return {
        'format': FORMAT,
        'fenwicks': sys.modules['fenwicks'].__version__,
        'data_digest': data_digest,
    }


def as_path(path: Any, writes: bool) -> pathlib.Path:
    """The path of a checkpoint, with the home folder for `~`.

    Args:
        path: of the file.
        writes: whether this process is to write it.

    Raises:
        ValueError: it is no path, or the file can't be written there.
    """
    if not isinstance(path, str | os.PathLike):
        raise ValueError(f'`checkpoint` must be the path of a file. Received: {path!r}')
    if writes:
        return _files.check_target(path, 'checkpoint')
    return pathlib.Path(path).expanduser()


@contextlib.contextmanager
def claimed(path: Path) -> Iterator[None]:
    """A block in which this process alone writes the checkpoint, into a folder that takes it.

    Raises:
        BlockingIOError: another training writes it.
        OSError: the folder can't be written to.
    """
    with contextlib.ExitStack() as claims:
        try:
            _files.check_writable(pathlib.Path(path).parent)
            claims.enter_context(_files.claimed(path))
        except BlockingIOError:
            raise BlockingIOError(
                f'`checkpoint` must not be in use by another training. Received: checkpoint={path}'
            ) from None
        except OSError as error:
            reason = getattr(error.__cause__, 'strerror', error.strerror)
            raise OSError(
                '`checkpoint` must lie in a folder that can be written to. '
                f'Received: checkpoint={path} ({reason})'
            ) from error
        yield


def as_json(fingerprint: Any) -> Any:
    """A `fingerprint` as the file will have it; raises unless JSON can hold it."""
    try:
        return json.loads(json.dumps(fingerprint, default=_number))
    except (TypeError, ValueError, RecursionError) as error:
        reason = one_line(error)
        raise ValueError(
            '`fingerprint` must be of what JSON can hold: dicts with strings as keys, lists, '
            f'strings and numbers. Received: {reason}'
        ) from None


def _number(value):
    """A number of NumPy as one of Python."""
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f'a {type(value).__name__}')


def save(
    path: Path,
    variables: Sequence[keras.Variable],
    state: dict,
    lists: Mapping[str, Sequence[np.ndarray]] | None = None,
) -> None:
    """Writes the values of `variables` and the JSON-able `state` to `path`, whole or not at all.

    Args:
        path: of the file.
        variables: the training's.
        state: a dict of what JSON can hold.
        lists: further lists of arrays by name, for `load_list`.
    """
    arrays = {f'variable_{i}': _storable(variable) for i, variable in enumerate(variables)}
    for name, values in (lists or {}).items():
        arrays |= {f'{name}_{i}': _storable(value) for i, value in enumerate(values)}
    with _files.written_whole(path) as part, open(part, 'wb') as file:
        np.savez(file, state=np.array(json.dumps(state)), **arrays)


def _storable(variable):
    array = np.asarray(variable)
    # NumPy's files don't know bfloat16; every bfloat16 is a float32.
    return array.astype(np.float32) if array.dtype.name == 'bfloat16' else array


def load_state(path: Path) -> dict:
    """The state that `save` wrote.

    Raises:
        ValueError: the file is damaged.
        OSError: it cannot be opened.
    """
    with _archive(path) as (archive, size):
        return json.loads(str(_read(archive, 'state', min(size, _MOST_STATE_BYTES), 'U')))


def load_values(path: Path, variables: Sequence[keras.Variable]) -> list[np.ndarray]:
    """The values that `save` wrote, one for each of the variables.

    No more is read than the variables hold, whatever the file claims to contain.

    Raises:
        ValueError: the file is damaged, or number or shapes differ, as they do between models.
        OSError: the file cannot be opened.
    """
    expected = [tuple(variable.shape) for variable in variables]
    with _archive(path) as (archive, size):
        count = sum(info.filename.startswith('variable_') for info in archive.infolist())
        if count == len(expected):
            names = [f'variable_{i}' for i in range(count)]
            found = [_header(archive, name, size, 'fiub')[0] for name in names]
            if found == expected:
                return [_read(archive, name, size, 'fiub') for name in names]
    if count != len(expected):
        raise _unfit(expected, f'{count} variables in {path}')
    different = [i for i in range(count) if found[i] != expected[i]]
    first = different[0]
    raise _unfit(
        expected,
        f'{path}, where {len(different)} have other shapes, first {found[first]} for the '
        f'{expected[first]} of {variables[first].path}',
    )


def load_list(path: Path, name: str, shapes: Sequence[tuple[int, ...]]) -> list[np.ndarray]:
    """A list of arrays that `save` wrote, of these shapes.

    Raises:
        ValueError: the file is damaged, or its arrays have other shapes.
        OSError: it cannot be opened.
    """
    with _archive(path) as (archive, size):
        names = [f'{name}_{i}' for i in range(len(shapes))]
        found = [_header(archive, each, size, 'fiub')[0] for each in names]
        if found != list(shapes):
            raise ValueError(f'{name} has the shapes {found}')
        return [_read(archive, each, size, 'fiub') for each in names]


def _unfit(expected, received):
    return ValueError(
        f'the checkpoint must fit the model and its optimizer: {len(expected)} variables. '
        f'Received: {received}'
    )


@contextlib.contextmanager
def _archive(path: Path) -> Iterator[tuple[zipfile.ZipFile, int]]:
    """The open archive and its size in bytes; damage ends in one line with the file's name."""
    with open(path, 'rb') as file:
        try:
            with zipfile.ZipFile(file) as archive:
                yield archive, os.fstat(file.fileno()).st_size
        except MemoryError:
            raise
        except OSError as error:
            if error.errno == errno.EINVAL:  # a seek to before the file's start
                raise _damaged(path, error) from error
            raise OSError(error.errno, error.strerror, str(path)) from error
        except Exception as error:  # a damaged archive raises nearly anything
            raise _damaged(path, error) from error


def _damaged(path, error):
    reason = one_line(error)
    return ValueError(
        'the checkpoint must be a whole one that a Trainer wrote: name another file to start anew. '
        f'Received: {path} ({reason})'
    )


def _header(archive, name, most, kinds):
    """Shape, dtype and first byte of an array, whose size must be what its header claims."""
    info = archive.getinfo(f'{name}.npy')
    if info.compress_type != zipfile.ZIP_STORED or info.file_size > most:
        raise ValueError(f'{name} claims {info.file_size} bytes')
    with archive.open(info) as file:
        shape, fortran, dtype = read_header(file, name)
        start = file.tell()
    if dtype.hasobject:
        raise ValueError(f'{name} is a pickle')
    if dtype.kind not in kinds or fortran or any(side < 0 for side in shape):
        raise ValueError(f'{name} claims the dtype {dtype} and the shape {shape}')
    if start + math.prod(shape) * dtype.itemsize != info.file_size:
        raise ValueError(f'{name} has {info.file_size} bytes and claims the shape {shape}')
    return shape, dtype, start


def _read(archive, name, most, kinds):
    shape, dtype, start = _header(archive, name, most, kinds)
    with archive.open(f'{name}.npy') as file:
        raw = file.read()  # to the end, where the checksum is compared
    return np.frombuffer(raw, dtype, offset=start).reshape(shape)


def assign(variables: Sequence[keras.Variable], values: Sequence[np.ndarray]) -> None:
    """Sets `variables` to `values`.

    Raises:
        ValueError: number or shapes differ.
    """
    expected = [tuple(variable.shape) for variable in variables]
    found = [value.shape for value in values]
    if expected != found:
        raise _unfit(expected, f'{len(found)} variables, or other shapes')
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)


def check_settings(where: str, made: dict, now: dict) -> None:
    """Raises unless a training goes on with the settings with which it began.

    Args:
        where: what holds the former settings, for the message.
        made: dict that holds the former settings, among other things.
        now: nested dict of settings; what JSON doesn't tell apart is the same.

    Raises:
        ValueError: they differ; it says where.
    """
    made = {key: made[key] for key in now if key in made}
    made, now = (_flat(json.loads(json.dumps(settings))) for settings in (made, now))
    if made != now:
        differences = ', '.join(
            f'{key}={now.get(key, "nothing")} instead of {made.get(key, "nothing")}'
            for key in {**made, **now}
            if made.get(key) != now.get(key)
        )
        raise ValueError(
            f'`resume` must go on with the settings of {where}. Received: {differences}'
        )


def _flat(settings, path=''):
    """A nested dict as a flat one, from dotted paths to the values' `repr`: two settings may have
    the same innermost key."""
    if not isinstance(settings, dict):
        return {path: repr(settings)}
    flat = {}
    for key, value in settings.items():
        flat.update(_flat(value, f'{path}.{key}' if path else key))
    return flat
