"""Image files in folders, at any depth, and what lies beside them."""

from __future__ import annotations

import collections
import logging
import os
import pathlib
import unicodedata
from collections.abc import Iterable, Iterator

from fenwicks._checks import some_of
from fenwicks.data.images import EXTENSIONS
from fenwicks.data.limits import left_out

_log = logging.getLogger('fenwicks')

# What lies beside images without being any; other files that are left out are told.
_NO_IMAGES = {
    *('.txt', '.csv', '.tsv', '.json', '.jsonl', '.xml', '.yaml', '.yml', '.md', '.html', '.pdf'),
    *('.db', '.ini', '.log', '.py', '.npy', '.npz', '.mat', '.zip', '.tar', '.gz', '.sh'),
}


def is_shown(name: str) -> bool:
    """Whether files of that name count: neither hidden ones nor what macOS adds to archives."""
    return not name.startswith('.') and name != '__MACOSX'


def image_files(root: pathlib.Path) -> Iterator[str]:
    """Paths from `root` of all images in it, sorted; a folder within itself is not entered."""
    found: list[str] = []
    others: list[tuple[str, str]] = []  # kind, path
    pending: list[tuple[str, tuple]] = [('', (identity_of(root),))]
    while pending:
        prefix, ancestors = pending.pop()
        for name in filter(is_shown, os.listdir(root / prefix)):
            path = f'{prefix}{name}'
            if os.path.isdir(root / path):
                identity = identity_of(root / path)
                if identity in ancestors:
                    _log.warning('%s links to a folder around it, and is left out', root / path)
                else:
                    pending.append((f'{path}/', (*ancestors, identity)))
            elif not os.path.isfile(root / path):
                others.append(('links to nothing', path))
            elif (suffix := os.path.splitext(name)[1].lower()) in EXTENSIONS:
                found.append(path)
            elif suffix not in _NO_IMAGES:
                others.append((suffix or 'without an extension', path))
    if others:
        counts = collections.Counter(kind for kind, _ in others)
        most = sorted((-count, kind) for kind, count in counts.items())[:4]
        kinds = ', '.join(f'{-count} {kind}' for count, kind in most)
        kinds = kinds.encode('ascii', 'backslashreplace').decode()  # an extension may be no UTF-8
        which = left_out(
            sorted(path for _, path in others),
            f'file that is no known image ({kinds}) is',
            f'files that are no known images ({kinds}) are',
        )
        _log.warning('%s: %s', root, which)
    return iter(sorted(found))


def check_outside(
    folder: str | os.PathLike[str],
    name: str,
    path: str | os.PathLike[str],
    hint: str = '',
    hidden: bool = False,
) -> None:
    """Raises if `path`, which is written to, is the folder of pictures or lies in it.

    What is written there would be a class, or in one, the next time.

    Args:
        folder: the folder of pictures; a class in it, or in a folder in it, may be a link.
        name: the argument or flag that has the path.
        path: where something is written.
        hint: what else the message advises.
        hidden: whether `path` may lie in a hidden folder of it, where no picture is looked for.

    Raises:
        ValueError: it lies there.
    """
    root = pathlib.Path(folder).expanduser()
    target = pathlib.Path(path).expanduser().resolve()
    for holder in (root, *root.glob('*/'), *root.glob('*/*/')):
        if not holder.is_dir() or not target.is_relative_to(holder.resolve()):
            continue
        inside = target.relative_to(holder.resolve()).parts
        if not hidden or all(map(is_shown, inside)):
            raise ValueError(
                f'`{name}` must lie outside of the folder of pictures, or they could not be read '
                f'as classes again: name another{hint}. Received: {name}={path}, in {root}'
            )


def printable(name: str) -> str:
    """A line with names of files in it, with escapes for bytes that are no text, and for newlines
    and other control characters."""
    text = os.fsencode(name).decode('utf-8', 'backslashreplace')
    return ''.join(
        letter.encode('unicode_escape').decode() if unicodedata.category(letter) == 'Cc' else letter
        for letter in text
    )


def others_in(folder: pathlib.Path) -> str:
    """What else lies in a folder without images, for a message; nothing where it is empty."""
    files = [path for path in folder.rglob('*') if is_shown(path.name) and path.is_file()]
    suffixes = {path.suffix for path in files if path.suffix}
    if not suffixes:
        return ''
    known = ' '.join(sorted(EXTENSIONS))
    return f', but {some_of(sorted(suffixes))}: convert files that are none of {known}'


def folders_of(files: Iterable[str | os.PathLike[str]]) -> list[str]:
    """The folders in which files lie, sorted, by their paths without links."""
    return sorted({*map(os.path.realpath, {*map(os.path.dirname, files)})})


def identity_of(path: pathlib.Path) -> tuple[int, int]:
    """What two links to one folder have in common."""
    status = path.stat()
    return status.st_dev, status.st_ino
