"""TFRecord shards of images, without TensorFlow: written in parallel, and decoded."""

from __future__ import annotations

import hashlib
import json
import os
import pathlib
import re
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np

from fenwicks._checks import positive_integer
from fenwicks._files import check_writable, written_whole
from fenwicks.data import storage
from fenwicks.data.class_names import check_names
from fenwicks.data.decoded import ImageArrays, cache_file, cached
from fenwicks.data.example import encode_example
from fenwicks.data.folders import check_outside
from fenwicks.data.images import checked_options
from fenwicks.data.limits import damage_named
from fenwicks.data.listing import ImageList, StrPath, check_listed, is_by_folders
from fenwicks.data.progress import progress_bar
from fenwicks.data.records import check_first, decode_record
from fenwicks.data.tfrecord import RecordReader, write_records
from fenwicks.data.threads import in_order, thread_count


def write_shards(
    images: ImageList | ImageArrays,
    folder: StrPath,
    shards: int = 8,
    prefix: str = 'images',
    workers: int | None = None,
    show_progress: bool = True,
) -> list[pathlib.Path]:
    """Writes images as TFRecord shards, `PREFIX-00000-of-00008.tfrecord` and so on.

    Each record is a `tf.train.Example` of `image`, the bytes of the image's file, and where they
    are known `label` (an integer), `path` and `group`. An array's `image` is its pixels, and
    `shape` is `(height, width, channels)`. Image i is in shard i modulo `shards`, so that each
    shard has images of all classes. `PREFIX.json` has the names of the classes.

    A shard appears whole or not at all. After an interruption, call it again: whole shards are
    kept.

    Args:
        images: what to write.
        folder: created if it does not exist.
        shards: number of files, 1 to the number of images.
        prefix: start of the files' names.
        workers: number of threads; by default one for each processor, at most 16.
        show_progress: whether to show a bar.

    Returns:
        The files.

    Raises:
        ValueError: an argument is out of range, or the folder has shards of that prefix of other
            images, or lies among the folders of the classes.
        OSError: an image can't be read, or the disk doesn't take the files.
    """
    if not isinstance(images, ImageArrays):
        check_listed(images)
    shards = positive_integer('shards', shards)
    if shards > len(images):
        raise ValueError(
            f'`shards` must be at most the {len(images)} images. Received: shards={shards}'
        )
    workers = thread_count(workers)
    if not _is_file_name(prefix):
        raise ValueError(
            f'`prefix` must be a file name without *, ? and [. Received: prefix={prefix!r}'
        )
    if not isinstance(folder, str | os.PathLike):
        raise ValueError(f'`folder` must be the path of a folder. Received: {folder=!r}')
    folder = pathlib.Path(folder).expanduser()
    if isinstance(images, ImageList) and is_by_folders(images):
        check_outside(images.root, 'folder', folder)
    check_writable(folder)
    description = {
        'class_names': list(images.class_names),
        'images': len(images),
        'shards': shards,
        'fingerprint': _fingerprint(images),
    }
    _claim(folder, prefix, description)
    paths = [folder / f'{prefix}-{number:05d}-of-{shards:05d}.tfrecord' for number in range(shards)]

    stop = threading.Event()

    def records(number):
        for index in range(number, len(images), shards):
            if stop.is_set():  # nobody waits for the shard any more
                raise InterruptedError
            yield _record(images, index)

    def write(number):
        if not paths[number].exists():
            write_records(paths[number], records(number))

    with progress_bar('writing', shards, unit=' shards', shown=show_progress) as bar:
        for _ in in_order(write, range(shards), workers, stop):
            bar.update()
    return paths


def _is_file_name(prefix):
    """Whether files can have a name, and `glob` can find them by it."""
    if not isinstance(prefix, str) or not prefix or pathlib.Path(prefix).name != prefix:
        return False
    return not set('*?[\0') & set(prefix)


