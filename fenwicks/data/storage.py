"""Files by path or URL: the local disk, and `gs://` and its like through what is installed."""

from __future__ import annotations

import fnmatch
import glob
import importlib.util
import os
import pathlib
import re
from typing import BinaryIO, cast

from fenwicks._backend import switched_on


def may_download(download: bool | None) -> bool:
    """Whether to download what isn't there: as asked for, or unless `$FENWICKS_OFFLINE` is set."""
    return not switched_on('FENWICKS_OFFLINE') if download is None else download


def usual_folder() -> pathlib.Path:
    """The folder for what is downloaded and decoded, unless the user names another."""
    return pathlib.Path(os.environ.get('FENWICKS_DATA') or '~/.cache/fenwicks').expanduser()


def is_url(path: str | os.PathLike[str]) -> bool:
    """Whether a path is a URL, such as `gs://bucket/file`, and not on this machine.

    Args:
        path: path or URL.

    >>> is_url('gs://bucket/a'), is_url('/tmp/a')
    (True, False)
    """
    return '://' in os.fspath(path)


def _remote(path):
    """'fsspec' or 'tensorflow', whichever can open the URL."""
    scheme = os.fspath(path).partition('://')[0]
    if importlib.util.find_spec('fsspec') is not None:
        import fsspec

        try:
            fsspec.get_filesystem_class(scheme)
        except (ImportError, ValueError):
            pass
        else:
            return 'fsspec'
    if importlib.util.find_spec('tensorflow') is not None:
        return 'tensorflow'
    raise ImportError(
        f'{path}: reading {scheme}:// needs TensorFlow (pip install tensorflow-cpu), or fsspec '
        f'with its package for {scheme}:// (for gs://: pip install gcsfs)'
    )


def open_binary(path: str | os.PathLike[str]) -> BinaryIO:
    """Opens a file for reading bytes.

    Args:
        path: a path on this machine, or a URL that fsspec or TensorFlow can open.

    Returns:
        A binary file.

    Raises:
        OSError: it can't be opened; the message names it.
        ImportError: nothing that is installed opens such a URL.
    """
    if not is_url(path):
        return open(os.path.expanduser(path), 'rb')
    if _remote(path) == 'fsspec':
        import fsspec

        return cast(BinaryIO, fsspec.open(os.fspath(path), 'rb').open())
    import tensorflow as tf

    if not tf.io.gfile.exists(
        os.fspath(path)
    ):  # GFile opens when it is read, with errors of its own
        raise FileNotFoundError(f'{path}: no such file')
    return cast(BinaryIO, tf.io.gfile.GFile(os.fspath(path), 'rb'))


def find_files(pattern: str | os.PathLike[str]) -> list[str]:
    """Names of the files that match a pattern, sorted, without descriptions beside shards.

    `PREFIX.json` and texts of TensorFlow Datasets are left out, unless nothing else matches.

    Args:
        pattern: as for `glob.glob`, `**` included; or a URL with `*` in it.

    Returns:
        List of paths or URLs.

    Raises:
        FileNotFoundError: some shards `NAME-00003-of-00008` of a set are there, and others that the
            pattern matches too are not.
        ImportError: nothing that is installed opens such a URL.

    >>> find_files('no-such-folder/*')
    []
    """
    pattern = os.fspath(pattern)
    pattern = pattern if is_url(pattern) else os.path.expanduser(pattern)
    found = _matching(pattern)
    # Beside shards lie descriptions of them: PREFIX.json, and texts of TensorFlow Datasets.
    found = [path for path in found if not path.endswith(('.json', '.txt'))] or found
    # A training on a part of the data looks like any other. A pattern that leaves shards out, such
    # as `images-0000[0-3]-of-*`, does so on purpose: only what it would match can be missing.
    wanted = re.compile(fnmatch.translate(os.path.basename(pattern)))
    missing = [path for path in _missing_shards(found) if wanted.match(os.path.basename(path))]
    if missing:
        rest = f' and {len(missing) - 1} more' if len(missing) > 1 else ''
        raise FileNotFoundError(
            '`pattern` must match whole sets of shards: fetch what is missing, or write a pattern '
            f'that leaves it out. Received: pattern={pattern!r}, without {missing[0]}{rest}'
        )
    return found


def _matching(pattern):
    if not is_url(pattern):
        return sorted(filter(os.path.isfile, glob.glob(pattern, recursive=True)))
    if _remote(pattern) == 'fsspec':
        import fsspec

        scheme = pattern.partition('://')[0]
        return sorted(f'{scheme}://{name}' for name in fsspec.filesystem(scheme).glob(pattern))
    import tensorflow as tf

    return sorted(tf.io.gfile.glob(pattern))


def _missing_shards(paths):
    """Paths of the shards that belong to sets of which some are among `paths`."""
    sets: dict[tuple[str, ...], set[int]] = {}
    for path in paths:
        # Five digits are usual; of a number of more than six no shards are listed.
        if match := re.fullmatch(r'(.*-)(\d{1,6})(-of-0*(\d{1,6})(?!\d)[^/]*)', path):
            before, number, after, count = match.groups()
            sets.setdefault((before, after, count, str(len(number))), set()).add(int(number))
    for (before, after, count, digits), numbers in sets.items():
        for number in sorted({*range(int(count))} - numbers):
            yield f'{before}{number:0{digits}d}{after}'
