"""Where a script's images come from, by its flags: folders, a CSV file, a pattern, TFRecords."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import pathlib
import statistics
from collections.abc import Callable, Iterable, Iterator

import numpy as np
from absl import flags, logging

from fenwicks import command, data
from fenwicks.data.class_names import places
from fenwicks.data.decoded import cache_folder
from fenwicks.data.example import decode_example
from fenwicks.data.folders import check_outside, folders_of, is_shown
from fenwicks.data.images import open_image
from fenwicks.data.shards import found_files
from fenwicks.data.tfrecord import RecordReader

FLAGS = flags.FLAGS
TRAIN_FOLDERS = ('train', 'training')
TEST_FOLDERS = ('test', 'testing', 'val', 'valid', 'validation')  # the first of them that is there
LOOKED_AT = 200  # images, whose sizes say how large the others are


def define_flags() -> None:
    """Defines the flags that say where images and labels are."""
    flags.DEFINE_string(
        'csv',
        None,
        'Labels in this CSV file; its paths are absolute, or start in DIR, by default its folder.',
    )
    flags.DEFINE_string('path_column', '0', 'Of the CSV file: header or number, from 0.')
    flags.DEFINE_string('label_column', '1', 'Of the CSV file: header or number.')
    flags.DEFINE_string(
        'group_column', None, 'Of the CSV file: images with the same value stay together.'
    )
    flags.DEFINE_string('extension', '', "Appended to the CSV file's paths, such as .jpg.")
    flags.DEFINE_string(
        'pattern',
        None,
        'Regular expression that finds the class in the path: its group, or the one named label; '
        'images of the same group named group stay together.',
    )
    flags.DEFINE_string('tfrecord', None, "TFRecord files or URLs, such as 'shards/images-*'.")
    flags.DEFINE_string('dataset', None, 'tfds:NAME, a data set of TensorFlow Datasets.')
    flags.DEFINE_string('data_dir', None, 'Of --dataset: where TensorFlow Datasets keeps it.')
    flags.DEFINE_string('fit', 'crop', 'How images become square: crop, pad or stretch.')
    flags.DEFINE_bool('skip_damaged', False, 'Leave out damaged images, and say how many.')
    flags.DEFINE_string(
        'cache_dir', None, 'Folder for the decoded images; default: as the README of data says.'
    )


@dataclasses.dataclass(frozen=True)
class Source:
    """Images and their classes, not yet decoded.

    Args:
        name: of the data set.
        short_sides: the shorter sides, in pixels, of some of the images.
        decode: from a size to the images.
        split: from the decoded images to the indices to train and to test on, where the source says
            which images are which.
        folder: where the names of the images start, if they are files.
        count: number of images; None where nobody knows before they are decoded.
    """

    name: str
    short_sides: Callable[[], Iterable[int]]
    decode: Callable[[tuple[int, int]], data.ImageArrays]
    split: Callable[[data.ImageArrays], tuple[np.ndarray, np.ndarray]] | None = None
    folder: pathlib.Path | None = None
    count: int | None = None

    def folders_of(self, names: Iterable[str]) -> list[str]:
        """The folders that hold these of the images; empty if they are no files."""
        return [] if self.folder is None else folders_of(self.folder / name for name in names)

    def median_side(self) -> int:
        """The median of the shorter sides of some of the images; 0 if none of them can be read."""
        with named_as_flags():
            sides = list(self.short_sides())
        return int(statistics.median(sides)) if sides else 0


@contextlib.contextmanager
def named_as_flags() -> Iterator[None]:
    """A block in which the library's errors advise flags, and not arguments."""
    names = {'skip_damaged': '--skip_damaged'}
    if FLAGS.cache_dir is None:  # the usual place is at fault
        names['cache_dir'] = '--cache_dir'
    with command.renamed(names):
        yield


def by_flags(folder: str | None) -> Source:
    """The images that the flags, and the argument DIR, speak of.

    Raises:
        ValueError: they speak of none, of several, or of something else than images.
        OSError: a file is not there.
    """
    given = [name for name in ('csv', 'pattern', 'tfrecord', 'dataset') if FLAGS[name].value]
    if len(given) > 1:
        raise ValueError(f'`{given[0]}` must not be given with `{given[1]}`: choose one of them')
    kind = given[0] if given else 'folders'
    if folder is None and kind in ('folders', 'pattern'):
        raise ValueError('DIR must be a folder of images, or use --csv, --tfrecord or --dataset')
    if folder is not None and kind in ('tfrecord', 'dataset'):
        raise ValueError(f'DIR must not be given with `{kind}`. Received: DIR={folder}')
    for name in ('path_column', 'label_column', 'group_column', 'extension'):
        if FLAGS[name].present and kind != 'csv':
            raise ValueError(f'`{name}` needs `csv`. Received: {name}={FLAGS[name].value}')
    if FLAGS['data_dir'].present and kind != 'dataset':
        raise ValueError(f'`data_dir` needs `dataset`. Received: data_dir={FLAGS.data_dir}')
    for name in ('skip_damaged', 'cache_dir'):
        if FLAGS[name].value and kind == 'dataset':
            raise ValueError(
                f'`{name}` must not be given with `dataset`. Received: {name}={FLAGS[name].value}'
            )
    cache = cache_folder(FLAGS.cache_dir)
    if kind in ('folders', 'pattern') and not cache.is_file():  # of which decoding complains
        check_outside(folder, 'cache_dir', cache, ', or set FENWICKS_DATA', hidden=True)
    with command.renamed({'root': 'DIR'}):
        return {
            'csv': from_csv,
            'pattern': from_pattern,
            'tfrecord': from_tfrecord,
            'dataset': from_tfds,
            'folders': from_folders,
        }[kind](folder)


