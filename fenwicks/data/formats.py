"""Finds and reads every form in which CIFAR lies on a disk, and checks it before trusting it."""

from __future__ import annotations

import functools
import gzip
import hashlib
import io
import pathlib
import re
import tarfile
import zipfile
import zlib

import numpy as np
from PIL import Image, UnidentifiedImageError

from fenwicks.data import unpickle
from fenwicks.data.cifar import check_content
from fenwicks.data.digests import check_md5, md5_of


def find(root, spec):
    """Every form of the data set in one place.

    Args:
        root: a folder that holds, or is, one of the forms; or an archive or .npz file.
        spec: cifar.Spec.

    Returns:
        List of (path, read): `read()` returns the checked arrays `(train_images, train_labels,
        test_images, test_labels)`, or raises ValueError or OSError, in one line with the file.
    """
    root = pathlib.Path(root)
    found = []
    folders = [root] if root.is_dir() else []
    for layout in spec.layouts:
        for folder in [folder / layout.folder for folder in folders] + folders:
            files = [*layout.train, *layout.test]
            if folder.name == layout.folder or any((folder / name).is_file() for name in files):
                found.append((folder, functools.partial(_read_folder, folder, spec, layout)))
    archives = {
        name: (layout, md5) for layout in spec.layouts for name, md5 in layout.archives.items()
    }
    for path in [folder / name for folder in folders for name in archives] or [root]:
        if path.name in archives:
            found.append((path, functools.partial(_read_archive, path, spec, *archives[path.name])))
    dashed = spec.name.replace('cifar', 'cifar-')
    names = [f'{spec.name}.npz', f'{dashed}.npz']
    for path in [folder / name for folder in folders for name in names] or [root]:
        if path.suffix == '.npz':
            found.append((path, functools.partial(_read_npz, path, spec)))
    for folder in folders:
        for place in [*sorted((folder / spec.name).glob('[0-9]*'), reverse=True), folder]:
            if _shards(place, spec, 'train') or _shards(place, spec, 'test'):
                found.append((place, functools.partial(_read_tfds, place, spec)))
        for place in (folder / f'{spec.name}-parquet', folder):
            if any(place.glob('*-00000-of-*.parquet')):
                found.append((place, functools.partial(_read_parquet, place, spec)))
    # Without a known digest fast.ai's form could not be checked.
    for path in [folder / f'{spec.name}.tgz' for folder in folders] or [root]:
        if path.name == f'{spec.name}.tgz' and spec.content:
            found.append((path, functools.partial(_read_png_archive, path, spec)))
    return [(path, read) for path, read in found if path.exists()]


def _missing(path, spec):
    return FileNotFoundError(f'{path}: this file of {spec.title} is missing')


def _read_folder(folder, spec, layout):
    def read(name):
        path = folder / name
        if not path.is_file():
            raise _missing(path, spec)
        return path.read_bytes()

    return _read_layout(spec, layout, read, folder)


def _read_archive(path, spec, layout, md5):
    check_md5(path, md5_of(path), md5)
    wanted = {f'{layout.folder}/{name}' for name in (*layout.train, *layout.test)}
    members = {}
    for name, raw in _tar_members(path, wanted.__contains__):
        members[name.rpartition('/')[2]] = raw

    def read(name):
        if name not in members:
            raise _missing(path / name, spec)
        return members[name]

    return _read_layout(spec, layout, read, path)


