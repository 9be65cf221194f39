"""Decodes many images in parallel, once: the result is kept in one file and mapped into memory."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
import os
import pathlib
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

import numpy as np
import PIL
import simplejpeg

from fenwicks._files import check_writable
from fenwicks.data.dataset import Dataset, as_array, check_images, check_indices, check_labels
from fenwicks.data.folders import check_outside
from fenwicks.data.image_cache import read_cache, write_cache
from fenwicks.data.images import Options, checked_options, decode_image
from fenwicks.data.limits import left_out
from fenwicks.data.listing import ImageList, StrPath, check_listed, is_by_folders
from fenwicks.data.progress import progress_bar
from fenwicks.data.storage import usual_folder
from fenwicks.data.threads import in_order

HOW_TO_SKIP = '`skip_damaged` leaves such images out'
_log = logging.getLogger('fenwicks')
_Item = TypeVar('_Item')


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class ImageArrays:
    """Images of one size as an array, or as a file that is mapped into memory, with their classes.

    Args:
        images: uint8 `(n, height, width, channels)`.
        labels: integers `(n,)`, or None if the classes are not known.
        class_names: the name of each class; empty without labels.
        names: the name of each image, such as its path; may be empty.
        groups: `(n,)` strings; images of a group must stay on one side of a split. None for none.
        skipped: maps names of images that were left out to the reason.
        source: where they were read from.

    Raises:
        ValueError: arrays that `check_arrays` refuses, or of differing lengths.
    """

    images: np.ndarray
    labels: np.ndarray | None = None
    class_names: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    groups: np.ndarray | None = None
    skipped: dict[str, str] = dataclasses.field(default_factory=dict)
    source: str = 'arrays'

    def __post_init__(self) -> None:
        object.__setattr__(self, 'images', check_images(self.images))
        count = len(self.images)
        for name in ('class_names', 'names'):  # which may come as arrays
            object.__setattr__(self, name, tuple(map(str, getattr(self, name))))
        if self.labels is not None:
            object.__setattr__(self, 'labels', as_array(self.labels))
            check_labels(self.labels, count, len(self.class_names) or None)
        if self.names and len(self.names) != count:
            raise ValueError(f'`names` must have the length {count}. Received: {len(self.names)}')
        if self.groups is not None and len(self.groups) != count:
            raise ValueError(f'`groups` must have the length {count}. Received: {len(self.groups)}')

    def __len__(self) -> int:
        return len(self.images)

    def __repr__(self) -> str:
        return (
            f'ImageArrays({len(self)} images, shape={self.image_shape}, '
            f'{self.num_classes} classes, source={self.source!r})'
        )

    @property
    def num_classes(self) -> int:
        """Number of classes; 0 without names of classes."""
        return len(self.class_names)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """`(height, width, channels)` of one image."""
        height, width, channels = self.images.shape[1:]
        return height, width, channels

    def dataset(
        self,
        train: Sequence[int] | np.ndarray,
        test: Sequence[int] | np.ndarray,
        name: str = 'images',
        memory_budget: float = 8e9,
    ) -> Dataset:
        """Copies two parts into memory, as the `Trainer` takes them.

        Args:
            train: indices of the images to train on, each once; or a boolean for each image.
            test: the same of the images to test on; none of them in `train`.
            name: name of the data set.
            memory_budget: bytes that the images may take.

        Returns:
            A Dataset.

        Raises:
            ValueError: there are no labels, an index is out of range or occurs twice, the parts
                share an image, or they take more than the budget.

        >>> images = np.zeros((3, 2, 2, 3), np.uint8)
        >>> ImageArrays(images, np.array([0, 1, 0]), ('a', 'b')).dataset([0, 1], [2])
        Dataset('images', train=2, test=1, image_shape=(2, 2, 3), num_classes=2, source='arrays')
        """
        if self.labels is None or not self.class_names:
            raise ValueError('a data set must have labels and `class_names`. Received: none')
        train = _each_once('train', check_indices(train, len(self), 'train'))
        test = _each_once('test', check_indices(test, len(self), 'test'))
        shared = np.intersect1d(train, test)
        if len(shared):
            raise ValueError(
                f'`train` and `test` must share no image. Received: {len(shared)} in both, '
                f'such as {shared[0]}'
            )
        needed = (len(train) + len(test)) * int(np.prod(self.image_shape))
        if needed > memory_budget:
            raise ValueError(
                f'`memory_budget` must be at least the {needed / 1e9:.2f} GB of the images, or '
                'they must be streamed with `ImageBatches`. '
                f'Received: memory_budget={memory_budget / 1e9:.2f} GB'
            )
        labels = np.asarray(self.labels, np.int32)
        return Dataset(
            name,
            np.asarray(self.images[train]),
            labels[train],
            np.asarray(self.images[test]),
            labels[test],
            self.class_names,
            self.source,
        )


def _each_once(name, indices):
    """The indices; raises where an image occurs twice in a part of a data set."""
    values, counts = np.unique(indices, return_counts=True)
    if len(values) < len(indices):
        twice = counts.argmax()
        raise ValueError(
            f'`{name}` must name each image once. Received: {values[twice]} {counts[twice]} times'
        )
    return indices


def decode_images(
    images: ImageList,
    image_size: tuple[int, int],
    fit: str = 'crop',
    filter: str = 'bilinear',
    channels: int = 3,
    skip_damaged: bool = False,
    cache_dir: StrPath | None = None,
    workers: int | None = None,
    show_progress: bool = True,
) -> ImageArrays:
    """Decodes image files in parallel to one size, or opens what an earlier call has decoded.

    The result is kept as one file in `cache_dir`, whole or not at all. Its name is a digest of the
    files' names, sizes and times and of the settings, so that a changed file or setting is decoded
    anew. Old files there may be removed at any time.

    Args:
        images: what to decode.
        image_size: `(height, width)`.
        fit, filter, channels: see `fenwicks.data.images.decode_image`.
        skip_damaged: whether to leave out images that can't be decoded, and list them in
            `skipped`; by default the first one is an error.
        cache_dir: folder of the cache; by default `images` in `$FENWICKS_DATA`, or in
            `~/.cache/fenwicks`.
        workers: number of threads; by default one for each processor, at most 16.
        show_progress: whether to show a bar.

    Returns:
        ImageArrays, mapped into memory.

    Raises:
        ValueError: an option is invalid, `cache_dir` lies among the folders of the classes, or an
            image is damaged.
        OSError: a file can't be read, or the cache can't be written.
    """
    check_listed(images)
    options = checked_options(image_size, fit, filter, channels)
    files = images.files
    if cache_dir is not None and is_by_folders(images):
        check_outside(images.root, 'cache_dir', cache_folder(cache_dir), hidden=True)
    settings = [os.fspath(images.root.resolve()), options, bool(skip_damaged)]
    path = cache_file(cache_dir, settings, files)

    def decode(file):
        return decode_image(file, *options), None

    stored, description = cached(
        path,
        decode,
        zip(images.paths, files, strict=True),
        options,
        skip_damaged,
        workers,
        show_progress,
        len(files),
    )
    skipped = description['skipped']
    if not len(stored):
        raise ValueError(f'{images.root}: must hold at least one image. Received: none undamaged')
    kept = np.array([name not in skipped for name in images.paths])
    chosen = images.select(kept) if skipped else images
    return ImageArrays(
        stored,
        chosen.labels,
        chosen.class_names,
        chosen.paths,
        chosen.groups,
        skipped,
        os.fspath(images.root),
    )


def cache_file(
    cache_dir: StrPath | None, settings: Any, files: Iterable[pathlib.Path]
) -> pathlib.Path:
    """Where the images of some files, decoded with some settings, are kept.

    Args:
        cache_dir: the folder, or None for the usual one.
        settings: whatever changes the result, as JSON has it.
        files: the files; their names, sizes and times count.

    Returns:
        The path.

    Raises:
        OSError: a file is not there.
    """
    states = [(os.fspath(file), os.stat(file)) for file in files]
    # Archives unpack to whole seconds, so that files exchanged since may differ in `ctime` alone.
    entries = [(name, s.st_size, s.st_mtime_ns, s.st_ctime_ns) for name, s in states]
    # The first number changes where the same files give other pixels or names than before.
    text = json.dumps([3, PIL.__version__, simplejpeg.__version__, settings, entries])
    digest = hashlib.sha256(text.encode('ascii')).hexdigest()[:32]
    return cache_folder(cache_dir) / f'{digest}.images'


def cache_folder(cache_dir: StrPath | None = None) -> pathlib.Path:
    """The folder of the cache: `cache_dir`, or the usual one."""
    if not isinstance(cache_dir, str | os.PathLike | None):
        raise ValueError(f'`cache_dir` must be the path of a folder. Received: {cache_dir=!r}')
    return usual_folder() / 'images' if cache_dir is None else pathlib.Path(cache_dir).expanduser()


def cached(
    path: pathlib.Path,
    decode: Callable[[_Item], tuple[np.ndarray, Any]],
    items: Iterable[tuple[str, _Item]],
    options: Options,
    skip_damaged: bool,
    workers: int | None,
    show_progress: bool,
    total: int | None,
) -> tuple[np.ndarray, dict[str, Any]]:
    """The decoded images in a cache file, which is made first if it isn't there or is damaged.

    Args:
        path: the cache file.
        decode: from an item to (image, its label, as JSON has it); raises ValueError at damage.
        items: yields (name, item).
        options: of `decode_image`, by `checked_options`.
        skip_damaged, workers, show_progress: see `decode_images`.
        total: number of items, or None if nobody knows.

    Returns:
        The images, mapped into memory, and a dict of their `names` and `labels` and of `skipped`.

    Raises:
        ValueError: an image is damaged.
        OSError: the cache can't be written.
    """
    if path.exists():
        try:
            return read_cache(path)
        except ValueError as error:
            _log.warning('decoded anew: %s', error)
    names: list[str] = []
    labels: list[Any] = []
    skipped: dict[str, str] = {}

    def attempt(named):
        name, item = named
        try:
            return name, *decode(item), ''
        except ValueError as error:
            if not skip_damaged:
                raise ValueError(f'{error}; {HOW_TO_SKIP}') from error
            return name, None, None, str(error)

    def rows():
        for name, image, label, damage in in_order(attempt, items, workers):
            bar.update()
            if damage:
                skipped[name] = damage
            else:
                names.append(name)
                labels.append(label)
                yield image

    _check_cache(path.parent)
    with progress_bar('decoding', total, shown=show_progress) as bar:
        result = write_cache(
            path,
            rows(),
            options.image_shape,
            lambda: {'names': names, 'labels': labels, 'skipped': skipped},
        )
    if skipped:
        _log.warning(left_out([*skipped], 'damaged image is', 'damaged images are'))
    return result


def _check_cache(folder):
    try:
        check_writable(folder, 'cache_dir')
    except OSError as error:
        if folder != cache_folder():
            raise
        raise OSError(f'{error}: pass `cache_dir`, or set FENWICKS_DATA') from error
