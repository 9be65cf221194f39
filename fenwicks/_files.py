"""Files that appear whole or not at all."""

from __future__ import annotations

import contextlib
import os
import pathlib
from collections.abc import Iterator


@contextlib.contextmanager
def written_whole(path: str | os.PathLike[str]) -> Iterator[pathlib.Path]:
    """A temporary path beside `path` that takes its name when the block ends without an error.

    A kill, a full disk or an exception leaves at `path` what was there before. The temporary
    name keeps the extension, since some writers go by it.

    Args:
        path: where the file is to appear.

    Raises:
        OSError: the file cannot be written, as on a full disk.

    Example:

    ```python
    with written_whole('result.json') as part:
        part.write_text(text)
    ```
    """
    path = pathlib.Path(path)
    part = path.with_name(f'.{path.stem}.part{path.suffix}')
    try:
        yield part
        with open(part, 'rb') as file:
            os.fsync(file.fileno())
        os.replace(part, path)
    except OSError as error:
        raise OSError(
            f'the disk must take the whole of {path}. '
            f'Received: {error.strerror or _one_line(error)}'
        ) from error
    finally:
        # Where a folder vanished or a disk broke, the error above says more than that of this.
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)


def _one_line(error):
    return ' '.join(str(error).split())


def check_writable(folder: str | os.PathLike[str]) -> None:
    """Makes `folder` and sees that files can be written there, before hours are spent.

    Raises:
        OSError: they cannot.
    """
    folder = pathlib.Path(folder)
    probe = folder / '.probe'
    try:
        folder.mkdir(parents=True, exist_ok=True)
        try:
            probe.write_text('can this be written?')
        finally:
            probe.unlink(missing_ok=True)
    except OSError as error:
        raise OSError(
            f'`folder` must be one that can be written to. Received: {folder} ({error.strerror})'
        ) from error
