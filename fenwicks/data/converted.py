"""Reads CIFAR as others have converted it: Keras's .npz, TFDS, Parquet, and fast.ai's PNG files.

Sizes that a file states are checked before memory is allocated for them. The images and labels of
CIFAR-10 must have the published ones' digest; for CIFAR-100 none is known, and a warning says so.
"""

from __future__ import annotations

import io
import logging
import pathlib
import re
import zipfile
from collections.abc import Iterable

import numpy as np
from PIL import Image

from fenwicks.data.cifar import Spec, check_content
from fenwicks.data.example import decode_example
from fenwicks.data.limits import PNG_BYTES, check_size, damage_named, read_array
from fenwicks.data.published import Arrays, missing_file, most_bytes, tar_members
from fenwicks.data.tfrecord import RecordReader

_log = logging.getLogger('fenwicks')

_NPZ = 'be an .npz file of x_train, y_train, x_test, y_test'
_MOST_MEMBERS = 1000  # of a zip archive


def _size(spec, split):
    return spec.train_size if split == 'train' else spec.test_size


def _checked(spec, splits, where):
    """Checks {'train': (images, labels), 'test': ...} and returns the four arrays."""
    for split in ('train', 'test'):
        images, labels = splits[split]
        check_content(spec, split, images, labels, where)
    if not spec.content:
        _log.warning(
            '%s: the content is not verified: no digest of %s in this form is known, so only the '
            'numbers of images were checked. The published archive and its folder are verified.',
            where,
            spec.title,
        )
    train, test = (
        (images.astype(np.uint8, copy=False), labels.astype(np.int32, copy=False))
        for images, labels in (splits['train'], splits['test'])
    )
    return (*train, *test)


# The readers share their form: path and data set in, four arrays out; ValueError about what is in
# the file, OSError about the file itself, each with its name.


def read_npz(path: pathlib.Path, spec: Spec) -> Arrays:
    """Reads an .npz file of `x_train`, `y_train`, `x_test` and `y_test`."""
    check_size(path, most_bytes(spec))
    splits = {}
    with damage_named(path, _NPZ), zipfile.ZipFile(path) as archive:
        if len(archive.infolist()) > _MOST_MEMBERS:
            raise ValueError(f'{len(archive.infolist())} members')
        for split in ('train', 'test'):
            images = read_array(archive, f'x_{split}', most_bytes(spec))
            labels = read_array(archive, f'y_{split}', most_bytes(spec))
            # Keras keeps labels as a column.
            labels = labels[:, 0] if labels.ndim == 2 and labels.shape[1] == 1 else labels
            splits[split] = images, labels
    return _checked(spec, splits, path)


def from_png(
    examples: Iterable[tuple[bytes, int]], size: int, spec: Spec, where: pathlib.Path | str
) -> tuple[np.ndarray, np.ndarray]:
    """Arrays from pairs of PNG bytes and a label.

    Args:
        examples: yields (bytes, integer).
        size: number of images that there may be at most.
        spec: the data set.
        where: the file or folder, for messages.

    Returns:
        uint8 images `(n, 32, 32, 3)` and int32 labels `(n,)`.

    Raises:
        ValueError: there are none or too many, or one is no image of 32x32 pixels with a label.
    """
    images, labels = np.empty((size, 32, 32, 3), np.uint8), np.empty(size, np.int32)
    count = 0
    for raw, label in examples:
        if count == size:
            raise ValueError(f'{where}: must hold {size} images. Received: more')
        if isinstance(label, bool) or not isinstance(label, int | np.integer):
            raise ValueError(f'{where}: image {count} must have a label. Received: {label!r:.50}')
        if not 0 <= label < len(spec.class_names):
            raise ValueError(
                f'{where}: `labels` must be in [0, {len(spec.class_names)}). Received: {label}'
            )
        with damage_named(where, 'hold 32x32 RGB images as PNG'):
            if not isinstance(raw, bytes) or len(raw) > PNG_BYTES:
                raise ValueError(f'image {count} is no PNG of at most {PNG_BYTES} bytes')
            # A view of the pixels is broadcast if they are fewer: the size is checked first.
            picture = Image.open(io.BytesIO(raw), formats=['PNG'])
            if (picture.size, picture.mode) != ((32, 32), 'RGB'):
                raise ValueError(f'an image of size {picture.size}, mode {picture.mode}')
            images[count] = np.asarray(picture)
        labels[count] = label
        count += 1
    if not count:
        raise ValueError(f'{where}: no images in it')
    return images[:count], labels[:count]