def _claim(folder, prefix, description):
    """Writes PREFIX.json, or checks that the one that is there says the same."""
    path = folder / f'{prefix}.json'
    if path.exists():
        with damage_named(path, 'be the description of shards'):
            found = json.loads(path.read_text())
        if found != description:
            other = 'shards of other images'
            if isinstance(found, dict) and found.get('fingerprint') == description['fingerprint']:
                other = f'the same images in {found.get("shards")} shards, or with other names'
            raise ValueError(
                f'{path}: the folder has {other}: choose another `folder` or `prefix`, or remove '
                'them'
            )
        return
    if any(folder.glob(f'{prefix}-*-of-*.tfrecord')):
        raise ValueError(
            f'{folder}: has shards named {prefix}, but no {path.name}: choose another `folder` or '
            '`prefix`, or remove them'
        )
    with written_whole(path) as part:
        part.write_text(json.dumps(description))


def _fingerprint(images):
    """A digest of what the shards hold: files' names, sizes, times and labels; arrays' pixels."""
    digest = hashlib.sha256()
    if isinstance(images, ImageArrays):
        for start in range(0, len(images), 1000):
            digest.update(np.asarray(images.images[start : start + 1000]).tobytes())
        digest.update(json.dumps([images.image_shape, images.names]).encode('ascii'))
    else:
        states = [(path, os.stat(images.root / path)) for path in images.paths]
        entries = [(path, state.st_size, state.st_mtime_ns) for path, state in states]
        digest.update(json.dumps(entries).encode('ascii'))
    if images.labels is not None:
        digest.update(np.asarray(images.labels, np.int64).tobytes())
    if images.groups is not None:
        digest.update(json.dumps([str(group) for group in images.groups]).encode('ascii'))
    return digest.hexdigest()


def _record(images, index):
    """The serialized Example of one image."""
    if isinstance(images, ImageArrays):
        names = images.names
        features: dict[str, Any] = {
            'image': np.asarray(images.images[index]).tobytes(),
            'shape': list(images.image_shape),
        }
    else:
        names = images.paths
        features = {'image': (images.root / names[index]).read_bytes()}
    if names:
        features['path'] = os.fsencode(names[index])
    if images.labels is not None:
        features['label'] = int(images.labels[index])
    if images.groups is not None:
        features['group'] = os.fsencode(str(images.groups[index]))
    return encode_example(features)


