"""Guards for files that nobody has verified: their size, and whatever their parsers raise."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import pathlib
import zipfile
from collections.abc import Iterator, Sequence
from typing import IO, Protocol

import numpy as np

from fenwicks._checks import some_of
from fenwicks._errors import one_line

PNG_BYTES = 2**16  # far above any PNG of 32x32 pixels


def reason(error: BaseException) -> str:
    """What an error says, on one line.

    Args:
        error: any exception.

    Returns:
        Its message, or its type if it has none.

    >>> reason(ValueError('a\\nb')), reason(EOFError())
    ('a b', 'EOFError')
    """
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return one_line(error)


def left_out(names: Sequence[str], of_one: str, of_several: str) -> str:
    """How many things are left out, for a warning, and the first of them.

    >>> left_out(['a.png'], 'damaged image is', 'damaged images are')
    "1 damaged image is left out: 'a.png'"
    """
    return f'{len(names)} {of_one if len(names) == 1 else of_several} left out: {some_of(names)}'


@contextlib.contextmanager
def damage_named(path: str | os.PathLike[str], rule: str) -> Iterator[None]:
    """Turns every error of a parser into one line that names the file.

    Parsers of archives, images and columns raise almost anything on damaged input: `RuntimeError`,
    `NotImplementedError`, `struct.error`, `RecursionError`, ... Only calls of such a parser belong
    into the block.

    Args:
        path: the file.
        rule: what the file must be, as the end of the sentence "must ...".

    Raises:
        ValueError: the block raised; an error about memory or an `OSError` without number included.
        OSError: the operating system failed to read the file.

    >>> with damage_named('x.npz', 'be an .npz file'):
    ...     raise NotImplementedError('compression 97')
    Traceback (most recent call last):
    ValueError: x.npz: must be an .npz file (compression 97)
    """
    try:
        yield
    except OSError as error:
        if error.errno not in (None, errno.EINVAL):  # EINVAL: a seek to where a file says
            raise OSError(error.errno, f'{path}: {error.strerror}') from None
        raise ValueError(f'{path}: must {rule} ({reason(error)})') from None
    except Exception as error:
        raise ValueError(f'{path}: must {rule} ({reason(error)})') from None


def check_size(path: pathlib.Path, most: int) -> None:
    """Raises unless a path is a regular file of at most so many bytes.

    Args:
        path: the file.
        most: bytes that it may have.

    Raises:
        ValueError: it is larger, or a folder, a pipe or a device.
        OSError: it is not there or may not be looked at.

    >>> check_size(pathlib.Path('.'), 10)
    Traceback (most recent call last):
    ValueError: .: must be a regular file
    """
    if not path.is_file():
        if not path.exists():
            raise FileNotFoundError(f'{path}: no such file')
        raise ValueError(f'{path}: must be a regular file')
    size = path.stat().st_size
    if size > most:
        raise ValueError(f'{path}: must have at most {most} bytes. Received: {size} bytes')


class _Readable(Protocol):
    def read(self, size: int, /) -> bytes: ...


class LimitedReader(io.RawIOBase):
    """A stream that raises once more than so many bytes were read from it.

    Args:
        source: a binary stream, such as a decompressor's.
        most: bytes that it may give.
    """

    def __init__(self, source: _Readable, most: int):
        self.source, self.most = source, most
        self._left = most

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        wanted = self._left + 1 if size is None or size < 0 else min(size, self._left + 1)
        data = self.source.read(wanted)
        self._left -= len(data)
        if self._left < 0:
            raise ValueError(f'it unpacks to more than {self.most} bytes')
        return data


def read_array(archive: zipfile.ZipFile, name: str, most: int) -> np.ndarray:
    """One array of an .npz file, whose statement of its size is checked before it is allocated.

    Args:
        archive: the open file.
        name: of the array.
        most: bytes that it may have.

    Raises:
        ValueError: the array is no numbers, or larger, or not what it says. A damaged archive
            raises other errors too: call this within `damage_named`.
    """
    with archive.open(f'{name}.npy') as file:
        shape, fortran, dtype = read_header(file, name)
        if dtype.kind not in 'uif' or dtype.itemsize > 8:
            raise ValueError(f'{name} has the dtype {dtype}')
        count = int(np.prod([int(side) for side in shape], dtype=object))
        if any(side < 0 for side in shape) or count * dtype.itemsize > most:
            raise ValueError(f'{name} claims the shape {shape}')
        raw = file.read(count * dtype.itemsize + 1)
        if len(raw) != count * dtype.itemsize:
            raise ValueError(f'{name} has the shape {shape}, and {len(raw)} bytes')
    array = np.frombuffer(bytearray(raw), dtype)  # of bytes it could not be written to
    return array.reshape(shape, order='F' if fortran else 'C')


def read_header(file: IO[bytes], name: str) -> tuple[tuple[int, ...], bool, np.dtype]:
    """Shape, whether the order is Fortran's, and dtype: the header of an array of an .npz file.

    Args:
        file: the open array, which is read to the end of its header.
        name: of the array, for errors.

    Raises:
        ValueError: the header is of an unknown version, or damaged.
    """
    version = np.lib.format.read_magic(file)
    if version == (1, 0):
        return np.lib.format.read_array_header_1_0(file)
    if version == (2, 0):
        return np.lib.format.read_array_header_2_0(file)
    raise ValueError(f'{name} has the format version {version}')
