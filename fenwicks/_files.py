"""Files that appear whole or not at all, and locks that end with their process."""

from __future__ import annotations

import contextlib
import errno
import os
import pathlib
import secrets
from collections.abc import Iterator

from fenwicks._errors import one_line

try:
    import fcntl
except ImportError:  # on Windows, where nothing is locked
    fcntl = None  # type: ignore[assignment]

_TAKEN = (errno.EAGAIN, errno.EACCES)
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)
_PART = '.part'  # at the end of the name of a file that is not whole yet


def check_target(
    path: str | os.PathLike[str], name: str = 'path', writable: bool = False
) -> pathlib.Path:
    """A file to be written, with the home folder for `~`; raises before the work what would after.

    Of a link it is the file that the link leads to, since `written_whole` would replace the link.

    Args:
        path: of the file.
        name: of the caller's argument, for the error.
        writable: whether to try that something can be written in the folder.

    Raises:
        ValueError: there is no such folder, or the path is one, or a device, or its name is too
            long.
        OSError: nothing can be written there.
    """
    path = pathlib.Path(path).expanduser()
    if path.is_symlink():
        path = pathlib.Path(os.path.realpath(path))
    if not path.parent.is_dir():
        raise ValueError(f'`{name}` must lie in a folder that exists. Received: {name}={path}')
    most = _longest_name(path.parent) - len(f'..{_random_text()}{_PART}')
    if len(os.fsencode(path.name)) > most:
        raise ValueError(
            f'`{name}` must be the path of a file whose name has at most {most} bytes. '
            f'Received: a name of {len(os.fsencode(path.name))} bytes'
        )
    if other := _other_than_file(path):
        raise ValueError(f'`{name}` must be the path of a file. Received: {name}={path}, {other}')
    try:
        if writable:
            _probe(path.parent)
    except OSError as error:
        raise OSError(
            f'`{name}` must lie in a folder that can be written to. '
            f'Received: {name}={path} ({error.strerror})'
        ) from error
    return path


def _other_than_file(path):
    """What lies there, in words, where it is no regular file; '' for a file or nothing."""
    if os.path.isdir(path):
        return 'a folder'
    return 'a device or a pipe' if os.path.exists(path) and not os.path.isfile(path) else ''


@contextlib.contextmanager
def written_whole(
    path: str | os.PathLike[str], flush: bool = True, may_be_empty: bool = False
) -> Iterator[pathlib.Path]:
    """A temporary path beside `path` that gets its name when the block ends without an error.

    A kill, a full disk or an exception leaves at `path` what was there before. The temporary name
    is new each time, so that two processes don't share one, and keeps the extension, since some
    writers go by it. What a killed process left is removed.

    Args:
        path: where the file is to appear.
        flush: whether to wait until the disk has it, so that it survives a power failure too.
            False is for files that are verified when they are read, and can be made anew.
        may_be_empty: whether a block that writes nothing is no error.

    Raises:
        OSError: the file can't be written, as on a full disk, or the path is that of a folder or
            a device, which a file would replace.

    Example:

    ```python
    with written_whole('result.json') as part:
        part.write_text(text)
    ```
    """
    path = pathlib.Path(path)
    if other := _other_than_file(path):
        raise OSError(f'{path} must be a file that can be written to. Received: {other}')
    part, descriptor = None, None
    try:
        _remove_abandoned(path)
        part, descriptor = _new_file(path.parent, f'.{path.stem}.', f'{_PART}{path.suffix}')
        _try_lock(descriptor)
        yield part
        with open(part, 'rb') as file:
            if flush:
                os.fsync(file.fileno())
            if not may_be_empty and not os.fstat(file.fileno()).st_size:
                raise OSError(0, 'nothing was written', str(part))
        os.replace(part, path)
    except OSError as error:
        own = error.filename in (str(path), str(part)) or (
            error.filename is None and error.errno in _FULL
        )
        if part is not None and not own:
            raise  # of what the block reads
        full = part is not None or error.errno in _FULL
        rule = f'the disk must take the whole of {path}'
        raise OSError(
            f'{rule if full else f"{path} must lie in a folder that can be written to"}. '
            f'Received: {error.strerror or one_line(error)}'
        ) from error
    finally:
        # Where a folder vanished or a disk broke, the error above says more than that of this.
        with contextlib.suppress(OSError):
            if part is not None:
                part.unlink(missing_ok=True)
        if descriptor is not None:
            os.close(descriptor)