def shards(folder: pathlib.Path, spec: Spec, split: str) -> list[pathlib.Path]:
    """TFDS's files of a split in a folder, TFRecord or ArrayRecord."""
    names = (f'{spec.name}-{split}.{kind}-*-of-*' for kind in ('tfrecord', 'array_record'))
    return sorted(path for name in names for path in folder.glob(name) if path.is_file())


def _records(path, spec):
    """Yields the records of a file, as bytes."""
    check_size(path, most_bytes(spec))
    if '.array_record-' not in path.name:
        yield from RecordReader(path, longest=2 * PNG_BYTES)
        return
    try:
        from array_record.python.array_record_module import ArrayRecordReader
    except ImportError:
        raise OSError(
            f'{path}: ArrayRecord files need the package array_record (pip install array_record)'
        ) from None
    with damage_named(path, 'be an ArrayRecord file'):
        reader = ArrayRecordReader(str(path))
        records = reader.read_all()
        reader.close()
    yield from records


def _examples(paths, spec):
    """Yields (PNG bytes, label) of TFDS's files."""
    for path in paths:
        for record in _records(path, spec):
            with damage_named(path, 'hold examples: one is without image and label'):
                features = decode_example(record)
                image, label = features['image'][0], int(features['label'][0])
            yield image, label


def read_tfds(folder: pathlib.Path, spec: Spec) -> Arrays:
    """Reads TFDS's folder of shards, in TFDS's order."""
    splits = {}
    for split in ('train', 'test'):
        paths = shards(folder, spec, split)
        if not paths:
            raise missing_file(folder / f'{spec.name}-{split}.tfrecord-00000-of-00001', spec)
        splits[split] = from_png(_examples(paths, spec), _size(spec, split), spec, folder)
    return _checked(spec, splits, folder)


def read_parquet(folder: pathlib.Path, spec: Spec) -> Arrays:
    """Reads Hugging Face's Parquet files."""
    try:
        from pyarrow import parquet
    except ImportError:
        raise OSError(f'{folder}: Parquet files need pyarrow (pip install pyarrow)') from None
    splits = {}
    for split in ('train', 'test'):
        paths = sorted(filter(pathlib.Path.is_file, folder.glob(f'{split}-*-of-*.parquet')))
        if not paths:
            raise missing_file(folder / f'{split}-00000-of-00001.parquet', spec)
        rows = (row for path in paths for row in _rows(path, spec, parquet))
        splits[split] = from_png(rows, _size(spec, split), spec, folder)
    return _checked(spec, splits, folder)


def _rows(path, spec, parquet):
    """(PNG bytes, label) of each row of a Parquet file."""
    check_size(path, most_bytes(spec))
    columns = ['img', 'label' if spec.name == 'cifar10' else 'fine_label']
    with damage_named(path, 'be a whole Parquet file'):
        file = parquet.ParquetFile(path)
        groups = (file.metadata.row_group(i) for i in range(file.metadata.num_row_groups))
        if sum(group.total_byte_size for group in groups) > most_bytes(spec):
            raise ValueError('it claims more bytes than all images have')
        table = file.read(columns=columns)
        images, labels = (table.column(name).to_pylist() for name in columns)
        return [(image['bytes'], label) for image, label in zip(images, labels, strict=True)]


def read_png_archive(path: pathlib.Path, spec: Spec) -> Arrays:
    """Reads fast.ai's archive: cifar10/train/CLASS/NUMBER_CLASS.png, NUMBER the original place."""
    pattern = re.compile(r'[^/]+/(train|test)/([a-z_]+)/(\d{1,9})_[a-z_]+\.png')
    numbers = {name: number for number, name in enumerate(spec.class_names)}
    examples: dict = {'train': {}, 'test': {}}
    check_size(path, most_bytes(spec))
    # A file of a tar archive has a header of 512 bytes and is filled up to a multiple of them.
    most = 4096 * (spec.train_size + spec.test_size) + most_bytes(spec)
    kept = 0
    for name, raw in tar_members(path, pattern.fullmatch, most, PNG_BYTES):
        match = pattern.fullmatch(name)
        assert match is not None
        split, label, position = match.groups()
        kept += len(raw)
        if kept > most_bytes(spec):
            raise ValueError(f'{path}: its images have more bytes than {spec.title}')
        if label in numbers:
            examples[split][int(position)] = raw, numbers[label]
    splits = {}
    for split, items in examples.items():
        ordered = (pair for _, pair in sorted(items.items()))
        splits[split] = from_png(ordered, _size(spec, split), spec, path)
    return _checked(spec, splits, path)
