"""Lists of image files with their classes: from folders, a CSV file, or a pattern."""

from __future__ import annotations

import collections
import dataclasses
import logging
import os
import pathlib
import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from fenwicks._checks import positive_integer, some_of
from fenwicks.data.class_names import check_names
from fenwicks.data.csv_file import read_columns
from fenwicks.data.dataset import check_indices, check_labels
from fenwicks.data.folders import identity_of, image_files, is_shown, others_in
from fenwicks.data.images import EXTENSIONS
from fenwicks.data.limits import left_out
from fenwicks.data.storage import is_url

_log = logging.getLogger('fenwicks')

StrPath = str | os.PathLike[str]


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class ImageList:
    """Image files, and the class of each.

    Make one with `from_folders`, `from_csv`, `from_pattern` or `unlabelled`.

    Args:
        root: the folder that the paths start from.
        paths: the files, relative to `root`, with `/` between folders, each once.
        labels: int32 `(n,)`, or None if the classes are not known.
        class_names: the name of each class; empty without labels.
        groups: `(n,)` strings; images of one group, such as one patient's, must stay on one side
            of a split. None if there are no groups.

    Raises:
        ValueError: the lengths differ, there is no image, a path occurs twice, or labels are not
            integers in `[0, len(class_names))`.
    """

    root: pathlib.Path
    paths: tuple[str, ...]
    labels: np.ndarray | None = None
    class_names: tuple[str, ...] = ()
    groups: np.ndarray | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, 'root', pathlib.Path(self.root))
        object.__setattr__(self, 'paths', tuple(map(os.fspath, self.paths)))
        object.__setattr__(self, 'class_names', tuple(map(str, self.class_names)))
        if not self.paths:
            raise ValueError(f'{self.root}: must hold at least one image. Received: none')
        for name in ('labels', 'groups'):
            if (value := getattr(self, name)) is None:
                continue
            object.__setattr__(self, name, np.asarray(value))
            if len(value) != len(self.paths):
                raise ValueError(
                    f'`{name}` must have the length of `paths`, {len(self.paths)}. '
                    f'Received: {len(value)}'
                )
        if len(set(self.paths)) < len(self.paths):
            path, count = collections.Counter(self.paths).most_common(1)[0]
            raise ValueError(f'`paths` must name each file once. Received: {path!r} {count} times')
        if self.labels is not None:
            if not self.class_names:
                raise ValueError('`class_names` must name the classes of `labels`. Received: none')
            check_labels(self.labels, len(self.paths), len(self.class_names))

    def __len__(self) -> int:
        return len(self.paths)

    def __repr__(self) -> str:
        return f'ImageList({str(self.root)!r}, {len(self)} images, {self.num_classes} classes)'

    @property
    def num_classes(self) -> int:
        """Number of classes; 0 without labels."""
        return len(self.class_names)

    @property
    def files(self) -> list[pathlib.Path]:
        """The full path of each file."""
        return [self.root / path for path in self.paths]

    def select(self, indices: Sequence[int] | np.ndarray) -> ImageList:
        """The same list with some of the images only, in the given order.

        Args:
            indices: integers in `[0, n)`, or n booleans.

        Returns:
            An ImageList with the same classes.

        Raises:
            ValueError: the indices are neither, or there is none, or one twice.

        >>> images = ImageList(pathlib.Path(), ('a.png', 'b.png'), np.array([0, 1]), ('a', 'b'))
        >>> images.select([1]).paths
        ('b.png',)
        """
        chosen = check_indices(indices, len(self))
        return dataclasses.replace(
            self,
            paths=tuple(self.paths[index] for index in chosen),
            labels=None if self.labels is None else self.labels[chosen],
            groups=None if self.groups is None else self.groups[chosen],
        )

    @classmethod
    def from_folders(cls, root: StrPath, min_classes: int = 2) -> ImageList:
        """A folder of folders: each is a class, and holds its images, at any depth.

        Classes are the names of the folders, sorted; images are sorted by path. Names that begin
        with a dot, and files whose extension is no image's, are left out. Links are followed.

        Args:
            root: the outer folder.
            min_classes: folders that there must be; 1 if a model knows the other classes.

        Raises:
            FileNotFoundError: there is no such folder.
            ValueError: it has fewer classes, or a class has no image.
        """
        folder, min_classes = _folder(root), positive_integer('min_classes', min_classes)
        by_class: dict[str, list[str]] = {
            name: []
            for name in sorted(os.listdir(folder))
            if is_shown(name)
            and (folder / name).is_dir()
            and identity_of(folder / name) != identity_of(folder)  # a link back to where it lies
        }
        loose = []
        for path in image_files(folder):
            name, separator, _ = path.partition('/')
            if separator:
                by_class.setdefault(name, []).append(path)
            else:
                loose.append(path)
        if len(by_class) < min_classes:
            found = (
                f'folders for {some_of(sorted(by_class))}, and' if by_class else 'no folders, but'
            )
            images = 'image' if len(loose) == 1 else 'images'
            raise ValueError(
                f'{folder}: must hold a folder of images for each class, at least {min_classes}. '
                f'Received: {found} {len(loose)} {images} in it'
            )
        empty = sorted(name for name, paths in by_class.items() if not paths)
        if empty:
            raise ValueError(
                f'{folder}: each folder must hold images of its class, or be removed. '
                f'Received: no image in {some_of(empty)}{others_in(folder / empty[0])}'
            )
        if loose:
            which = left_out(loose, 'image outside of the classes is', 'images outside of them are')
            _log.warning('%s: %s', folder, which)
        names = sorted(by_class)
        pairs = [(path, name) for name in names for path in sorted(by_class[name])]
        return _labelled(cls, folder, pairs, folder, min_classes)

    @classmethod
    def from_csv(
        cls,
        csv_file: StrPath,
        root: StrPath | None = None,
        path_column: str | int = 0,
        label_column: str | int | None = 1,
        group_column: str | int | None = None,
        extension: str = '',
    ) -> ImageList:
        """A CSV file with a header: one row an image.

        Args:
            csv_file: the file, in UTF-8.
            root: folder that the paths in it start from; by default the CSV file's.
            path_column: header or number (from 0) of the column of paths.
            label_column: the same for the classes' names; None for images without labels.
            group_column: the same for groups; None for no groups.
            extension: what to append to each path, such as '.jpg'; 'jpg' is the same.

        Raises:
            FileNotFoundError: the CSV file, the folder, or a file that a row names is not there.
            ValueError: the file is no CSV, lacks a header, column or value, or repeats an image.
        """
        if not isinstance(csv_file, str | os.PathLike):
            raise ValueError(f'`csv_file` must be the path of a file. Received: {csv_file=!r}')
        if not isinstance(extension, str):
            raise ValueError(f'`extension` must be a text. Received: {extension=!r}')
        csv_file = pathlib.Path(csv_file).expanduser()
        folder = _folder(csv_file.parent if root is None else root)
        columns = [path_column, label_column, group_column]
        if f'.{extension.lower()}' in EXTENSIONS:
            extension = f'.{extension}'
        (_, (header, *_)), *rows = read_columns(csv_file, columns)
        if (folder / f'{header}{extension}').is_file():
            raise ValueError(f'{csv_file}: must begin with a header, not with {header!r}, an image')
        if not rows:
            raise ValueError(
                f'{csv_file}: must have a line for each image. Received: a header alone'
            )
        pairs, groups = [], []
        lines: dict[str, int] = {}
        folders: dict[str, str] = {}
        for line, (path, label, group) in rows:
            if is_url(path):
                raise ValueError(
                    f'{csv_file}: line {line} must name a file on this machine: fetch it first. '
                    f'Received: {path!r}'
                )
            path = os.path.normpath(path + extension).replace(os.sep, '/')
            # One file may be named by several paths. A link to one is an image of its own, as where
            # a tool stores equal files once.
            inner, name = os.path.split(path)
            if inner not in folders:
                folders[inner] = os.path.realpath(folder / inner)
            where = os.path.join(folders[inner], name)
            if where in lines:
                raise ValueError(
                    f'{csv_file}: must name each image once. '
                    f'Received: {path!r} in lines {lines[where]} and {line}'
                )
            if not (folder / path).is_file():
                raise FileNotFoundError(
                    f'{csv_file}: line {line} names {path!r}, which is no file in {folder}'
                )
            lines[where] = line
            pairs.append((path, label))
            groups.append(group)
        listed = np.array(groups) if group_column is not None else None
        if label_column is None:
            return cls(folder, tuple(path for path, _ in pairs), groups=listed)
        return dataclasses.replace(_labelled(cls, folder, pairs, csv_file), groups=listed)

    @classmethod
    def from_pattern(cls, root: StrPath, pattern: str, skip_unmatched: bool = False) -> ImageList:
        r"""Images at any depth, whose class a regular expression finds in the path.

        Args:
            root: the folder.
            pattern: regular expression that is searched for in the path from `root`, with `/`
                between folders. Its group named `label`, or else its only group, is the class;
                a group named `group` is the group. For `cat_12.jpg`: `r'([a-z]+)_\d+\.jpg$'`.
            skip_unmatched: whether to leave out images whose path doesn't match; by default they
                are an error.

        Raises:
            FileNotFoundError: there is no such folder.
            ValueError: the pattern is invalid or without such a group, a path doesn't match, or
                there are fewer than two classes.
        """
        folder = _folder(root)
        if not isinstance(pattern, str):
            raise ValueError(f'`pattern` must be a text. Received: pattern={pattern!r}')
        try:
            expression = re.compile(pattern)
        except re.error as error:
            raise ValueError(
                f'`pattern` must be a regular expression ({error}). Received: pattern={pattern!r}'
            ) from None
        names = expression.groupindex
        if 'label' not in names and (expression.groups != 1 or 'group' in names):
            raise ValueError(
                '`pattern` must have one group, or one named `label`, for the class; one named '
                f'`group` is for images that stay together. Received: pattern={pattern!r}'
            )
        pairs, groups, unmatched = [], [], []
        for path in image_files(folder):
            match = expression.search(path)
            label = match and match[names.get('label', 1)]
            group = match['group'] if match and 'group' in names else ''
            if not label or group is None:
                unmatched.append(path)
            else:
                pairs.append((path, label))
                groups.append(group)
        if unmatched and not skip_unmatched:
            raise ValueError(
                f'`pattern` must match the path of every image. Received: pattern={pattern!r}, '
                f'which does not match {some_of(unmatched)}'
            )
        if unmatched:
            rule = 'whose path does not match'
            which = left_out(unmatched, f'image {rule} is', f'images {rule} are')
            _log.warning('%s: %s', folder, which)
        if not pairs:
            raise ValueError(f'{folder}: must hold at least one image. Received: none')
        listed = np.array(groups) if 'group' in names else None
        return dataclasses.replace(_labelled(cls, folder, pairs, folder), groups=listed)

    @classmethod
    def unlabelled(cls, root: StrPath) -> ImageList:
        """All images in a folder, at any depth, sorted by path; their classes are not known.

        Args:
            root: the folder.

        Raises:
            FileNotFoundError: there is no such folder.
            ValueError: it holds no image.
        """
        folder = _folder(root)
        return cls(folder, tuple(image_files(folder)))