def _new_file(folder, prefix, suffix):
    """A file with a name that nothing had, and its descriptor; no link that lies there is used."""
    while True:
        path = folder / f'{prefix}{_random_text()}{suffix}'
        try:
            return path, os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o666)
        except FileExistsError:
            continue


def _random_text():
    return secrets.token_hex(8)


def _longest_name(folder):
    """The bytes that the name of a file in a folder may have."""
    try:
        return os.pathconf(folder, 'PC_NAME_MAX')
    except (AttributeError, OSError, ValueError):  # not on Windows
        return 255


def _remove_abandoned(path):
    """Removes the temporary files for `path` of processes that live no more."""
    if fcntl is None:
        return
    for part in path.parent.glob(f'.{_escaped(path.stem)}.*{_PART}{_escaped(path.suffix)}'):
        with contextlib.suppress(OSError):  # another's, or gone by now
            descriptor = os.open(part, os.O_RDWR | os.O_NOFOLLOW)
            try:
                if _try_lock(descriptor):
                    part.unlink(missing_ok=True)
            finally:
                os.close(descriptor)


def _escaped(text):
    return ''.join(f'[{character}]' if character in '*?[' else character for character in text)


def _try_lock(descriptor) -> bool:
    """Locks an open file for this process; whether that was possible.

    Where the file system knows no locks, nothing is locked, and the answer is yes.
    """
    if fcntl is None:
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return error.errno not in _TAKEN
    return True


@contextlib.contextmanager
def locked(path: str | os.PathLike[str]) -> Iterator[None]:
    """A block in which no other process can lock the same file or folder.

    The lock is the system's and ends with the process, however that ends.

    Args:
        path: of a file or folder that exists.

    Raises:
        BlockingIOError: another process has locked it.
        OSError: it can't be opened.

    Example:

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder, locked(folder):
    ...     pass
    """
    if fcntl is None:
        yield
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        if not _try_lock(descriptor):
            raise BlockingIOError(
                f'`path` must not be in use by another process. Received: path={path}'
            )
        yield
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def claimed(path: str | os.PathLike[str]) -> Iterator[None]:
    """A block in which no other process can claim the same file, which is to be written in it.

    `locked` is for what stays: a file that is replaced loses its lock. This lock is of a hidden
    file beside it, which goes with the block; what a killed process left is used again.

    Args:
        path: of a file that need not exist, in a folder that does.

    Raises:
        BlockingIOError: it is claimed.
        OSError: the folder can't be written to.
    """
    if fcntl is None:
        yield
        return
    path = pathlib.Path(path)
    lock = path.with_name(f'.{path.name}.lock')
    descriptor = _locked_file(lock)
    if descriptor is None:
        raise BlockingIOError(f'`path` must not be in use by another process. Received: {path=!s}')
    try:
        yield
    finally:
        with contextlib.suppress(OSError):  # before it is closed: then it may be another's
            lock.unlink()
        os.close(descriptor)


def _locked_file(path):
    """The descriptor of a locked file, made if there is none; `None` if another locked it."""
    while True:
        descriptor = os.open(path, os.O_CREAT | os.O_RDWR | os.O_NOFOLLOW, 0o666)
        if not _try_lock(descriptor):
            os.close(descriptor)
            return None
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(descriptor), os.stat(path)):
                return descriptor
        os.close(descriptor)  # its process removed it after it had been opened here


def check_writable(folder: str | os.PathLike[str], name: str = 'folder') -> None:
    """Creates `folder`, and checks that files can be written there, before hours are spent.

    Args:
        folder: with its parents, and the home folder for `~`.
        name: of the caller's argument, for the error.

    Raises:
        OSError: they can't.
    """
    folder = pathlib.Path(folder).expanduser()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _probe(folder)
    except OSError as error:
        raise OSError(
            f'`{name}` must be a folder that can be written to. '
            f'Received: {folder} ({error.strerror})'
        ) from error


def _probe(folder):
    """Raises OSError where no file can be written in a folder."""
    probe, descriptor = _new_file(folder, '.probe.', '')
    try:
        with open(descriptor, 'wb') as file:
            file.write(b'can this be written?')
    finally:
        probe.unlink(missing_ok=True)