def _tar_members(path, wanted):
    """Yields (name, bytes) of the wanted regular files of a tar.gz; nothing touches the disk."""
    try:
        with tarfile.open(path, 'r:gz') as archive:
            for member in archive:
                if member.isreg() and wanted(member.name.removeprefix('./')):
                    yield member.name.removeprefix('./'), archive.extractfile(member).read()
    except (tarfile.TarError, gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise ValueError(f'{path}: a damaged archive ({error})') from None


def _read_layout(spec, layout, read, where):
    """Reads the published files; each is checked against its MD5 before it is looked into."""
    arrays = []
    for split, files in (('train', layout.train), ('test', layout.test)):
        size = spec.train_size if split == 'train' else spec.test_size
        images, labels = np.empty((size, 32, 32, 3), np.uint8), np.empty(size, np.int32)
        start = 0
        for name, md5 in files.items():
            raw, source = read(name), pathlib.Path(where) / name
            check_md5(source, hashlib.md5(raw).hexdigest(), md5)
            pixels, batch_labels = _decode(raw, layout, source)
            stop = start + len(pixels)
            if pixels.shape[1:] != (3072,) or len(batch_labels) != len(pixels) or stop > size:
                raise ValueError(f'{source}: images of an unexpected number or shape')
            images[start:stop] = pixels.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
            labels[start:stop] = batch_labels
            start = stop
        if start != size:
            raise ValueError(f'{where}: {spec.title} has {size} {split} images. Received: {start}')
        arrays += [images, labels]
    return tuple(arrays)


def _decode(raw, layout, source):
    """(pixels `(n, 3072)`, labels `(n,)`) of one published file."""
    if not isinstance(layout.label, bytes):
        records = np.frombuffer(raw, np.uint8).reshape(-1, layout.label_bytes + 3072)
        return records[:, layout.label_bytes :], records[:, layout.label]
    batch = unpickle.loads(raw, source)
    try:
        return np.asarray(batch[b'data'], np.uint8), np.asarray(batch[layout.label], np.int32)
    except (KeyError, TypeError, ValueError):
        raise ValueError(f'{source}: no data and labels in it') from None


def _checked(spec, splits, where):
    """Checks {'train': (images, labels), 'test': ...} and returns the four arrays."""
    for split in ('train', 'test'):
        check_content(spec, split, *splits[split], where)
    return tuple(
        array.astype(dtype, copy=False)
        for split in ('train', 'test')
        for array, dtype in zip(splits[split], (np.uint8, np.int32), strict=True)
    )


def _read_npz(path, spec):
    splits = {}
    try:
        # NumPy leaves a file that it opens itself open where it turns out not to be an archive.
        with open(path, 'rb') as raw, np.load(raw, allow_pickle=False) as file:
            for split in ('train', 'test'):
                labels = file[f'y_{split}']
                # Keras keeps labels as a column.
                labels = labels[:, 0] if labels.ndim == 2 and labels.shape[1] == 1 else labels
                splits[split] = file[f'x_{split}'], labels
    except (ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        reason = ' '.join(str(error).split())
        raise ValueError(
            f'{path}: must be an .npz file of x_train, y_train, x_test, y_test ({reason})'
        ) from None
    return _checked(spec, splits, path)


def _from_png(examples, where):
    """Arrays of a list of (PNG bytes, label)."""
    if not examples:
        raise ValueError(f'{where}: no images in it')
    images = np.empty((len(examples), 32, 32, 3), np.uint8)
    try:
        for image, (raw, _) in zip(images, examples, strict=True):
            # A view of the pixels is broadcast if they are fewer: the size is checked first.
            picture = Image.open(io.BytesIO(raw), formats=['PNG'])
            if (picture.size, picture.mode) != ((32, 32), 'RGB'):
                raise ValueError(f'an image of size {picture.size}, mode {picture.mode}')
            image[:] = picture
    except (ValueError, OSError, SyntaxError, UnidentifiedImageError) as error:
        raise ValueError(f'{where}: must hold 32x32 RGB images as PNG ({error})') from None
    return images, np.array([label for _, label in examples], np.int32)


def _shards(folder, spec, split):
    names = (f'{spec.name}-{split}.{kind}-*-of-*' for kind in ('tfrecord', 'array_record'))
    return sorted(path for name in names for path in folder.glob(name))


def _records(path, tensorflow):
    """The records of a file, as bytes."""
    if '.array_record-' not in path.name:
        try:
            return list(tensorflow.data.TFRecordDataset(str(path)).as_numpy_iterator())
        except tensorflow.errors.DataLossError:
            raise ValueError(f'{path}: the file is truncated or damaged') from None
    try:
        from array_record.python.array_record_module import ArrayRecordReader
    except ImportError:
        raise OSError(
            f'{path}: ArrayRecord files need the package array_record (pip install array_record)'
        ) from None
    reader = ArrayRecordReader(str(path))
    records = reader.read_all()
    reader.close()
    return records


def _example(record, tensorflow, where):
    """(PNG bytes, label) of one serialized tf.train.Example."""
    from google.protobuf.message import DecodeError

    try:
        features = tensorflow.train.Example.FromString(record).features.feature
        return features['image'].bytes_list.value[0], features['label'].int64_list.value[0]
    except (DecodeError, IndexError):
        raise ValueError(f'{where}: an example without image and label') from None


def _read_tfds(folder, spec):
    try:
        import tensorflow
    except ImportError:
        raise OSError(f"{folder}: TFDS's files need TensorFlow (the extra [cpu])") from None
    splits = {}
    for split in ('train', 'test'):
        shards = _shards(folder, spec, split)
        if not shards:
            raise _missing(folder / f'{spec.name}-{split}.tfrecord-00000-of-00001', spec)
        splits[split] = _from_png(
            [
                _example(record, tensorflow, path)
                for path in shards
                for record in _records(path, tensorflow)
            ],
            folder,
        )
    return _checked(spec, splits, folder)


def _read_parquet(folder, spec):
    try:
        from pyarrow import ArrowException, parquet
    except ImportError:
        raise OSError(f'{folder}: Parquet files need pyarrow (pip install pyarrow)') from None
    columns = ['img', 'label' if spec.name == 'cifar10' else 'fine_label']
    splits = {}
    for split in ('train', 'test'):
        examples = []
        paths = sorted(folder.glob(f'{split}-*-of-*.parquet'))
        if not paths:
            raise _missing(folder / f'{split}-00000-of-00001.parquet', spec)
        for path in paths:
            try:
                table = parquet.ParquetFile(path).read(columns=columns)
                images, labels = (table.column(name).to_pylist() for name in columns)
                examples += [(i['bytes'], y) for i, y in zip(images, labels, strict=True)]
            except (ArrowException, OSError, KeyError, TypeError) as error:
                reason = ' '.join(str(error).split())
                raise ValueError(f'{path}: a damaged Parquet file ({reason})') from None
        splits[split] = _from_png(examples, folder)
    return _checked(spec, splits, folder)


def _read_png_archive(path, spec):
    """fast.ai's form: cifar10/train/CLASS/NUMBER_CLASS.png, NUMBER being the original position."""
    pattern = re.compile(r'[^/]+/(train|test)/([a-z_]+)/(\d+)_[a-z_]+\.png')
    numbers = {name: number for number, name in enumerate(spec.class_names)}
    examples = {'train': {}, 'test': {}}
    for name, raw in _tar_members(path, pattern.fullmatch):
        split, label, position = pattern.fullmatch(name).groups()
        if label in numbers:
            examples[split][int(position)] = raw, numbers[label]
    splits = {
        split: _from_png([pair for _, pair in sorted(items.items())], path)
        for split, items in examples.items()
    }
    return _checked(spec, splits, path)