def is_by_folders(images: ImageList) -> bool:
    """Whether each image lies in the folder of its class: then every folder is a class."""
    if images.labels is None:
        return False
    folders = [f'{images.class_names[label]}/' for label in images.labels]
    return all(map(str.startswith, images.paths, folders))


def check_listed(images: Any) -> None:
    """Raises unless `images` is an `ImageList`."""
    if not isinstance(images, ImageList):
        raise ValueError(
            '`images` must be an ImageList, such as ImageList.from_folders returns. '
            f'Received: {type(images).__name__}'
        )


def _folder(root):
    if not isinstance(root, str | os.PathLike):
        raise ValueError(f'`root` must be the path of a folder. Received: root={root!r}')
    root = pathlib.Path(root).expanduser()
    if not root.is_dir():
        raise FileNotFoundError(f'`root` must be a folder. Received: root={str(root)!r}')
    return root


def _labelled(cls, root, pairs, where, min_classes=2):
    """An ImageList of (path, class name) pairs that were found in `where`."""
    names = sorted({name for _, name in pairs})
    check_names(where, names)
    if len(names) < min_classes:
        raise ValueError(
            f'{where}: the images must have at least two classes. Received: {some_of(names)}'
        )
    numbers = {name: number for number, name in enumerate(names)}
    labels = np.array([numbers[name] for _, name in pairs], np.int32)
    return cls(root, tuple(path for path, _ in pairs), labels, tuple(names))