def decode_shards(
    pattern: StrPath,
    image_size: tuple[int, int],
    fit: str = 'crop',
    filter: str = 'bilinear',
    channels: int = 3,
    class_names: tuple[str, ...] | None = None,
    image_feature: str = 'image',
    label_feature: str | None = 'label',
    skip_damaged: bool = False,
    cache_dir: StrPath | None = None,
    workers: int | None = None,
    show_progress: bool = True,
) -> ImageArrays:
    """Decodes the images of TFRecord shards, or opens what an earlier call has decoded.

    Reads what `write_shards`, TFDS and the original Fenwicks wrote. See `decode_images` about the
    file in which the result is kept.

    Args:
        pattern: the files, such as `'folder/images-*.tfrecord'`, or a URL such as
            `'gs://bucket/folder/train-*'`; they are read in the order of their names. URLs are
            opened by fsspec or TensorFlow, and kept by their names alone: a changed file with the
            old name isn't noticed.
        image_size, fit, filter, channels: see `fenwicks.data.images.decode_image`.
        class_names: the names of the classes; by default from `PREFIX.json` or from TFDS's
            `label.labels.txt` beside the shards, else the numbers.
        image_feature: name of the feature with the image: the bytes of a file, or of pixels if
            there is a feature `shape`.
        label_feature: name of the feature with the class's number; None for no labels. If all
            records have a text `group`, these are the groups.
        skip_damaged: whether to leave out damaged records and images, and list them in `skipped`;
            by default the first one is an error that names its file and position.
        cache_dir, workers, show_progress: see `decode_images`.

    Returns:
        ImageArrays, mapped into memory.

    Raises:
        FileNotFoundError: no file matches.
        ValueError: an option is invalid, or a record or image is damaged.
        OSError: a file can't be read, or the cache can't be written.
    """
    options = checked_options(image_size, fit, filter, channels)
    paths = found_files(pattern)
    settings = [options, image_feature, label_feature, bool(skip_damaged), paths, 'with groups']
    local = [pathlib.Path(path).absolute() for path in paths if not storage.is_url(path)]
    cache = cache_file(cache_dir, settings, local)

    def items() -> Iterator[tuple[str, tuple[str, bytes | None]]]:
        for path in paths:
            reader = RecordReader(path, skip_damaged)
            for record in reader:
                if not reader.number and not skip_damaged:
                    # All records lack what the first one does: it is no damage to be left out.
                    check_first(f'{path}: record 0', record, image_feature, label_feature)
                name = f'{path}: record {reader.number}'
                yield name, (name, record)
            for number in reader.damaged:
                name = f'{path}: record {number}'
                yield name, (name, None)

    def decode(named):
        name, record = named
        if record is None:
            raise ValueError(f'{name}: its checksum or length is wrong')
        image, *known = decode_record(name, record, options, image_feature, label_feature)
        return image, known

    stored, description = cached(
        cache, decode, items(), options, skip_damaged, workers, show_progress, None
    )
    if not len(stored):
        first = next(iter(description['skipped'].values()), 'no records')
        raise ValueError(f'{pattern}: must hold at least one image. Received: none ({first})')
    numbers, groups = zip(*description['labels'], strict=True)
    labels = None if label_feature is None else np.array(numbers, np.int32)
    if labels is not None and class_names is None:
        class_names = _class_names(paths, labels, label_feature)
    return ImageArrays(
        stored,
        labels,
        () if class_names is None else class_names,
        tuple(description['names']),
        None if None in groups else np.array(groups),
        description['skipped'],
        os.fspath(pattern),
    )


def found_files(pattern: StrPath) -> list[str]:
    """The names of the shards that match; see `storage.find_files`.

    Raises:
        FileNotFoundError: there is none, or some are missing.
    """
    paths = storage.find_files(pattern)
    if paths:
        return paths
    hint, text = '', os.fspath(pattern)
    if not storage.is_url(text) and os.path.isdir(os.path.expanduser(text)):
        hint = f' and not a folder: {os.path.join(text, "images-*")}, or what else they are called'
    elif '[' in text:
        hint = ', in which [[] stands for the letter ['
    raise FileNotFoundError(f'`pattern` must match files{hint}. Received: pattern={pattern!r}')


def _class_names(paths, labels, label_feature):
    """The names beside the shards, else the numbers up to the largest."""
    found = {_written_names(path, label_feature): path for path in paths}
    if len(found) > 1:
        first, second, *_ = found.values()
        raise ValueError(
            f'shards must be of the same classes: read them apart. Received: {first} and {second}, '
            'whose classes differ'
        )
    (names,) = found
    if names is not None:
        check_names(found[names], names)
        return names
    highest = int(labels.max())
    if highest >= 2**20:
        raise ValueError(
            f'{paths[0]}: labels without names must be in [0, {2**20}). Received: {highest}'
        )
    return tuple(map(str, range(highest + 1)))


def _written_names(path, label_feature):
    """Names from PREFIX.json or TFDS's file beside a shard; None if there is neither."""
    if not storage.is_url(path):
        shard = pathlib.Path(path)
        match = re.fullmatch(r'(.+)-\d+-of-\d+\.tfrecord', shard.name)
        described = shard.with_name(f'{match[1] if match else shard.stem}.json')
        if match and described.is_file():
            with damage_named(described, 'be the description of shards'):
                return tuple(map(str, json.loads(described.read_text())['class_names'])) or None
        listed = shard.parent / f'{label_feature}.labels.txt'
        if listed.is_file():
            with damage_named(listed, 'hold the name of a class in each line'):
                return tuple(listed.read_text(encoding='utf-8').splitlines())
    return None