def from_folders(folder: str) -> Source:
    """A folder for each class; or such folders in `train`, and in `test` or `val`."""
    root = pathlib.Path(folder).expanduser()
    folders = [each for each in root.iterdir() if each.is_dir()] if root.is_dir() else []
    classes = {each.name.lower(): each.name for each in folders if is_shown(each.name)}
    trains, tests = (
        [classes[name] for name in names if name in classes]
        for names in (TRAIN_FOLDERS, TEST_FOLDERS)
    )
    if root.is_dir() and not classes:
        raise ValueError(
            f'{root}: must hold a folder for each class, or use --csv or --pattern for labels '
            'that are elsewhere. Received: no folders'
        )
    if len(classes) == 1 and trains:
        raise ValueError(
            f'{root}: must hold a folder to test on, too, such as test. Or name {root / trains[0]} '
            f'as DIR, of which some images are then for the test. Received: {trains[0]} alone'
        )
    others = sorted({*classes.values()} - {*trains, *tests})
    if not tests or (others and not trains):
        return _listed(data.ImageList.from_folders(root))
    if len(trains) != 1 or others:
        raise ValueError(
            f'{root}: must hold folders to train and to test on and no others, or a folder for '
            f'each class. Received: {", ".join(sorted(classes.values())[:5])}'
        )
    if len(tests) > 1:
        logging.warning('%s is the test; left out: %s', root / tests[0], ', '.join(tests[1:]))
    train = data.ImageList.from_folders(root / trains[0])
    test = data.ImageList.from_folders(root / tests[0], min_classes=1)
    found = places(test.class_names, train.class_names)
    if unknown := [x for x, place in zip(test.class_names, found, strict=True) if place is None]:
        raise ValueError(
            f'{root / tests[0]}: must have the classes of {root / trains[0]}. '
            f'Received: {", ".join(unknown[:3])}'
        )
    numbers = np.array(found, np.int32)
    images = data.ImageList(
        root,
        tuple(f'{trains[0]}/{path}' for path in train.paths)
        + tuple(f'{tests[0]}/{path}' for path in test.paths),
        np.concatenate([train.labels, numbers[test.labels]]),
        train.class_names,
    )

    def split(arrays):
        to_train = np.array([name.startswith(f'{trains[0]}/') for name in arrays.names])
        return np.flatnonzero(to_train), np.flatnonzero(~to_train)

    return _listed(images, split)


def from_csv(folder: str | None) -> Source:
    """Labels in a CSV file."""
    columns = (FLAGS.path_column, FLAGS.label_column, FLAGS.group_column)
    places = [int(each) if (each or '').isdigit() else each for each in columns]
    return _listed(data.ImageList.from_csv(FLAGS.csv, folder, *places, extension=FLAGS.extension))


def from_pattern(folder: str) -> Source:
    """Labels in the paths."""
    return _listed(data.ImageList.from_pattern(folder, FLAGS.pattern))


def from_tfrecord(_: None) -> Source:
    """TFRecord shards."""
    with command.renamed({'pattern': 'tfrecord'}):
        files = found_files(FLAGS.tfrecord)

    def short_sides():
        for _, record in zip(
            range(LOOKED_AT), RecordReader(files[0], FLAGS.skip_damaged), strict=False
        ):
            with contextlib.suppress(ValueError, TypeError):  # decoding complains of it
                features = decode_example(record)
                if 'shape' in features:
                    yield min(map(int, features['shape'][:2]))
                elif features.get('image'):
                    yield from _short_side(features['image'][0])

    def decode(size):
        with command.renamed({'pattern': 'tfrecord'}), named_as_flags():
            return data.decode_shards(FLAGS.tfrecord, size, **_settings())

    return Source(pathlib.PurePath(files[0]).stem.partition('-')[0], short_sides, decode)


def from_tfds(_: None) -> Source:
    """A data set of TensorFlow Datasets."""
    name = FLAGS.dataset
    with command.renamed({'name': 'dataset'}):
        found = data.tfds_images(name, data_dir=FLAGS.data_dir)
    train, test = np.arange(found.train_count), np.arange(found.test_count) + found.train_count
    return Source(
        name,
        lambda: found.short_sides(LOOKED_AT),
        lambda size: found.decode(size, FLAGS.fit),
        (lambda _: (train, test)) if found.test_count else None,
        count=len(train) + len(test),
    )


def _listed(images, split=None):
    def short_sides():
        step = max(1, len(images) // LOOKED_AT)
        for file in images.files[::step]:
            yield from _short_side(file)

    def decode(size):
        with named_as_flags():
            return data.decode_images(images, size, **_settings())

    # A name that is no UTF-8 could be neither printed nor drawn.
    name = os.fsencode(images.root.resolve().name).decode(errors='replace')
    return Source(name, short_sides, decode, split, images.root, len(images))


def _short_side(image):
    """The shorter side of an image, or nothing if it is damaged, of which decoding complains."""
    with contextlib.suppress(ValueError), open_image(image) as opened:
        yield min(opened.size)


def _settings():
    return {
        'fit': FLAGS.fit,
        'skip_damaged': FLAGS.skip_damaged,
        'cache_dir': FLAGS.cache_dir,
    }
