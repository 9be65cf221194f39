"""Finds every form in which CIFAR lies on a disk."""

from __future__ import annotations

import functools
import pathlib
from collections.abc import Callable

from fenwicks.data import converted, published
from fenwicks.data.cifar import Spec
from fenwicks.data.published import Arrays


def find(root: pathlib.Path | str, spec: Spec) -> list[tuple[pathlib.Path, Callable[[], Arrays]]]:
    """Every form of the data set in one place.

    Args:
        root: a folder that holds, or is, one of the forms; or an archive or .npz file.
        spec: the data set.

    Returns:
        List of (path, read): `read()` returns the checked arrays `(train_images, train_labels,
        test_images, test_labels)`, or raises ValueError or OSError, in one line with the file.

    Raises:
        OSError: the place may not be looked at.
    """
    root = pathlib.Path(root)
    folders = [root] if root.is_dir() else []
    files = [] if folders else [root]
    found: list[tuple[pathlib.Path, Callable[[], Arrays]]] = []

    def add(path, read, *arguments):
        found.append((path, functools.partial(read, path, spec, *arguments)))

    for layout in spec.layouts:
        for folder in [folder / layout.folder for folder in folders] + folders:
            names = [*layout.train, *layout.test]
            named = folder.name == layout.folder and folder.is_dir()
            if named or any((folder / name).is_file() for name in names):
                add(folder, published.read_folder, layout)
    archives = {
        name: (layout, md5) for layout in spec.layouts for name, md5 in layout.archives.items()
    }
    for path in [folder / name for folder in folders for name in archives] + files:
        if path.name in archives and path.is_file():
            add(path, published.read_archive, *archives[path.name])
    dashed = spec.name.replace('cifar', 'cifar-')
    names = [f'{spec.name}.npz', f'{dashed}.npz']
    for path in [folder / name for folder in folders for name in names] + files:
        if path.suffix == '.npz' and path.is_file():
            add(path, converted.read_npz)
    for folder in folders:
        for place in [*sorted((folder / spec.name).glob('[0-9]*'), reverse=True), folder]:
            if any(converted.shards(place, spec, split) for split in ('train', 'test')):
                add(place, converted.read_tfds)
        for place in (folder / f'{spec.name}-parquet', folder):
            if any(place.glob('*-00000-of-*.parquet')):
                add(place, converted.read_parquet)
    # Without a known digest fast.ai's form could not be checked.
    for path in [folder / f'{spec.name}.tgz' for folder in folders] + files:
        if path.name == f'{spec.name}.tgz' and path.is_file() and spec.content:
            add(path, converted.read_png_archive)
    return found
